"""`hdrgen train latenthdr`: a step on the shipped autoencoder, a pack of it that opens a plate, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenEXR
import pytest

import hdrgen_server.packs
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.packs.manifest import read_pack

VAE = Path(hdrgen_server.packs.__file__).parent / "weights" / "vae-s"


@pytest.fixture
def panoramas(alone: Path) -> Path:
    folder = alone / "hdri"
    folder.mkdir()
    light = np.random.default_rng(1).uniform(0, 8, (64, 128, 3)).astype(np.float32) ** 2
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for name in ("studio", "lebombo"):
        OpenEXR.File(header, {"RGB": light}).write(str(folder / f"{name}.exr"))
    return folder


def test_one_step_then_a_pack_that_opens_a_plate(hdrgen, panoramas, alone):
    given = ("train", "latenthdr", "--base", VAE, "--data", panoramas, "--device", "cpu", "--run", alone / "run")
    status, out, err = hdrgen(*given, "--steps", 1, "--json")
    assert status == 0, err
    assert json.loads(out) == {"run": str(alone / "run"), "step": 1}
    figures = json.loads((alone / "run" / "log.jsonl").read_text().splitlines()[-1])["held_out"]
    assert figures["error"] == pytest.approx(figures["copied"], rel=0.05), "an untrained head is nearly the identity"
    status, out, err = hdrgen(*given, "--pack", alone / "latent-x")
    assert status == 0, err
    pack = read_pack(alone / "latent-x")
    assert sum(file.bytes for file in pack.files) < 6e6
    from hdrgen_server.cli.direct import load_operator, run_operator
    from hdrgen_server.colour.interop import colourspace

    frame = Frame(np.full((24, 40, 3), 0.4, np.float32), ("R", "G", "B"), colourspace("srgb_rec709_scene"))
    (result,) = run_operator(load_operator(pack, "cpu"), "sdr2hdr", [frame], {"ev_low": -1.0, "ev_high": 1.0})
    assert np.isfinite(result.rgb).all()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--base", "none"), "has no config.json; name the folder of a VAE"),
        (("--base", VAE, "--size", "xl"), "there is no recipe 'latenthdr-head-xl'"),
        (("--base", VAE, "--stage", "joint"), "stage joint needs --head: the folder of a run of stage head"),
        (("--base", VAE, "--stage", "joint", "--pack", "pack"), "name it with --base-pack"),
        (("--base", VAE, "--pack", "pack"), "best.safetensors is missing; train first"),
    ],
)
def test_refusals_are_one_line(hdrgen, panoramas, alone, given, said):
    arguments = ("--data", panoramas, "--device", "cpu", "--run", alone / "run")
    status, _, err = hdrgen("train", "latenthdr", *arguments, *given)
    assert status == 2
    assert said in err
    assert err.strip().count("\n") == 0


def test_a_pack_of_plates_asked_to_draw_says_which_can(hdrgen):
    status, _, err = hdrgen("txt2hdr", "a lamp", "-o", "x.exr", "--pack", "bt2446")
    assert status == 2
    assert "pack bt2446 does sdr2hdr, not txt2hdr; name one of chart" in err
