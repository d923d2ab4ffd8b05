"""What the VAE of a Txt2HDR pack holds of held-out light: round trips by curve, both heads, and bands in a ramp.

It owns views, figures and the ramp. It must not know packs or files: a VAE is a `QwenImage`, and what its pictures mean
is a `Look`. Light is (H, W, 3) linear Rec.709 with mid-grey at 0.18.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.evaluate.metrics import luminance, pu21_psnr
from hdrgen_server.evaluate.words import FLOOR
from hdrgen_server.systems.qwenlinear.operator import DualLook
from hdrgen_server.systems.qwenlog.model import QwenImage
from hdrgen_server.systems.qwenlog.operator import LOG_CURVES, CodeLook, Look
from hdrgen_server.training.captioned import PEAK, photographed
from hdrgen_server.training.drawn import SUN_RADIUS
from hdrgen_server.training.scenes import Scene

Array = npt.NDArray[np.float32]
SEED, VIEWS = 83, 6
RAMP_STOPS = (0.0, -4.0)
CODES = 1023
"""Bands are looked for in ten-bit sRGB codes."""


@dataclass(frozen=True)
class Heads:
    """PSNR of each head (dB: codes with peak 1, light in PU21), `shift` (rows, columns) at which their log luminance
    correlates best, and the linear head's PSNR with the second half of the latents zero.
    """

    tone_mapped: float
    linear: float
    shift: tuple[int, int]
    halved: float


@dataclass(frozen=True)
class Bands:
    """Along a ramp at one exposure: the longest run of one code in codes of truth and result, and the share of step
    sizes between 0 and the largest that do not occur, of both.
    """

    stops: float
    run: tuple[int, int]
    gaps: tuple[float, float]


def views_of(scenes: Sequence[Scene], side: int) -> list[Array]:
    """Fixed views, (side, side, 3), of held-out panoramas, in the range that training has."""
    rng = np.random.default_rng(SEED)
    views = [photographed(rng, scene, side, panorama=False)[0] for scene in scenes for _ in range(VIEWS)]
    return [np.clip(view, 0, np.float32(PEAK)) for view in views]


@torch.inference_mode()
def through(model: QwenImage, picture_hwc: Array, *, halved: bool = False) -> Array:
    """A picture (H, W, C) through encoder and decoder, with the second half of its latents zero if asked."""
    planes = torch.from_numpy(np.ascontiguousarray(picture_hwc)).permute(2, 0, 1)[None].to(model.device)
    latents = model.encode(planes)
    if halved:
        latents[:, latents.shape[1] // 2 :] = model.zero()[:, latents.shape[1] // 2 :]
    return np.ascontiguousarray(model.decode(latents)[0].permute(1, 2, 0).cpu().numpy())


def round_trips(model: QwenImage, look: Look, views: Sequence[Array]) -> dict[str, float]:
    """Mean PU21-PSNR of views after the VAE: by each curve of log codes, or of the linear head alone."""
    looks: dict[str, Look] = {name: CodeLook(name, "rec709") for name in LOG_CURVES}
    if isinstance(look, DualLook):
        looks = {"linear": look}
    return {name: float(np.mean([_psnr(model, one, view) for view in views])) for name, one in looks.items()}


def _psnr(model: QwenImage, look: Look, view_hwc: Array, *, halved: bool = False) -> float:
    found = look.light_of(through(model, look.picture_of(view_hwc), halved=halved), aovs=False)
    return pu21_psnr(found.scene_linear_hwc, view_hwc)


def heads(model: QwenImage, look: DualLook, views: Sequence[Array]) -> Heads:
    """Both heads' figures over views; the shift is the one furthest from none."""
    squares: list[float] = []
    shifts: list[tuple[int, int]] = []
    for view in views:
        picture_hwc = look.picture_of(view)
        found_hwc = through(model, picture_hwc)
        squares.append(float(np.mean(((found_hwc[..., :3] - picture_hwc[..., :3]) / 2) ** 2)))
        light_hwc = look.light_of(found_hwc, aovs=False).scene_linear_hwc
        shifts.append(_shift(light_hwc, CURVES["srgb"].decode((found_hwc[..., :3] + 1) / 2)))
    linear, halved = (float(np.mean([_psnr(model, look, v, halved=half) for v in views])) for half in (False, True))
    furthest = max(shifts, key=lambda by: abs(by[0]) + abs(by[1]))
    return Heads(-10 * float(np.log10(max(float(np.mean(squares)), 1e-12))), linear, furthest, halved)


def _shift(a_hwc: npt.NDArray[Any], b_hwc: npt.NDArray[Any]) -> tuple[int, int]:
    """By how many rows and columns log luminance of a is moved against b: the peak of their cross-correlation."""
    a, b = (np.log2(np.maximum(luminance(x), FLOOR)) for x in (a_hwc, b_hwc))
    a, b = ((x - x.mean()) / max(float(x.std()), 1e-9) for x in (a, b))
    found = np.fft.irfft2(np.fft.rfft2(a) * np.conj(np.fft.rfft2(b)), a.shape)
    at = np.unravel_index(int(found.argmax()), found.shape)
    row, column = ((int(n) + size // 2) % size - size // 2 for n, size in zip(at, found.shape, strict=True))
    return row, column


def bands(model: QwenImage, look: Look, side: int) -> list[Bands]:
    """Bands along a ramp through a drawn sun, before and after the VAE, at each of RAMP_STOPS."""
    truth_hwc = sun_ramp(side)
    found_hwc = look.light_of(through(model, look.picture_of(truth_hwc)), aovs=False).scene_linear_hwc
    rows = [image_hwc[side // 2, :, 1] for image_hwc in (truth_hwc, found_hwc)]
    found: list[Bands] = []
    for stops in RAMP_STOPS:
        (run_a, gaps_a), (run_b, gaps_b) = (_bands(row * np.float32(2.0**stops)) for row in rows)
        found.append(Bands(stops, (run_a, run_b), (gaps_a, gaps_b)))
    return found


def sun_ramp(side: int) -> Array:
    """A sun of 500 in the middle of a glow that falls by five stops to the edges, (side, side, 3)."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, side, dtype=np.float32)] * 2, indexing="ij")
    away = np.hypot(x, y)
    glow = np.exp2(2 - 5 * away)
    edge = np.clip((SUN_RADIUS - away / 2) / (SUN_RADIUS / 3) + 0.5, 0, 1)
    return np.ascontiguousarray(((glow + 500 * edge)[..., None] * np.array([1.0, 0.9, 0.75])).astype(np.float32))


def _bands(row: Array) -> tuple[int, float]:
    """The longest run of one ten-bit code, and the share of step sizes that do not occur; clipped samples left out."""
    codes = np.rint(CURVES["srgb"].encode(np.clip(row, 0, 1).astype(np.float64)) * CODES).astype(int)
    shown = codes[(row < 1) & (codes > 0)]
    if len(shown) < 2:
        return len(shown), 0.0
    ends = np.flatnonzero(np.diff(shown)) + 1
    runs = np.diff(np.concatenate([[0], ends, [len(shown)]]))
    steps = np.abs(np.diff(shown))
    sizes = np.unique(steps)
    usual = sizes[sizes <= np.quantile(steps, 0.9)]
    return int(runs.max()), float(1 - len(usual) / (int(usual.max()) + 1))
