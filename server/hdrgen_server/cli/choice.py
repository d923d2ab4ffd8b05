"""What the options of an operation's command choose: the pack, its parameters, quality, seed and what follows the run.

It owns their checks, before any server hears of them. It must not know sockets, pixels or one operation alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from hdrgen_server.cli.finishing import Finish
from hdrgen_server.cli.inputs import Spaces
from hdrgen_server.contracts.descriptor import Descriptor, Value
from hdrgen_server.packs import licence
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import Settings
from nuke_hdrgen.wire.errors import BadInput, BadParameter

QUALITIES = ("draft", "final")
SMOOTHING, SHOT_SMOOTHING = "smoothing", 0.8
SHOT_START, FPS = "shot_start", "fps"


@dataclass(frozen=True)
class Choice:
    """What the options say, checked: the pack, its parameters and the two colourspaces."""

    pack: Pack
    parameters: dict[str, Value]
    quality: str
    seed: int
    aovs: bool
    spaces: Spaces
    finish: Finish
    provenance: str


def parse_sets(pairs: Sequence[str]) -> dict[str, str]:
    """The `--set PARAMETER=VALUE` options. Raises BadParameter."""
    given: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise BadParameter(f"--set {pair!r} is no PARAMETER=VALUE; `hdrgen packs show NAME` lists parameters")
        if name.strip() in given:
            raise BadParameter(f"--set {name.strip()} is given twice; give it once")
        given[name.strip()] = value.strip()
    return given


def choose(
    settings: Settings,
    operation: str,
    name: str | None,
    given: dict[str, str],
    *,
    quality: str,
    seed: int,
    aovs: bool,
    spaces: Spaces,
    finish: Finish,
    shot: bool = False,
) -> Choice:
    """The pack of an operation and its parameters, its licence checked; where none is named, the default for a shot or
    for one moment.

    Raises UnknownPack, BadParameter, LicenceNotAccepted.
    """
    if quality not in QUALITIES:
        raise BadParameter(f"--quality must be {' or '.join(QUALITIES)}, got {quality!r}")
    registry = load_registry(settings)
    pack = registry.get(name) if name else registry.default_for(operation, quality, shot=shot)
    if operation not in pack.descriptor.operations:
        does = ", ".join(pack.descriptor.operations)
        others = ", ".join(p.name for p in registry.all() if operation in p.descriptor.operations)
        instead = f"name one of {others}" if others else "`hdrgen packs list` shows what is here"
        raise BadParameter(f"pack {pack.name} does {does}, not {operation}; {instead}")
    licence.require(pack, settings)
    parameters = {key: typed(pack, key, text) for key, text in given.items()}
    pack.descriptor.resolve(parameters)
    return Choice(pack, parameters, quality, seed, aovs, spaces, finish, settings.provenance)


def shot_parameters(
    descriptor: Descriptor, given: Mapping[str, Value], numbers: Sequence[int], rate: Fraction | None = None
) -> dict[str, Value]:
    """The parameters for a shot of these frames: where its system can smooth over time and nothing else was asked, it
    keeps as much of the frame before as LumaFlux's authors do (0.8); one that looks at windows is told where the shot
    begins, and how fast its frames follow each other.

    Raises BadInput for a shot that lacks frames, where windows look across them.
    """
    if descriptor.temporal:
        missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
        if missing:
            raise BadInput(
                f"frame {missing[0]} is missing ({len(missing)} in all), and {descriptor.system} looks at frames "
                "together; add them, name two shots, or take another pack with --pack"
            )
        return {SHOT_START: numbers[0], **({} if rate is None else {FPS: float(rate)}), **given}
    able = any(p.name == SMOOTHING for p in descriptor.parameters)
    return dict(given) if len(numbers) < 2 or not able else {SMOOTHING: SHOT_SMOOTHING, **given}


def typed(pack: Pack, name: str, text: str) -> Value:
    """A parameter's value from the command line's text, in the type that the descriptor names. Raises BadParameter."""
    kind = next((p.kind for p in pack.descriptor.parameters if p.name == name), "text")
    if kind == "bool":
        if text.lower() not in {"true", "false", "1", "0", "yes", "no"}:
            raise BadParameter(f"{name} must be true or false, got {text!r}")
        return text.lower() in {"true", "1", "yes"}
    try:
        return int(text) if kind == "int" else float(text) if kind == "float" else text
    except ValueError as error:
        raise BadParameter(f"{name} must be {kind}, got {text!r}") from error
