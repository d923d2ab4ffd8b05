"""`hdrgen sdr2hdr` with LumaFlux through a real sidecar: networks of size s with random weights, behind the gate."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_user import Run
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from PIL import Image
from safetensors.torch import save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from hdrgen_server.image.exr import read_exr_frame
from hdrgen_server.systems.lumaflux.adapters import Adapters
from hdrgen_server.systems.lumaflux.config import CONFIGS

pytestmark = pytest.mark.usefixtures("sidecar_ends")


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
