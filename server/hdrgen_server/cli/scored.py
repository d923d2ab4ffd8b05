"""What `hdrgen evaluate` scores: packs, by name or by folder, as functions from samples to light.

It owns finding them and calling their operators. It must not know the test of an operation, nor tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hdrgen_server.cli.choice import shot_parameters, typed
from hdrgen_server.cli.direct import Quiet, load_operator, run_operator
from hdrgen_server.contracts.descriptor import Value
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Operator, Request
from hdrgen_server.packs import licence
from hdrgen_server.packs.manifest import MANIFEST_NAME, Pack, read_pack
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import Settings
from nuke_hdrgen.wire.errors import BadParameter

if TYPE_CHECKING:
    from hdrgen_server.evaluate.panned import ShotMethod
    from hdrgen_server.evaluate.protocol import Method

FINAL = ":final"
KEPT = ", plate preserved"
PROMPTED = "txt2hdr"
"""The operation that is tested without truth."""


@dataclass(frozen=True)
class Options:
    """How packs are scored: `sets` are parameters as text."""

    knock_out: bool = False
    preserve_plate: bool = False
    sets: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Asked:
    """What every method is run on: `count` samples of each kind, of the scenes in a folder."""

    folder: Path
    kinds: tuple[str, ...]
    count: int


def pack_of(name: str, settings: Settings) -> Pack | None:
    """The pack that a METHOD names: one that is here, or a folder that holds one; None where there is neither.

    Raises BadInput for a folder whose manifest is broken, or whose base is not here.
    """
    plain, registry = name.removesuffix(FINAL), load_registry(settings)
    if (Path(plain) / MANIFEST_NAME).is_file():
        return registry.based(read_pack(Path(plain)))
    return registry.packs.get(plain)


def operation_of(name: str, settings: Settings) -> str:
    """What a pack, or a method without one, is scored for. Raises BadParameter listing packs and methods."""
    from hdrgen_server.evaluate.suites import SUITES

    pack = pack_of(name, settings)
    does = () if pack is None else pack.descriptor.operations
    for operation, suite in SUITES.items():
        if operation in does or name in suite.methods:
            return operation
    if PROMPTED in does:
        return PROMPTED
    packs = sorted(load_registry(settings).packs)
    here = ", ".join([*packs, *(method for suite in SUITES.values() for method in suite.methods)])
    what = f"{name} does {', '.join(does)}, which has no test" if does else f"there is no pack or method {name!r}"
    raise BadParameter(f"{what}; there are: {here}")


def without_operators(name: str, settings: Settings) -> tuple[str, ...]:
    """The tone-mapping operators that a pack says it was trained without."""
    pack = pack_of(name, settings)
    return () if pack is None else tuple(map(str, pack.options.get("without_operators", ())))


def pack_methods(name: str, operation: str, settings: Settings, options: Options) -> dict[str, Method]:
    """Functions from a sample to (H, W, 3) scene-linear Rec.709 through the pack's operator.

    Raises BadParameter for a parameter that the pack does not have, or a plate to preserve in another operation.
    """
    if options.preserve_plate and operation != "sdr2hdr":
        raise BadParameter("--preserve-plate is for packs of sdr2hdr; leave it away")
    operator, quality, parameters = _loaded(name, settings, options)

    def method(sample: Any) -> Any:
        frames = [_frame(codes, sample.encoding, ev) for codes, ev in zip(sample.codes_nhwc, sample.evs, strict=True)]
        given = parameters | ({"reference": sample.reference} if operation == "hdrfuse" else {})
        return _light(run_operator(operator, operation, frames, given, quality)[0])

    def kept(sample: Any) -> Any:
        from hdrgen_server.image.finish import clipped_pixels, preserve_plate

        plate = _frame(sample.codes_nhwc[0], sample.encoding)
        clipped = clipped_pixels(plate, int(operator.descriptor.resolve(parameters)["clip_threshold"]) / 255)
        return preserve_plate(method(sample), _light(plate), clipped)

    found: dict[str, Method] = {name: method}
    if options.preserve_plate:
        found[name + KEPT] = kept
    if options.knock_out:
        from hdrgen_server.evaluate.knockout import knocked_out

        found |= knocked_out(operator, method, quality)
    return found


@dataclass(frozen=True, eq=False)
class PromptMethod:
    """A pack of txt2hdr as a function from prompt, seed and whether it goes all around to light, at its own size."""

    name: str
    operator: Operator
    draw: Callable[[str, int, bool], Any]


def prompt_method(name: str, settings: Settings, options: Options) -> PromptMethod:
    """The pack that a METHOD names, for prompts. Panoramas are twice as wide as a picture of it is high."""
    operator, quality, parameters = _loaded(name, settings, options)

    def draw(prompt: str, seed: int, panorama: bool) -> Any:
        given = {**parameters, "prompt": prompt}
        resolved = operator.descriptor.resolve(given)
        if panorama:
            wide = {"projection": "panorama", "width": 2 * int(resolved["height"])}
            resolved = operator.descriptor.resolve(given | wide)
        request = Request(PROMPTED, resolved, quality=quality, frame_count=0, seed=seed)
        (result,) = operator.run(request, iter(()), Quiet())
        return _light(result)

    return PromptMethod(name, operator, draw)


def shot_method(name: str, settings: Settings, options: Options) -> ShotMethod:
    """From a shot's sRGB codes to its light: by a method without a pack frame by frame, by the pack's operator as one
    job, smoothed as `hdrgen sdr2hdr` does.
    """
    from hdrgen_server.evaluate.sdr_baselines import EXPANSIONS

    expand = EXPANSIONS.get(name)
    if expand is not None:
        return lambda codes: map(expand, codes)
    operator, quality, parameters = _loaded(name, settings, options)

    def method(codes: Sequence[Any]) -> Iterator[Any]:
        frames = [_frame(codes_hwc, "srgb_rec709_scene") for codes_hwc in codes]
        given = shot_parameters(operator.descriptor, parameters, range(len(frames)))
        return map(_light, run_operator(operator, "sdr2hdr", frames, given, quality))

    return method


def _loaded(name: str, settings: Settings, options: Options) -> tuple[Operator, str, dict[str, Value]]:
    """The operator of a pack, the quality that its name asks for, and its parameters. Raises LicenceNotAccepted."""
    pack = pack_of(name, settings) or load_registry(settings).get(name.removesuffix(FINAL))
    licence.require(pack, settings)
    parameters = {key: typed(pack, key, text) for key, text in options.sets.items()}
    pack.descriptor.resolve(parameters)
    device = "cpu" if settings.device == "auto" else settings.device
    return load_operator(pack, device), "final" if name.endswith(FINAL) else "draft", parameters


def _frame(codes_hwc: Any, encoding: str, ev: float = 0.0) -> Frame:
    import numpy as np

    from hdrgen_server.colour.interop import colourspace

    metadata = {"bits": 8}
    return Frame(np.ascontiguousarray(codes_hwc), ("R", "G", "B"), colourspace(encoding), ev=ev, metadata=metadata)


def _light(frame: Frame) -> Any:
    """(H, W, 3) scene-linear Rec.709."""
    from hdrgen_server.colour.interop import colourspace
    from hdrgen_server.colour.ocio import convert

    return convert(frame, colourspace("lin_rec709_scene")).rgb
