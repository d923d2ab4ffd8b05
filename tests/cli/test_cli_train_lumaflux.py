"""`hdrgen train lumaflux`: a step of the small backbone from the shipped autoencoder, and refusals in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

import hdrgen_server.packs
from hdrgen_server.packs.manifest import read_pack

VAE = Path(hdrgen_server.packs.__file__).parent / "weights" / "vae-s"


@pytest.fixture
def panoramas(alone: Path) -> Path:
    folder = alone / "hdri"
    folder.mkdir()
    light = np.random.default_rng(1).uniform(0, 2, (64, 128, 3)).astype(np.float32)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for name in ("studio", "lebombo"):
        OpenEXR.File(header, {"RGB": light}).write(str(folder / f"{name}.exr"))
    return folder


def test_one_step_of_the_backbone_leaves_a_checkpoint(hdrgen, panoramas, alone):
    given = ("train", "lumaflux", "--base", VAE, "--stage", "backbone", "--data", panoramas, "--device", "cpu")
    status, out, err = hdrgen(*given, "--steps", 1, "--run", alone / "run", "--json")
    assert status == 0, err
    assert json.loads(out) == {"run": str(alone / "run"), "step": 1}
    assert (alone / "run" / "checkpoint.safetensors").is_file()
    status, out, err = hdrgen(*given[:6], "--run", alone / "run", "--pack", alone / "pack")
    assert status == 0, err
    pack = read_pack(alone / "pack")
    assert pack.system == "lumaflux"
    assert sum(file.bytes for file in pack.files) < 16e6
    status, _, err = hdrgen(*given[:6], "--run", alone / "none", "--pack", alone / "other")
    assert status == 2
    assert "best.safetensors is missing; train first" in err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--stage", "x"), "there is no recipe 'lumaflux-x-s'"),
        (("--without", "lora"), "there is no module 'lora'"),
        (("--without-operator", "aces"), "there is no operator 'aces'"),
        (("--stage", "adapters"), "config.json cannot be read; a pack of LumaFlux holds vae/"),
        (("--size", "published"), "config.json cannot be read; a pack of LumaFlux holds vae/"),
        (("--layout", "x", "--stage", "backbone"), "config.json cannot be read"),
    ],
)
def test_refusals_are_one_line(hdrgen, panoramas, alone, given, said):
    arguments = ("--base", alone / "none", "--data", panoramas, "--device", "cpu", "--run", alone / "run")
    status, _, err = hdrgen("train", "lumaflux", *arguments, *given)
    assert status == 2
    assert said in err
    assert err.strip().count("\n") == 0
