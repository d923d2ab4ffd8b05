"""`hdrgen evaluate encodings` over EXRs through tiny VAEs of both kinds, and what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from hdrgen_server.cli.encodings import COLUMNS, CURVE_STOPS
from hdrgen_server.cli.main import run
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.evaluate.encodings import ENCODINGS
from hdrgen_server.image.exr import write_exr

sys.path.append(str(Path(__file__).parents[1] / "systems"))
from lumivid_cases import random_vae

WEIGHTS = "diffusion_pytorch_model.safetensors"


def image_vae(folder: Path, channels: int = 3) -> Path:
    torch.manual_seed(3)
    AutoencoderKL(
        channels, channels, block_out_channels=(8,), latent_channels=4, norm_num_groups=4, layers_per_block=1,
        mid_block_add_attention=False,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def exrs(folder: Path) -> Path:
    """One larger than what is looked at and wide, one much smaller."""
    rng = np.random.default_rng(2)
    for name, size in (("a", (270, 300)), ("b", (24, 40))):
        light_hwc = np.exp2(rng.uniform(-6, 4, (*size, 3))).astype(np.float32)
        write_exr(Frame(light_hwc, ("R", "G", "B"), colourspace("lin_rec709_scene")), folder / f"{name}.exr")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return exrs(tmp_path / "data")


@pytest.mark.parametrize("kind", ["image", "video"])
def test_every_encoding_is_studied(kind: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vae = image_vae(tmp_path / "vae") if kind == "image" else tmp_path / "vae"
    if kind == "video":
        random_vae().save_pretrained(vae)
    call = ["evaluate", "encodings", "--vae", str(vae), "--data", str(data)]
    assert run([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pictures"] == 2
    assert found["encodings"].keys() == ENCODINGS.keys() == found["curves"].keys() - {"stops"}
    assert found["curves"]["stops"] == list(CURVE_STOPS)
    for row in found["encodings"].values():
        assert all(np.isfinite(row[column]) for column in COLUMNS)
        assert len(row["stops"]) == len(found["luminance_edges"]) - 1
    assert found["encodings"]["logc3"]["kl_pixels"] != found["encodings"]["pq"]["kl_pixels"]
    if kind == "image":
        assert run([*call, "--count", "1"]) == 0
        head, *rows = capsys.readouterr().out.splitlines()
        assert head.split() == ["encoding", *COLUMNS]
        assert [row.split()[0] for row in rows] == list(ENCODINGS)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("config", "config.json cannot be read; --vae names a VAE's folder as diffusers saved it"),
        ("list", "config.json cannot be read; --vae names a VAE's folder as diffusers saved it"),
        ("class", "config.json is of a UNet2DModel; the study knows AutoencoderKL, AutoencoderKLLTX2Video"),
        ("settings", "cannot be loaded"),
        ("weights", "cannot be loaded"),
        ("cut", "cannot be loaded"),
        ("channels", "takes 4 channels"),
    ],
)
def test_a_folder_that_holds_no_such_vae(
    broken: str, words: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vae = image_vae(tmp_path / "vae", 4 if broken == "channels" else 3)
    config, weights = vae / "config.json", vae / WEIGHTS
    match broken:
        case "config":
            config.unlink()
        case "list":
            config.write_text("[]")
        case "class":
            config.write_text(config.read_text().replace("AutoencoderKL", "UNet2DModel"))
        case "settings":
            config.write_text(config.read_text().replace('"latent_channels": 4', '"latent_channels": 5'))
        case "weights":
            weights.unlink()
        case "cut":
            weights.write_bytes(weights.read_bytes()[:1000])
    assert run(["evaluate", "encodings", "--vae", str(vae), "--data", str(data)]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert str(vae) in captured.err
    assert captured.err.splitlines()[-1].startswith("hdrgen: ")
    assert "defect" not in captured.err
    assert captured.out == ""


def test_pictures_that_are_none(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["evaluate", "encodings", "--vae", str(image_vae(tmp_path / "vae"))]
    assert run(["evaluate", "encodings", "--data", str(data)]) == 2
    assert "encodings needs --vae" in capsys.readouterr().err
    (tmp_path / "none").mkdir()
    assert run([*call, "--data", str(tmp_path / "none")]) == 2
    assert "has no HDR files as shots has them (**/*.exr" in capsys.readouterr().err
    (data / "a.exr").write_bytes(b"no EXR at all")
    assert run([*call, "--data", str(data)]) == 2
    assert "a.exr" in capsys.readouterr().err
    light_hwc = np.full((32, 32, 3), 0.5, np.float32)
    light_hwc[3, 4, 1] = np.nan
    write_exr(Frame(light_hwc, ("R", "G", "B"), colourspace("lin_rec709_scene")), data / "a.exr", half=False)
    assert run([*call, "--data", str(data)]) == 2
    assert "a.exr holds NaN or Inf, which has no code; leave it out" in capsys.readouterr().err
