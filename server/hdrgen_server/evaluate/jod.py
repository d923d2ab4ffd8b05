"""ColorVideoVDP's JOD of an image or a shot against its truth, when the optional package `cvvdp` is installed.

It owns loading that package without torchvision and imageio: of them it uses a Gaussian blur alone, and that is here.
Mantiuk et al., "ColorVideoVDP: A visual difference predictor for image, video and display distortions" (SIGGRAPH 2024).
It must not know brackets, files or the other figures.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hdrgen_server.evaluate.pu21 import display_nits
from nuke_hdrgen.wire.errors import BadInput

DISPLAY = "standard_hdr_linear"


def available() -> bool:
    """Whether JOD can be computed here."""
    return importlib.util.find_spec("pycvvdp") is not None


def require() -> None:
    """Raises BadInput where JOD cannot be computed."""
    if not available():
        raise BadInput("JOD needs the package cvvdp; install it with `pip install --no-deps cvvdp`, or leave JOD out")


def jod(scene_linear_hwc: npt.NDArray[Any], truth_hwc: npt.NDArray[Any]) -> float:
    """Just-objectionable-difference score on `standard_hdr_linear`: 10 for identical images, less when they differ.

    Both images are scene-linear Rec.709 (H, W, 3), shown by the display mapping. Raises BadInput without `cvvdp`.
    """
    return _judge(_shown(scene_linear_hwc), _shown(truth_hwc), "HWC")


def shot_jod(frames: Sequence[npt.NDArray[Any]], truth: Sequence[npt.NDArray[Any]], rate: float) -> float:
    """The same of a whole shot as video, its frames shown at `rate` a second.

    What comes and goes counts here as an eye sees it, which no mean over images does: a brightness that alternates
    costs much that a steady gain does not, and fine noise that alternates costs less than noise that stays.
    """
    shown, true = (np.stack([_shown(frame) for frame in shot]) for shot in (frames, truth))
    return _judge(shown, true, "FHWC", frames_per_second=rate)


def _shown(scene_linear_hwc: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.asarray(display_nits(scene_linear_hwc), np.float32)


def _judge(shown: npt.NDArray[np.float32], true: npt.NDArray[np.float32], order: str, **how: float) -> float:
    with torch.inference_mode():
        found, _ = _metric().predict(shown, true, dim_order=order, **how)
    return float(found)


@functools.cache
def _metric() -> Any:
    require()
    with _stand_ins():
        import pycvvdp
    return pycvvdp.cvvdp(display_name=DISPLAY, device=torch.device("cpu"), quiet=True)


@contextmanager
def _stand_ins() -> Generator[None]:
    """While this holds, what `cvvdp` imports beside torch is here; what stood in those places comes back after.

    `torchvision` gives it the blur; `imageio` only reads and writes files, which is never asked of it here.
    """
    contents: dict[str, dict[str, Any]] = {
        "torchvision": {},
        "torchvision.transforms": {"GaussianBlur": _GaussianBlur},
        "torchvision.ops": {"MLP": nn.Sequential},
        "imageio": {},
        "imageio.v2": {},
    }
    before = {name: sys.modules.get(name) for name in contents}
    for name, content in contents.items():
        module = ModuleType(name)
        module.__dict__.update(content)
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _GaussianBlur(nn.Module):
    """A separable Gaussian over the last two axes of (..., H, W), with reflected edges."""

    def __init__(self, kernel_size: int, sigma: float) -> None:
        super().__init__()
        half = (kernel_size - 1) / 2
        at = torch.linspace(-half, half, kernel_size)
        weights = torch.exp(-0.5 * (at / sigma) ** 2)
        self.weights = weights / weights.sum()

    def forward(self, image: Tensor) -> Tensor:
        """Blur; the shape stays."""
        size = len(self.weights)
        planes = image.reshape(-1, 1, *image.shape[-2:])
        weights = self.weights.to(image)
        planes = nn.functional.pad(planes, (size // 2,) * 4, mode="reflect")
        planes = nn.functional.conv2d(planes, weights.view(1, 1, 1, size))
        return nn.functional.conv2d(planes, weights.view(1, 1, size, 1)).reshape(image.shape)
