"""Makes packs of LumaFlux from runs of its training.

It owns the pack's files and manifest. It must not know the loop, data or how a pack is run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import MANIFEST_NAME
from hdrgen_server.systems.lumaflux.loading import ADAPTERS_FILE, ENCODER, TRANSFORMER, VAE
from hdrgen_server.training.lumaflux import Choice, best_model
from hdrgen_server.training.recipe import Recipe
from hdrgen_server.training.tone_mapping import OPERATORS
from nuke_hdrgen.wire.errors import BadInput

MANIFEST = """format = 1
name = "{name}"
summary = "LumaFlux: opens an SDR plate's highlights by what it sees in it; the plate keeps its own detail."
system = "lumaflux"
size = "{size}"
preview = true
licence = "Apache-2.0"

[options]
config = "{size}"
"""


def write_pack(recipe: Recipe, choice: Choice, run: Path, base: Path, folder: Path) -> None:
    """Write the best weights of a run with what it was trained on as a pack, in half precision.

    The manifest says which modules and which operators the run was trained without. The folder's name becomes the
    pack's; a card, README.md, may lie in it already. A pack of the stage `backbone` is what the stage `adapters` starts
    from. Raises BadInput where the run has no weights, or trained on published ones: those are added to a pack by
    `hdrgen packs add`.
    """
    if recipe.config != "s":
        raise BadInput(
            f"{run} trained published networks; add its adapters with `hdrgen packs add {run}/best.safetensors`"
        )
    model = best_model(recipe, choice.stage, run, base)
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {TRANSFORMER: model.steered.transformer, VAE: model.vae, ENCODER: model.encoder}
    for name, network in parts.items():
        network.half().save_pretrained(folder / name)
    state = {name: tensor.half().contiguous() for name, tensor in model.adapters.state_dict().items()}
    save_file(state, folder / ADAPTERS_FILE)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    manifest = MANIFEST.format(name=folder.name, size=recipe.config)
    for option, names in (("without", choice.without), ("without_operators", set(OPERATORS) - set(choice.operators))):
        manifest += f"{option} = {json.dumps(sorted(names))}\n" if names else ""
    (folder / MANIFEST_NAME).write_text(manifest, encoding="utf-8")
    (folder / MANIFEST_NAME).write_bytes(finished_manifest(folder))
