"""Small brackets with a known truth, a tiny regressor, and a pack that holds it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from hdrgen_server.packs.manifest import Pack, read_pack
from hdrgen_server.systems.gmodiff.config import RegressorConfig
from hdrgen_server.systems.gmodiff.prepare import srgb_codes
from hdrgen_server.systems.gmodiff.regressor import Regressor

Array = npt.NDArray[np.float32]

TINY = RegressorConfig(
    "set", (8, 12), (1, 1), (1, 1), (2,), channel_attention=False, mask_width=8, embedding=8, headroom_stops=3.0
)
TINY_PUBLISHED = RegressorConfig("published", (8, 12), (1, 1), (1, 1), (2,), mask_width=8, embedding=8)


def textured(height: int, width: int, seed: int = 0, peak: float = 6.0) -> Array:
    """Scene-linear (H, W, 3): texture of several scales from deep shadow to `peak`, with a median near 0.2."""
    rng = np.random.default_rng(seed)
    stops = np.zeros((height, width), np.float32)
    for scale in (4, 8, 16, 32):
        coarse = rng.standard_normal((height // scale + 2, width // scale + 2)).astype(np.float32)
        stops += np.kron(coarse, np.ones((scale, scale), np.float32))[:height, :width]
    stops += 0.3 * rng.standard_normal((height, width)).astype(np.float32)
    stops = np.clip(stops - 2.3, -7, np.log2(peak))
    tint = np.array([1.0, 0.92, 0.8], np.float32)
    return (np.exp2(stops)[..., None] * tint).astype(np.float32)


def exposed(scene_linear_hwc: Array, ev: float, *, levels: int = 0) -> Array:
    """sRGB codes of a scene at an exposure, clipped; quantised to `levels` steps when that is not 0."""
    codes = srgb_codes(np.clip(scene_linear_hwc * np.float32(2.0**ev), 0, 1))
    return (np.round(codes * levels) / levels).astype(np.float32) if levels else codes


def randomised(config: RegressorConfig, seed: int = 0, amount: float = 0.1) -> Regressor:
    """A regressor in which no parameter is zero, so that every path counts."""
    torch.manual_seed(seed)
    model = Regressor(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=amount)
    return model.eval()


def write_pack(folder: Path, model: Regressor, config_name: str) -> Pack:
    """A pack on disk with these weights."""
    folder.mkdir(parents=True)
    weights = folder / "regressor.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    manifest = f"""format = 1
name = "gmodiff-tiny"
system = "gmodiff"
licence = "Apache-2.0"

[[files]]
path = "regressor.safetensors"
bytes = {weights.stat().st_size}
sha256 = "{digest}"

[options]
config = "{config_name}"
"""
    (folder / "pack.toml").write_text(manifest, encoding="utf-8")
    return read_pack(folder)


def reference_first(evs: Sequence[float], reference: int) -> list[float]:
    """EVs against the reference, the reference first."""
    return [evs[i] - evs[reference] for i in (reference, *(i for i in range(len(evs)) if i != reference))]
