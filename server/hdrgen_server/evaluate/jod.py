"""ColorVideoVDP's JOD of an image against its truth, when the optional package `cvvdp` is installed.

It owns loading that package without torchvision: of it `cvvdp` uses a Gaussian blur alone, which stands here instead.
Mantiuk et al., "ColorVideoVDP: A visual difference predictor for image, video and display distortions" (SIGGRAPH 2024).
It must not know brackets, files or the other figures.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Iterator
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


def jod(scene_linear_hwc: npt.NDArray[Any], truth_hwc: npt.NDArray[Any]) -> float:
    """Just-objectionable-difference score on `standard_hdr_linear`: 10 for identical images, less when they differ.

    Both images scene-linear Rec.709 (H, W, 3), shown by the protocol's display mapping. Raises BadInput without `cvvdp`.
    """
    shown, true = (np.asarray(display_nits(image), np.float32) for image in (scene_linear_hwc, truth_hwc))
    with torch.inference_mode():
        found, _ = _metric().predict(shown, true, dim_order="HWC")
    return float(found)


@functools.cache
def _metric() -> Any:
    if not available():
        raise BadInput("JOD needs the package cvvdp; install it with `pip install --no-deps cvvdp`, or leave JOD out")
    with _stand_in_for_torchvision():
        import pycvvdp
    return pycvvdp.cvvdp(display_name=DISPLAY, device=torch.device("cpu"), quiet=True)


@contextmanager
def _stand_in_for_torchvision() -> Iterator[None]:
    """While this holds, `torchvision` is what `cvvdp` needs of it; what stood there before comes back after."""
    names = ("torchvision", "torchvision.transforms", "torchvision.ops")
    before = {name: sys.modules.get(name) for name in names}
    modules = {name: ModuleType(name) for name in names}
    modules["torchvision.transforms"].__dict__["GaussianBlur"] = _GaussianBlur
    modules["torchvision.ops"].__dict__["MLP"] = nn.Sequential
    modules["torchvision"].__dict__.update(transforms=modules["torchvision.transforms"], ops=modules["torchvision.ops"])
    sys.modules.update(modules)
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
