"""The figures of one image against its truth, both scene-linear Rec.709 with diffuse white at 1.0.

It owns PU21-PSNR, PU21-SSIM, delta E ITP, the error where the input was clipped, and the scalar that aligns scale.
It must not know how an image was made, nor torch: JOD is in `jod`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.primaries import luminance_weights, rgb_to_rgb
from hdrgen_server.evaluate.pu21 import PEAK_CODE, WHITE_NITS, display_nits, pu21_codes
from nuke_hdrgen.wire.errors import BadInput

Float64 = npt.NDArray[np.float64]
Image = npt.NDArray[Any]

DARKEST_CODE, BRIGHTEST_CODE, CLIPPED_CODE = 13, 249, 250
LUMINANCE_CAP = 100.0
LUMINANCE_FLOOR = 5e-5
RANGE_PERCENTILES = (0.1, 99.9)
# ITU-R BT.2100-2 table 7: linear Rec.2020 to LMS, PQ LMS to ICtCp; both over 4096.
_LMS = np.array([[1688, 2146, 262], [683, 2951, 462], [99, 309, 3688]]) / 4096
_ICTCP = np.array([[2048, 2048, 0], [6610, -13613, 7003], [17933, -17390, -543]]) / 4096
# ITU-R BT.2124-0: delta E ITP = 720 sqrt(dI^2 + dT^2 + dP^2) with T = Ct / 2.
_ITP = 720.0 * np.array([1.0, 0.5, 1.0])


@dataclass(frozen=True)
class Scores:
    """One image: dB, SSIM, delta E ITP (mean), stops (RMSE and mean error where clipped; NaN where nothing is), JOD,
    dB over the pixels that are not clipped, and the image's own dynamic range in stops.
    """

    psnr: float
    ssim: float
    delta_e: float
    clip_rmse: float
    clip_bias: float
    jod: float = float("nan")
    psnr_kept: float = float("nan")
    range_stops: float = float("nan")


def luminance(scene_linear_hwc: Image) -> Float64:
    """Rec.709 luminance, (H, W) float64."""
    return np.asarray(scene_linear_hwc, np.float64) @ luminance_weights("rec709")


def scale_to(scene_linear_hwc: Image, truth_hwc: Image, reference_codes_hwc: Image) -> float:
    """The scalar that brings an image to the truth's scale, by least squares in log luminance.

    Looks only where all codes (0..1) of the reference exposure are in 13..249; 1.0 where there is no such pixel.
    """
    codes = np.rint(np.asarray(reference_codes_hwc, np.float64) * 255)
    wanted = ((codes >= DARKEST_CODE) & (codes <= BRIGHTEST_CODE)).all(axis=2)
    ours, true = luminance(scene_linear_hwc), luminance(truth_hwc)
    wanted &= (ours > 0) & (true > 0)
    if not wanted.any():
        return 1.0
    return float(np.exp(np.mean(np.log(true[wanted]) - np.log(ours[wanted]))))


def pu21_psnr(scene_linear_hwc: Image, truth_hwc: Image) -> float:
    """PSNR over PU21 codes of RGB with peak 256, in dB; inf for identical images."""
    error = pu21_codes(display_nits(scene_linear_hwc)) - pu21_codes(display_nits(truth_hwc))
    mean = float(np.mean(error * error))
    return float("inf") if mean == 0 else float(10 * np.log10(PEAK_CODE**2 / mean))


def unclipped_psnr(scene_linear_hwc: Image, truth_hwc: Image, reference_codes_hwc: Image) -> float:
    """`pu21_psnr` over the pixels where no code of the reference is 250 or above; NaN without any."""
    kept = ~_clipped(reference_codes_hwc)
    return pu21_psnr(scene_linear_hwc[kept], truth_hwc[kept]) if kept.any() else float("nan")


def pu21_ssim(scene_linear_hwc: Image, truth_hwc: Image) -> float:
    """Mean SSIM (Wang et al. 2004: Gaussian of sigma 1.5, 11 wide) over PU21 codes of luminance, range 256."""
    a, b = (pu21_codes(display_nits(luminance(x))) for x in (scene_linear_hwc, truth_hwc))
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    both = _blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * PEAK_CODE) ** 2, (0.03 * PEAK_CODE) ** 2
    above = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    below = (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(np.mean(above / below))


def _blur(plane: Float64) -> Float64:
    return np.asarray(gaussian_filter(plane, 1.5, truncate=5 / 1.5), np.float64)


def delta_e_itp(scene_linear_hwc: Image, truth_hwc: Image) -> float:
    """Mean delta E ITP (ITU-R BT.2124) of the two on the protocol's display."""
    return float(np.mean(np.linalg.norm((_ictcp(scene_linear_hwc) - _ictcp(truth_hwc)) * _ITP, axis=2)))


