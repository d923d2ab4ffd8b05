"""Which second stage a pack states. It must not know torch or diffusers."""

from __future__ import annotations

from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.refine.config import REFINERS, RefinerConfig
from nuke_hdrgen.wire.errors import BadInput


def refiner_config(pack: Pack) -> RefinerConfig | None:
    """The second stage that a pack states, None where it has none. Raises BadInput for one that does not fit."""
    name = str(pack.options.get("refine", ""))
    if not name:
        return None
    again = "add the pack again with `hdrgen packs add`"
    if name not in REFINERS:
        raise BadInput(f"pack {pack.name} has refine {name!r}, which is none of {', '.join(REFINERS)}; {again}")
    config, regressor = REFINERS[name], CONFIGS[str(pack.options["config"])]
    if CONFIGS[config.regressor].widths != regressor.widths:
        raise BadInput(
            f"pack {pack.name}: refine {name!r} takes the features of regressor {config.regressor!r}; {again}"
        )
    return config
