"""Makes examples/bracket: three photographs of a room with windows, hand-held, with a chrome ball that rolls
by.

It owns this one bracket's camera, motion and EXIF. It must not know networks or the sidecar. Run it with a
folder of equirectangular EXRs that has `lebombo.exr` (Poly Haven, CC0-1.0):

    python examples/make_bracket.py FOLDER
"""

from __future__ import annotations

import argparse
import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from hdrgen_server.image.files import write_beside
from hdrgen_server.training.brackets import Camera
from hdrgen_server.training.scenes import Scene, load_scene
from hdrgen_server.training.views import View, anchor_exposure, perspective

Array = npt.NDArray[np.float32]

SCENE = "lebombo"
WIDTH, HEIGHT = 640, 427
OVERSAMPLE = 2
FOV = 100.0
APERTURE, ISO = 8.0, 100
SEED = 20


@dataclass(frozen=True)
class Shot:
    """One exposure: its file's name, EV, shutter time in seconds, where the camera looks and where the ball
    is.
    """

    name: str
    ev: float
    seconds: tuple[int, int]
    yaw: float
    pitch: float
    roll: float
    ball: tuple[float, float, float]


# The ball's centre and radius are fractions of the width, from the picture's centre.
SHOTS = (
    Shot("1_under", -2, (1, 240), 57.4, 2.3, 0.3, (-0.16, 0.19, 0.075)),
    Shot("2_middle", 0, (1, 60), 57.0, 2.0, 0.0, (-0.10, 0.19, 0.075)),
    Shot("3_over", 2, (1, 15), 56.5, 2.4, -0.3, (-0.03, 0.19, 0.075)),
)


def photograph(scene: Scene, shot: Shot, gain: float) -> Array:
    """Scene-linear (HEIGHT, WIDTH, 3): the room and the ball, each pixel the mean of OVERSAMPLE^2 samples."""
    height, width = HEIGHT * OVERSAMPLE, WIDTH * OVERSAMPLE
    view = View(shot.yaw, shot.pitch, shot.roll, FOV)
    picture = perspective(scene.scene_linear_hwc, view, height, width)
    picture = _with_ball(picture, scene, view, shot.ball) * np.float32(gain)
    return picture.reshape(HEIGHT, OVERSAMPLE, WIDTH, OVERSAMPLE, 3).mean(axis=(1, 3)).astype(np.float32)


def _with_ball(picture: Array, scene: Scene, view: View, ball: tuple[float, float, float]) -> Array:
    """Paint a chrome ball that mirrors the panorama; orthographic, so that its rim shows what lies behind it."""
    height, width = picture.shape[:2]
    x0, y0, radius = (part * width for part in ball)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    nx, ny = (x + 0.5 - width / 2 - x0) / radius, (y + 0.5 - height / 2 - y0) / radius
    inside = nx * nx + ny * ny < 1
    nz = -np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0))
    # The mirror direction of (0, 0, 1) at the normal, turned by the camera's yaw: angles in the panorama.
    rx, ry, rz = -2 * nz * nx, -2 * nz * ny, 1 - 2 * nz * nz
    longitude = np.arctan2(rx, rz) + np.radians(view.yaw)
    latitude = np.arcsin(np.clip(ry, -1, 1))
    rows, columns = scene.scene_linear_hwc.shape[:2]
    map_x = ((longitude / (2 * np.pi) + 0.5) % 1.0) * columns - 0.5
    map_y = (latitude / np.pi + 0.5) * rows - 0.5
    mirrored = cv2.remap(
        scene.scene_linear_hwc, map_x.astype(np.float32), map_y.astype(np.float32), cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip
    return np.where(inside[..., None], np.float32(0.75) * mirrored, picture).astype(np.float32)


def jpeg(codes_hwc: Array, shot: Shot) -> bytes:
    """The 8-bit JPEG with its exposure in EXIF: time, aperture, ISO."""
    exif = Image.Exif()
    exif[0x010F] = "nuke-hdrgen"
    exif[0x0110] = "simulated camera"
    details = exif.get_ifd(0x8769)
    details[0x829A] = IFDRational(*shot.seconds)
    details[0x829D] = IFDRational(int(APERTURE * 10), 10)
    details[0x8827] = ISO
    stream = io.BytesIO()
    picture = Image.fromarray(np.round(codes_hwc * 255).astype(np.uint8))
    picture.save(stream, "JPEG", quality=92, subsampling=0, exif=exif)
    return stream.getvalue()


def main() -> None:
    """Write the three photographs beside this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help=f"folder that has {SCENE}.exr")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "bracket")
    arguments = parser.parse_args()
    scene = load_scene(arguments.folder / f"{SCENE}.exr")
    middle = next(shot for shot in SHOTS if shot.ev == 0)
    plain = photograph(scene, middle, 1.0)
    gain = float(anchor_exposure(plain).sum() / plain.sum())
    rng = np.random.default_rng(SEED)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for shot in SHOTS:
        codes = Camera(noise=0.5).shoot(photograph(scene, shot, gain), shot.ev, rng)
        write_beside(arguments.output / f"{shot.name}.jpg", jpeg(codes, shot))


if __name__ == "__main__":
    main()
