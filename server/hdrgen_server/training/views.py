"""Perspective views of panoramas at the protocol's exposure.

It owns projection and the exposure anchor. It must not know cameras' curves, brackets or networks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class View:
    """Where a virtual camera looks: angles in degrees, `fov` horizontal."""

    yaw: float
    pitch: float
    roll: float
    fov: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> View:
        """Any yaw, a pitch within 40 degrees of level, a small roll, 45 to 100 degrees wide."""
        return cls(
            float(rng.uniform(-180, 180)), float(rng.uniform(-40, 40)),
            float(rng.uniform(-10, 10)), float(rng.uniform(45, 100)),
        )  # fmt: skip


def perspective(panorama_hwc: Array, view: View, height: int, width: int, *, margin: int = 0) -> Array:
    """Project a view of an equirectangular (H, W, 3) image to (height, width, 3), bilinear and seamless.

    `fov` spans the width without `margin` pixels on either side.
    """
    import cv2

    focal = 0.5 * (width - 2 * margin) / np.tan(np.radians(view.fov) / 2)
    x = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / focal
    y = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / focal
    rays = np.stack([*np.meshgrid(x, y), np.ones((height, width), np.float32)], axis=-1)
    rays = rays @ _rotation(view).T.astype(np.float32)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    rows, columns = panorama_hwc.shape[:2]
    map_x = (np.arctan2(rays[..., 0], rays[..., 2]) / (2 * np.pi) + 0.5) * columns - 0.5
    map_y = (np.arcsin(np.clip(rays[..., 1], -1, 1)) / np.pi + 0.5) * rows - 0.5
    padded = np.concatenate([panorama_hwc[:, -1:], panorama_hwc, panorama_hwc[:, :1]], axis=1)
    view_hwc = cv2.remap(
        padded,
        (map_x + 1).astype(np.float32),
        map_y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.ascontiguousarray(view_hwc, np.float32)


def _rotation(view: View) -> npt.NDArray[np.float64]:
    yaw, pitch, roll = np.radians([view.yaw, view.pitch, view.roll])
    about_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    about_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def anchor_exposure(scene_linear_hwc: Array) -> Array:
    """Scale so that the median luminance is 0.18, unless more than 15 % of the pixels would pass 1.0."""
    median = max(float(np.median(scene_linear_hwc @ LUMINANCE)), 1e-6)
    p85 = max(float(np.percentile(scene_linear_hwc.max(axis=2), 85)), 1e-6)
    return scene_linear_hwc * np.float32(min(0.18 / median, 1 / p85))
