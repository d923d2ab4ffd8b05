"""The study of encodings: how well a VAE holds light under each transfer curve (LumiVid, Table 1 and Figure 4).

It owns the figures. It must not know files, nor whose VAE it is: a round trip is a function from codes to (codes after
the VAE, latents). Light is scene-linear Rec.709, diffuse white at 1.0, (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.evaluate.metrics import luminance, pu21_psnr, pu21_ssim

Array = npt.NDArray[Any]
Function = Callable[[Array], Array]
RoundTrip = Callable[[Array], tuple[Array, Array]]
"""From codes (H, W, 3) in [0, 1] to those after the VAE and its latents, any shape with channels last."""

BINS = 128
LUMINANCE_EDGES = np.arange(-8.0, 7.0)
# Narkowicz (2016): a rational fit of the ACES tone curve; a light of 1 here is 0.6 there, as its author exposes it.
ACES, ACES_EXPOSURE = (2.51, 0.03, 2.43, 0.59, 0.14), 0.6


@dataclass(frozen=True)
class Encoding:
    """A curve from light to codes nominally in [0, 1] and back."""

    encode: Function
    decode: Function


def _aces(light: Array) -> Array:
    a, b, c, d, e = ACES
    x = np.asarray(light, np.float64) * ACES_EXPOSURE
    return x * (a * x + b) / (x * (c * x + d) + e)


def _aces_inverse(codes: Array) -> Array:
    """The positive root of the same; its curve ends at a / c, here a little below where it would be infinite."""
    a, b, c, d, e = ACES
    y = np.clip(np.asarray(codes, np.float64), 0, a / c - 1e-3)
    p, q, r = a - c * y, b - d * y, -e * y
    return (-q + np.sqrt(q * q - 4 * p * r)) / (2 * p) / ACES_EXPOSURE


ENCODINGS: Mapping[str, Encoding] = MappingProxyType({
    **{name: Encoding(CURVES[name].encode, CURVES[name].decode) for name in ("logc3", "logc4", "pq", "hlg", "acescct")},
    "aces": Encoding(_aces, _aces_inverse),
})  # fmt: skip


@dataclass(frozen=True)
class Study:
    """One encoding's figures over all pictures: divergence from SDR of codes and of latents (nats), SSIM of codes,
    PU21-PSNR (dB) and PU21-SSIM of light after the round trip, the share of samples that the codes could not hold, and
    the mean absolute error in stops of each stop of luminance (NaN where no pixel is).
    """

    kl_pixels: float
    kl_latents: float
    ssim: float
    pu21_psnr: float
    pu21_ssim: float
    held: float
    stops: tuple[float, ...]


def study(encoding: Encoding, pictures: Sequence[Array], round_trip: RoundTrip) -> Study:
    """An encoding over pictures of light, held against the same pictures as SDR codes (cut at 1, BT.1886)."""
    values: list[tuple[Array, Array, Array, Array]] = []
    rows: list[tuple[float, float, float, float]] = []
    errors: list[Array] = []
    for light in pictures:
        codes = np.asarray(encoding.encode(np.maximum(light, 0)), np.float32)
        kept = np.clip(codes, 0, 1)
        back, latents = round_trip(kept)
        sdr = np.asarray(CURVES["rec1886"].encode(np.clip(light, 0, 1)), np.float32)
        values.append((kept, sdr, latents, round_trip(sdr)[1]))
        found = np.maximum(encoding.decode(np.clip(back, 0, 1)), 0)
        held = float((np.abs(codes - kept) > 1e-5).mean())
        rows.append((ssim(back, kept), pu21_psnr(found, light), pu21_ssim(found, light), held))
        errors.append(_stops_error(found, light))
    pixels, sdr_pixels, latents, sdr_latents = (np.concatenate([v[i].ravel() for v in values]) for i in range(4))
    means = np.mean(np.array(rows), axis=0)
    counted, summed = np.sum(errors, axis=0)
    stops = np.where(counted > 0, summed / np.maximum(counted, 1), np.nan)
    return Study(
        divergence(pixels, sdr_pixels, (0.0, 1.0)), divergence(latents, sdr_latents),
        float(means[0]), float(means[1]), float(means[2]), float(means[3]), tuple(float(value) for value in stops),
    )  # fmt: skip


def divergence(values: Array, prior: Array, ends: tuple[float, float] | None = None) -> float:
    """Kullback-Leibler divergence (nats) of the histogram of values from a prior's, one count added to each bin."""
    low, high = ends or (float(min(values.min(), prior.min())), float(max(values.max(), prior.max())))
    p, q = (np.histogram(x, BINS, (low, max(high, low + 1e-6)))[0] + 1.0 for x in (values, prior))
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum(p * np.log(p / q)))


def ssim(codes_hwc: Array, truth_hwc: Array) -> float:
    """Mean SSIM (Wang et al. 2004) of codes with range 1, over the mean of the channels."""
    from scipy.ndimage import gaussian_filter

    a, b = (np.asarray(x, np.float64).mean(axis=2) for x in (codes_hwc, truth_hwc))

    def blur(plane: Array) -> Array:
        return np.asarray(gaussian_filter(plane, 1.5, truncate=5 / 1.5), np.float64)

    mean_a, mean_b = blur(a), blur(b)
    both, var_a, var_b = blur(a * b) - mean_a * mean_b, blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    above = (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
    return float(np.mean(above / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))))


def transfer_curves(stops: Sequence[float]) -> Mapping[str, tuple[float, ...]]:
    """Each encoding's code of light so many stops from diffuse white (Figure 4 d)."""
    light = np.exp2(np.asarray(stops, np.float64))
    return {name: tuple(float(code) for code in encoding.encode(light)) for name, encoding in ENCODINGS.items()}


def _stops_error(found: Array, light: Array) -> Array:
    """Of each stop of true luminance: how many pixels, and the sum of their absolute errors in stops; (2, stops)."""
    true, made = (np.log2(np.maximum(luminance(x), 2.0**-12)) for x in (light, found))
    counts = np.histogram(true, LUMINANCE_EDGES)[0]
    sums = np.histogram(true, LUMINANCE_EDGES, weights=np.abs(made - true))[0]
    return np.stack([counts, sums])
