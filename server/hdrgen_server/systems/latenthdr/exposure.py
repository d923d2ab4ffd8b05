"""What an exposure is: light at an EV as a VAE's picture, and back.

It owns the anchor and the code: EV 0 is the exposure in which mid-grey is 0.18 of the light, so an EV means the same in
every scene. It must not know latents, heads or merging. Both are formulas for numpy arrays and torch tensors alike.
"""

from __future__ import annotations

from typing import Any

from hdrgen_server.systems.latenthdr.config import GAMMA


def code_of(scene_linear: Any, ev: Any) -> Any:
    """Codes in [0, 1] of linear Rec.709 light, mid-grey at 0.18, at an EV: clip(light 2^EV, 0, 1)^(1 / 2.2)."""
    return (scene_linear * 2.0**ev).clip(0, 1) ** (1 / GAMMA)


def picture_of(scene_linear: Any, ev: Any) -> Any:
    """The same as a VAE's picture, 2 code - 1."""
    return 2 * code_of(scene_linear, ev) - 1


def light_of(codes: Any, ev: Any) -> Any:
    """Linear Rec.709 light of an exposure's codes: code^2.2 / 2^EV. Codes below 0 are none."""
    return codes.clip(0, None) ** GAMMA / 2.0**ev
