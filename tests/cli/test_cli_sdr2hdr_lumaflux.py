"""`hdrgen sdr2hdr` with LumaFlux through a real sidecar: networks of size s with random weights, behind the gate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
from cli_user import Run
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from PIL import Image
from safetensors.torch import save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.image.exr import read_exr_frame, write_exr
from hdrgen_server.systems.lumaflux.adapters import Adapters
from hdrgen_server.systems.lumaflux.config import CONFIGS

LINEAR = ("--colourspace", "lin_rec709_scene")
pytestmark = pytest.mark.usefixtures("sidecar_ends")


def dtypes(path: Path) -> set[str]:
    """The types of a file's colour channels."""
    with OpenEXR.File(str(path), separate_channels=True) as file:
        return {str(file.channels()[name].pixels.dtype) for name in "RGB"}


@pytest.fixture
def pack(alone: Path) -> Path:
    config, folder = CONFIGS["s"], alone / "weights"
    torch.manual_seed(1)
    FluxTransformer2DModel(**config.flux.arguments()).half().save_pretrained(folder / "transformer")
    AutoencoderKL(**config.vae_arguments()).half().save_pretrained(folder / "vae")
    SiglipVisionModel(SiglipVisionConfig(**config.encoder.arguments())).half().save_pretrained(folder / "siglip")
    save_file(Adapters(config).half().state_dict(), folder / "adapters.safetensors")
    head = 'format = 1\nname = "random"\nsystem = "lumaflux"\nlicence = "Example-NC"\nmust_accept = true\n'
    (folder / "pack.toml").write_text(head + '[options]\nconfig = "s"\n', encoding="utf-8")
    return folder


def test_a_still_goes_through_the_worker_once_the_licence_is_accepted(hdrgen: Run, alone: Path, pack: Path) -> None:
    codes = np.random.default_rng(3).integers(20, 200, (40, 56, 3), dtype=np.uint8)
    codes[4:20, 10:40] = 255
    Image.fromarray(codes).save(alone / "plate.png")
    assert hdrgen("packs", "add", pack)[0] == 0
    asked = ("sdr2hdr", "plate.png", "-o", "out.exr", "--pack", "random", "--steps", 1, "--aovs", "--json")
    status, _, err = hdrgen(*asked)
    assert status == 4
    assert "`hdrgen packs accept random`" in err
    assert err.strip().count("\n") == 0
    assert not (alone / "out.exr").exists()
    assert hdrgen("packs", "accept", "random")[0] == 0
    status, out, err = hdrgen(*asked)
    assert status == 0, err
    assert json.loads(out)["pack"] == "random"
    result = read_exr_frame(alone / "out.exr")
    assert result.pixels.shape[:2] == (40, 56)
    assert np.isfinite(result.pixels).all()
    layers = {"hdrgen.generated", "hdrgen.clipped", "hdrgen.gain_r", "hdrgen.gain_g", "hdrgen.gain_b"}
    assert layers <= set(result.layers)
    generated = np.asarray(result.layers["hdrgen.generated"])
    assert (generated[6:18, 12:38] == 1).all()
    assert generated[24:].max() == 0

    # The plate kept: bit for bit in a float EXR, and to half's own rounding in a half one.
    assert hdrgen(*asked[:3], "kept.exr", *asked[4:-2], *LINEAR, "--preserve-plate")[0] == 0
    kept = read_exr_frame(alone / "kept.exr")
    assert dtypes(alone / "kept.exr") == {"float32"}
    seen = (codes / np.float32(255)).astype(np.float64)  # as a plate is read: codes are float32
    plate = CURVES["srgb"].decode(seen).astype(np.float32)
    unclipped = (codes < 250).all(axis=2)
    assert 0.5 < unclipped.mean() < 0.9
    assert kept.rgb[unclipped].tobytes() == plate[unclipped].tobytes()
    assert kept.rgb[~unclipped].tobytes() != plate[~unclipped].tobytes()
    write_exr(kept, alone / "half.exr", half=True)
    assert dtypes(alone / "half.exr") == {"float16"}
    rounded = read_exr_frame(alone / "half.exr").rgb[unclipped]
    np.testing.assert_allclose(rounded, plate[unclipped], rtol=2**-11, atol=2**-25)
