"""What a system says about itself before anything is loaded: the gateway admits jobs by it and users read it.

It owns the fields and the check of a request's parameters. It must not know torch, files or sockets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from nuke_hdrgen.wire.errors import BadParameter
from nuke_hdrgen.wire.windows import Windows

Value = int | float | bool | str
Kind = Literal["int", "float", "bool", "text", "choice"]


@dataclass(frozen=True)
class Parameter:
    """One knob of a system: its type, default, range and one sentence about it."""

    name: str
    kind: Kind
    default: Value
    summary: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True)
class Sizes:
    """Frame sizes in pixels that a system takes; others are padded inside the operator or refused."""

    minimum: int = 1
    maximum: int = 16384
    multiple_of: int = 1


@dataclass(frozen=True)
class Memory:
    """Predicted peak memory of the worker: fixed + megapixels of one frame x per megapixel, in MiB."""

    fixed_mib: float = 0.0
    per_megapixel_mib: float = 0.0

    def predict_mib(self, width: int, height: int, frames: int = 1) -> float:
        """Peak MiB for a job of `frames` frames of this size held at once."""
        return self.fixed_mib + self.per_megapixel_mib * width * height * frames / 1e6


@dataclass(frozen=True)
class Descriptor:
    """A system, frozen. `revision` rises whenever the same inputs give other pixels.

    `window` above 1 says that a frame's result is made from frames around it, in windows of the parameters `window` and
    `overlap`; its own value is the default of the first.
    `input_space` and `output_space` are interop ids; "" means that frames come, and leave, in the space they were in.
    """

    system: str
    summary: str
    operations: tuple[str, ...]
    revision: int
    parameters: tuple[Parameter, ...] = ()
    frames_minimum: int = 1
    frames_maximum: int | None = 1
    sizes: Sizes = Sizes()
    tile: int = 0
    tile_overlap: int = 0
    window: int = 1
    input_space: str = "lin_rec709_scene"
    output_space: str = "lin_rec709_scene"
    memory: Memory = Memory()

    @property
    def streams(self) -> bool:
        """Whether each frame alone makes one result, so that a result settles its frame."""
        return self.window == 1 and self.frames_minimum == 1

    @property
    def temporal(self) -> bool:
        """Whether each frame makes one result, but from a window of frames around it."""
        return self.window > 1

    def windows(self, parameters: Mapping[str, Value]) -> Windows:
        """The windows of a temporal system, by its resolved parameters. Raises BadParameter where they cannot be."""
        return Windows(int(parameters["window"]), int(parameters["overlap"]))

    def frames_held(self, frames: int, given: Mapping[str, object] = MappingProxyType({})) -> int:
        """How many frames of a job of `frames` are in memory at once: one, a window and one more, or the bracket."""
        if self.streams:
            return 1
        return max(1, min(frames, self.windows(self.resolve(given)).size + 1) if self.temporal else frames)

    def made_size(self, parameters: Mapping[str, Value]) -> tuple[int, int] | None:
        """(width, height) of the results by the resolved parameters `width` and `height`, None for a system that has
        none: its results are as large as its frames.

        Raises BadParameter for a size that `sizes` does not allow.
        """
        if "width" not in parameters or "height" not in parameters:
            return None
        width, height = int(parameters["width"]), int(parameters["height"])
        low, high, step = self.sizes.minimum, self.sizes.maximum, self.sizes.multiple_of
        if not low <= min(width, height) <= max(width, height) <= high or width % step or height % step:
            multiples = f" that are multiples of {step}" if step > 1 else ""
            raise BadParameter(f"{self.system} makes {low} to {high} pixels a side{multiples}, got {width} x {height}")
        return width, height

    def predict_mib(self, given: Mapping[str, object], frame: tuple[int, int] | None, frames: int) -> float:
        """Peak MiB of a job with these parameters and `frames` frames; `frame` is (width, height) of the first one.

        0 where nothing says how large the results are.
        """
        size = self.made_size(self.resolve(given)) or frame
        return 0.0 if size is None else self.memory.predict_mib(*size, self.frames_held(frames, given))

    def resolve(self, given: Mapping[str, object]) -> dict[str, Value]:
        """Fill defaults and check every given parameter.

        Raises BadParameter naming the parameter, what is wrong, and what is allowed.
        """
        known = {p.name: p for p in self.parameters}
        for name in given:
            if name not in known:
                raise BadParameter(
                    f"{self.system} has no parameter {name!r}; it has: {', '.join(sorted(known)) or 'none'}"
                )
        return {name: _checked(p, given[name]) if name in given else p.default for name, p in known.items()}


def _checked(parameter: Parameter, value: object) -> Value:
    kinds: dict[Kind, tuple[type, ...]] = {
        "int": (int,), "float": (int, float), "bool": (bool,), "text": (str,), "choice": (str,),
    }  # fmt: skip
    if not isinstance(value, kinds[parameter.kind]) or (isinstance(value, bool) and parameter.kind != "bool"):
        raise BadParameter(f"{parameter.name} must be {parameter.kind}, got {value!r}")
    if parameter.choices and value not in parameter.choices:
        raise BadParameter(f"{parameter.name} must be one of {', '.join(parameter.choices)}, got {value!r}")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = parameter.minimum, parameter.maximum
        if not abs(value) < float("inf") or (low is not None and value < low) or (high is not None and value > high):
            bounds = " and ".join("any" if bound is None else f"{bound:g}" for bound in (low, high))
            raise BadParameter(f"{parameter.name} must be between {bounds}, got {value!r}")
    assert isinstance(value, (int, float, bool, str))
    return value
