"""`hdrgen evaluate encodings`: how well a VAE holds light under each transfer curve, on a folder of EXRs.

It owns finding the VAE and the pictures, and the table. It must not know the figures' formulas.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hdrgen_server.cli import console
from nuke_hdrgen.wire.errors import BadInput, BadParameter

if TYPE_CHECKING:
    from hdrgen_server.evaluate.encodings import RoundTrip
    from hdrgen_server.training.hdr_sources import HdrPicture

VAES = ("AutoencoderKL", "AutoencoderKLLTX2Video")
SIDE, CHANNELS = 256, 3
COLUMNS = ("kl_pixels", "kl_latents", "ssim", "pu21_psnr", "pu21_ssim", "held")
CURVE_STOPS = tuple(range(-10, 8))


def run(vae: Path | None, data: Path, count: int, *, as_json: bool) -> None:
    """Print every encoding's figures on the middles of the first `count` EXRs of a folder, at the exposure of each.

    Raises BadParameter without a VAE, BadInput for a folder that holds no such VAE, or no EXRs of light.
    """
    if vae is None:
        raise BadParameter("encodings needs --vae: the folder of a VAE as diffusers saved it")
    from hdrgen_server.evaluate.encodings import ENCODINGS, LUMINANCE_EDGES, study, transfer_curves
    from hdrgen_server.training.hdr_sources import hdr_files, read_pictures
    from hdrgen_server.training.views import anchor_exposure

    round_trip = _round_trip(vae)
    files = hdr_files(data, "shots")[:count]
    pictures = [anchor_exposure(_middle(next(read_pictures(file)))) for file in files]
    found: dict[str, dict[str, Any]] = {}
    with console.progress("encodings") as update:
        for index, (name, encoding) in enumerate(ENCODINGS.items()):
            update(name, index, len(ENCODINGS))
            found[name] = asdict(study(encoding, pictures, round_trip))
    if as_json:
        curves = {"stops": CURVE_STOPS, **transfer_curves(CURVE_STOPS)}
        edges = LUMINANCE_EDGES.tolist()
        console.emit_json({"pictures": len(pictures), "encodings": found, "luminance_edges": edges, "curves": curves})
        return
    rows: list[tuple[str, ...]] = [("encoding", *COLUMNS)]
    rows += [(name, *(f"{row[column]:.4f}" for column in COLUMNS)) for name, row in found.items()]
    console.table(rows)


def _middle(picture: HdrPicture) -> Any:
    light_hwc = picture.scene_linear_hwc
    if not np.isfinite(light_hwc).all():
        raise BadInput(f"{picture.name} holds NaN or Inf, which has no code; leave it out")
    height, width = light_hwc.shape[:2]
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    cut = light_hwc[top : top + SIDE, left : left + SIDE]
    missing = [(0, SIDE - cut.shape[0]), (0, SIDE - cut.shape[1]), (0, 0)]
    return np.ascontiguousarray(np.maximum(np.pad(cut, missing, mode="symmetric"), 0), np.float32)


def _round_trip(folder: Path) -> RoundTrip:
    """The VAE of a diffusers folder as a function of codes; a video VAE sees a clip of one frame."""
    path = folder / "config.json"
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path} cannot be read; --vae names a VAE's folder as diffusers saved it") from error
    if kind not in VAES:
        raise BadInput(f"{path} is of a {kind}; the study knows {', '.join(VAES)}")
    import diffusers
    import torch

    from hdrgen_server.networks.weight_files import from_folder

    network = from_folder(getattr(diffusers, kind), folder, torch_dtype=torch.float32)
    if network.config.in_channels != CHANNELS:
        raise BadInput(
            f"{folder} takes {network.config.in_channels} channels; the study needs a VAE of red, green, blue"
        )
    video = kind == "AutoencoderKLLTX2Video"
    network.eval()

    @torch.inference_mode()
    def run_once(codes_hwc: Any) -> tuple[Any, Any]:
        codes = torch.from_numpy(np.ascontiguousarray(codes_hwc, np.float32)).permute(2, 0, 1)[None] * 2 - 1
        latents = network.encode(codes[:, :, None] if video else codes).latent_dist.mode()
        back = (network.decode(latents).sample + 1) / 2
        return _first(back, video=video), _first(latents, video=video)

    return run_once


def _first(planes: Any, *, video: bool) -> Any:
    """(H, W, C) of a batch's only picture, or a clip's only frame."""
    return (planes[:, :, 0] if video else planes)[0].permute(1, 2, 0).numpy()
