"""Recovers a camera's response curve from a bracket, so that encoded photographs can be merged in linear
light.

It owns sampling and the fit. Least squares over log exposure as in Debevec & Malik, "Recovering High
Dynamic Range Radiance Maps from Photographs" (SIGGRAPH 1997), Eq. 3, with these changes: the unknown is a
smooth departure from a first guess (sRGB under a contrast S-curve of the best strength) on a few spline
functions; the scene's exposures are eliminated; samples are means over calm surroundings; pixels that
disagree (motion) are weighted down. It must not know files or merging.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.interpolate import BSpline
from scipy.ndimage import maximum_filter, minimum_filter, uniform_filter
from scipy.optimize import isotonic_regression

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.contracts.frame import Frame
from nuke_hdrgen.wire.errors import BadInput

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

CODES = 256
ANCHOR = 128
# Codes outside this range count as crushed or clipped: they carry no exposure.
LOWEST, HIGHEST = 6.0, 248.0
# Spline functions of the departure, how stiff they are, and how strongly they are drawn to the first guess.
FUNCTIONS = 10
STIFFNESS = 3e-3
TOWARDS_GUESS = 1e-3
PIXELS_PER_CODE = 40
SURROUNDINGS = 5
MINIMUM_SAMPLES = 200
# Strengths of the contrast curve that are tried as a first guess.
CONTRASTS = tuple(step / 20 for step in range(-10, 21))
# Geman-McClure scales of the passes, in stops: a pixel this far from the fit counts a quarter.
ROBUST_STOPS = (0.6, 0.3, 0.15, 0.08, 0.08)


@dataclass(frozen=True, eq=False)
class Calibration:
    """A response curve and how well the bracket fits it.

    `curve` is (256, C) float32: 8-bit code -> linear, increasing, 0 at code 0, equal to sRGB's at code 128.
    `residual_stops` is the median disagreement of two exposures of one pixel; `samples` the pixels used.
    `assumed` is true when the bracket told too little and the curve is plain sRGB.
    """

    curve: Float32
    residual_stops: float
    samples: int
    assumed: bool


def srgb_curve(channels: int = 3) -> Float32:
    """The (256, channels) table of the sRGB curve."""
    codes = np.arange(CODES, dtype=np.float64) / (CODES - 1)
    linear = np.asarray(CURVES["srgb"].decode(codes), np.float32)
    return np.repeat(linear[:, None], channels, axis=1)


def calibrate(frames: Sequence[Frame], evs: Sequence[float]) -> Calibration:
    """Fit one response curve a channel to encoded frames of one scene at exposures `evs` (stops).

    Frames may move; they must have one size. Raises BadInput for fewer than two frames, other counts of
    EVs, differing sizes or frames that are not encoded.
    """
    if len(frames) < 2 or len(frames) != len(evs):
        raise BadInput(f"calibration needs two frames or more and an EV for each, got {len(frames)} and {len(evs)}")
    if len({frame.pixels.shape for frame in frames}) > 1:
        raise BadInput("calibration needs frames of one size and one set of channels")
    if any(frame.colourspace.range != "encoded" for frame in frames):
        raise BadInput("calibration needs encoded frames; linear ones have no curve to find")
    codes = _strided_codes(frames)
    count = codes.shape[3]
    fits = [_fit_channel(codes[..., index], np.asarray(evs, np.float64)) for index in range(count)]
    good = [fit for fit in fits if fit is not None]
    if len(good) < count:
        return Calibration(srgb_curve(count), 0.0, 0, assumed=True)
    curve = np.stack([fit[0] for fit in good], axis=1).astype(np.float32)
    residual = float(np.median([fit[1] for fit in good]))
    return Calibration(curve, residual, sum(fit[2] for fit in good), assumed=False)


def linearise(encoded_hwc: Float32, curve: Float32) -> Float32:
    """Apply a (256, C) curve to encoded (H, W, C) codes in 0..1, with linear interpolation between codes."""
    grid = np.linspace(0.0, 1.0, curve.shape[0])
    planes = [np.interp(encoded_hwc[..., c], grid, curve[:, c]) for c in range(encoded_hwc.shape[2])]
    return np.stack(planes, axis=2).astype(np.float32)


def _strided_codes(frames: Sequence[Frame]) -> Float32:
    """(frames, H, W, C) codes 0..255 of the colour channels, thinned to about half a million pixels a
    frame.
    """
    first = frames[0]
    colour = 3 if "R" in first.channels else 1
    stride = max(1, int(np.sqrt(first.width * first.height / 5e5)))
    stack = [np.clip(frame.pixels[::stride, ::stride, :colour], 0.0, 1.0) for frame in frames]
    return np.stack(stack) * np.float32(CODES - 1)


def _fit_channel(codes: Float32, evs: Float64) -> tuple[Float64, float, int] | None:
    """One channel, (J, H, W) codes: the (256,) curve, its residual in stops and the pixels used, or None."""
    samples = _sample(codes)
    weights = _weights(samples)
    kept = (weights > 0.0).sum(axis=1) >= 2
    samples, weights = samples[kept], weights[kept]
    if len(samples) < MINIMUM_SAMPLES or np.ptp(evs) < 0.25:
        return None
    guess = min((_guess(contrast) for contrast in CONTRASTS), key=lambda g: _cost(g, samples, weights, evs))
    curve_stops = guess
    for scale in ROBUST_STOPS:
        residual = _disagreement(curve_stops, samples, weights, evs)
        trust = 1.0 / (1.0 + (residual / scale) ** 2) ** 2
        curve_stops = guess + _departure(guess, samples, weights * trust[:, None], evs)
    residual = _disagreement(curve_stops, samples, weights, evs)
    consistent = residual < 3.0 * ROBUST_STOPS[-1]
    if np.count_nonzero(consistent) < MINIMUM_SAMPLES:
        return None
    anchored = curve_stops - curve_stops[ANCHOR] + _guess(0.0)[ANCHOR]
    return _increasing(anchored), float(np.median(residual[consistent])), int(np.count_nonzero(consistent))


def _sample(codes: Float32) -> Float64:
    """(N, J) mean codes around the calmest pixels: for every code of every frame, those that vary least
    nearby.
    """
    means = np.stack([uniform_filter(plane, SURROUNDINGS) for plane in codes])
    spread = np.zeros(codes.shape[1:], np.float32)
    for plane, mean in zip(codes, means, strict=True):
        reach = maximum_filter(plane, SURROUNDINGS + 2) - minimum_filter(plane, SURROUNDINGS + 2)
        spread = np.maximum(spread, np.where((mean < LOWEST) | (mean > HIGHEST), 0.0, reach / (mean + 8.0)))
    calm = np.argsort(spread.ravel(), kind="stable")
    flat = means.reshape(len(means), -1)
    chosen: list[npt.NDArray[np.intp]] = []
    for plane in flat:
        ordered = np.rint(plane[calm]).astype(np.int64)
        by_code = np.argsort(ordered, kind="stable")
        wanted = np.arange(int(LOWEST), int(HIGHEST) + 1)
        starts = np.searchsorted(ordered[by_code], wanted)
        stops = np.searchsorted(ordered[by_code], wanted, side="right")
        chosen.extend(calm[by_code[a : min(a + PIXELS_PER_CODE, b)]] for a, b in zip(starts, stops, strict=True))
    return flat[:, np.unique(np.concatenate(chosen))].T.astype(np.float64)


def _weights(samples: Float64) -> Float64:
    """How well a code tells exposure: a code is worth 1 / code stops, so the square of it; less towards the
    clip.
    """
    inside = (samples >= LOWEST) & (samples <= HIGHEST)
    top = np.clip((HIGHEST + 1.0 - samples) / 40.0, 0.0, 1.0)
    return inside * top * (samples / (CODES - 1)) ** 2


def _guess(contrast: float) -> Float64:
    """log2 linear for each code when the camera applies sRGB, then x + contrast * (x * x * (3 - 2 * x) -
    x).
    """
    encoded = np.linspace(0.0, 1.0, 4096)
    curved = encoded + contrast * (encoded * encoded * (3.0 - 2.0 * encoded) - encoded)
    codes = np.arange(CODES, dtype=np.float64)
    codes[0] = 0.25
    before = np.interp(codes / (CODES - 1), curved, encoded)
    return np.log2(np.asarray(CURVES["srgb"].decode(before), np.float64))


def _light(stops: Float64, samples: Float64, evs: Float64) -> Float64:
    """(N, J) stops of light that each frame says a pixel has, under a curve in stops."""
    return np.interp(samples, np.arange(CODES), stops) - evs


def _cost(stops: Float64, samples: Float64, weights: Float64, evs: Float64) -> float:
    return float(np.median(_disagreement(stops, samples, weights, evs)))


def _disagreement(stops: Float64, samples: Float64, weights: Float64, evs: Float64) -> Float64:
    """(N,) how far the exposures of each pixel are from telling the same light, in stops, root mean
    square.
    """
    light = _light(stops, samples, evs)
    total = weights.sum(axis=1)
    mean = (light * weights).sum(axis=1) / total
    squared: Float64 = ((light - mean[:, None]) ** 2 * weights).sum(axis=1) / total
    return np.sqrt(squared)


def _departure(guess: Float64, samples: Float64, weights: Float64, evs: Float64) -> Float64:
    """The smooth departure from the guess, (256,) stops, that makes the exposures of each pixel agree."""
    knots = np.linspace(LOWEST, HIGHEST, FUNCTIONS - 2)
    padded = np.concatenate([[LOWEST] * 3, knots, [HIGHEST] * 3])
    bounded = np.clip(samples, LOWEST, HIGHEST)
    basis = np.asarray(BSpline.design_matrix(bounded.ravel(), padded, 3).toarray(), np.float64)
    basis = basis.reshape(*samples.shape, FUNCTIONS)
    target = -_light(guess, samples, evs)
    total = np.maximum(weights.sum(axis=1), 1e-12)[:, None]
    basis = basis - np.einsum("nj,njk->nk", weights / total, basis)[:, None, :]
    target = target - (weights / total * target).sum(axis=1)[:, None]
    normal = np.einsum("nj,njk,njl->kl", weights, basis, basis, optimize=True)
    right = np.einsum("nj,njk,nj->k", weights, basis, target, optimize=True)
    scale = float(weights.sum())
    bend = np.diff(np.eye(FUNCTIONS), 2, axis=0)
    normal += scale * (STIFFNESS * bend.T @ bend + TOWARDS_GUESS * np.eye(FUNCTIONS))
    found = np.linalg.solve(normal, right)
    codes = np.clip(np.arange(CODES, dtype=np.float64), LOWEST, HIGHEST)
    return np.asarray(BSpline.design_matrix(codes, padded, 3).toarray(), np.float64) @ found


def _increasing(stops: Float64) -> Float64:
    """Linear values of a curve in stops, made increasing by isotonic regression and a slope too small to
    see.
    """
    ordered = np.asarray(isotonic_regression(stops).x, np.float64)
    linear = np.exp2(ordered + np.arange(CODES) * 1e-6)
    linear[0] = 0.0
    return linear