def _ictcp(scene_linear_hwc: Image) -> Float64:
    rec2020_nits = display_nits(scene_linear_hwc) @ rgb_to_rgb("rec709", "rec2020").T
    return CURVES["pq"].encode(rec2020_nits @ _LMS.T / WHITE_NITS) @ _ICTCP.T


def clipped_error(scene_linear_hwc: Image, truth_hwc: Image, reference_codes_hwc: Image) -> tuple[float, float]:
    """RMSE and mean of log2 luminance, in stops, where any code of the reference is 250 or above; NaN without any.

    Luminance is taken between 5e-5 (what the display shows at least) and 100 times diffuse white.
    """
    clipped = _clipped(reference_codes_hwc)
    if not clipped.any():
        return float("nan"), float("nan")
    ours, true = (
        np.log2(np.clip(luminance(x)[clipped], LUMINANCE_FLOOR, LUMINANCE_CAP)) for x in (scene_linear_hwc, truth_hwc)
    )
    return float(np.sqrt(np.mean((ours - true) ** 2))), float(np.mean(ours - true))


def dynamic_range(scene_linear_hwc: Image) -> float:
    """Stops between the 0.1 and 99.9 percentiles of luminance, taken at 5e-5 at least."""
    low, high = np.percentile(np.maximum(luminance(scene_linear_hwc), LUMINANCE_FLOOR), RANGE_PERCENTILES)
    return float(np.log2(high / low))


def _clipped(codes_hwc: Image) -> npt.NDArray[np.bool_]:
    return np.asarray((np.rint(np.asarray(codes_hwc, np.float64) * 255) >= CLIPPED_CODE).any(axis=2), np.bool_)


def score(scene_linear_hwc: Image, truth_hwc: Image, reference_codes_hwc: Image, *, border: int = 0) -> Scores:
    """All figures but JOD of one image, after aligning its scale and leaving `border` pixels out.

    Raises BadInput when the image is not of the truth's size or holds NaN or Inf.
    """
    if scene_linear_hwc.shape != truth_hwc.shape or truth_hwc.shape != reference_codes_hwc.shape:
        shapes = (scene_linear_hwc.shape, truth_hwc.shape, reference_codes_hwc.shape)
        raise BadInput(f"image, truth and reference differ in size: {shapes}; give three of one size")
    if not np.isfinite(scene_linear_hwc).all():
        raise BadInput("the image holds NaN or Inf, which have no score; replace them first")
    image, truth, codes = (crop(x, border) for x in (scene_linear_hwc, truth_hwc, reference_codes_hwc))
    image = np.asarray(image, np.float64) * scale_to(image, truth, codes)
    rmse, bias = clipped_error(image, truth, codes)
    kept = unclipped_psnr(image, truth, codes)
    psnr, ssim = pu21_psnr(image, truth), pu21_ssim(image, truth)
    stops = dynamic_range(image)
    return Scores(psnr, ssim, delta_e_itp(image, truth), rmse, bias, psnr_kept=kept, range_stops=stops)


def crop(image_hwc: Image, border: int) -> Image:
    """The image without `border` pixels along each edge."""
    return image_hwc[border : image_hwc.shape[0] - border, border : image_hwc.shape[1] - border]
