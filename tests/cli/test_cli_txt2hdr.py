"""`hdrgen txt2hdr` through a real sidecar: the chart, and Qwen-Image of size s with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
import torch
from cli_user import Run, photograph
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from PIL import Image
from safetensors.torch import save_file

from hdrgen_server.image.exr import read_exr_frame
from hdrgen_server.systems.qwenlinear.config import CONFIGS
from hdrgen_server.systems.qwenlinear.normalise import LightNorm
from hdrgen_server.systems.qwenlog.stills import last_taps


@pytest.fixture
def pack(alone: Path) -> Path:
    config, folder = CONFIGS["s"].qwen, alone / "weights"
    torch.manual_seed(1)
    QwenImageTransformer2DModel(**config.transformer.arguments()).half().save_pretrained(folder / "transformer")
    vae = AutoencoderKLQwenImage(**config.vae.arguments())
    vae.save_config(folder / "vae")
    save_file({k: v.half() for k, v in last_taps(vae.state_dict(), vae).items()}, folder / "vae" / "vae.safetensors")
    save_file(LightNorm(CONFIGS["s"].knee).state_dict(), folder / "normalisation.safetensors")
    text = 'format = 1\nname = "random"\nsystem = "qwenlinear"\nlicence = "Apache-2.0"\npreview = true\n'
    text += '[options]\nconfig = "s"\n[defaults]\nwidth = 128\nheight = 128\nguidance = 2.0\n'
    (folder / "pack.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.usefixtures("sidecar_ends")
def test_variations_are_written_with_their_sheet_and_made_again(hdrgen: Run, alone: Path, pack: Path) -> None:
    assert hdrgen("packs", "add", pack)[0] == 0
    asked = ("--pack", "random", "--steps", 2, "--aovs", "--colourspace", "lin_rec709_scene", "--json")
    status, out, err = hdrgen(
        "txt2hdr", "a lamp", "-o", "out.####.exr", "--count", 2, "--seed", 5, "--preview", "sheet.png", *asked
    )
    assert status == 0, err
    report = json.loads(out)
    assert [result["seed"] for result in report["results"]] == [5, 6]
    first, second = (read_exr_frame(alone / f"out.{number:04d}.exr") for number in (1, 2))
    assert first.pixels.shape == (128, 128, 3)
    assert not np.array_equal(first.pixels, second.pixels)
    assert {f"hdrgen.tonemapped_{name}" for name in "rgb"} <= set(first.layers)
    with OpenEXR.File(str(alone / "out.0002.exr")) as file:
        header = dict(file.header())
    said = {name: header[f"hdrgen/{name}"] for name in ("parameter/prompt", "seed", "parameter/guidance", "quality")}
    assert said == {"parameter/prompt": "a lamp", "seed": "6", "parameter/guidance": "2.0", "quality": "draft"}
    assert header["hdrgen/pack_digest"]
    assert header["colorInteropID"] == "lin_rec709_scene"
    assert Image.open(alone / "sheet.png").size[0] > 4 * 128
    status, _, err = hdrgen("txt2hdr", "a lamp", "-o", "again.exr", "--seed", 6, *asked)
    assert status == 0, err
    assert np.array_equal(read_exr_frame(alone / "again.exr").pixels, second.pixels)
    status, _, err = hdrgen("txt2hdr", "a lamp", "-o", "pano.exr", "--projection", "panorama", *asked)
    assert status == 0, err
    assert read_exr_frame(alone / "pano.exr").pixels.shape == (128, 256, 3)
    start = photograph(alone / "start.png", 0.5, (170, 120))
    again = ("--image", start, "--set", "strength=0.4", *asked)
    status, _, err = hdrgen("txt2hdr", "a lamp", "-o", "from.exr", *again)
    assert status == 0, err
    assert read_exr_frame(alone / "from.exr").pixels.shape == (112, 160, 3)


@pytest.mark.usefixtures("sidecar_ends")
def test_a_prompt_that_the_pack_cannot_read_leaves_what_was_there(hdrgen: Run, alone: Path, pack: Path) -> None:
    assert hdrgen("packs", "add", pack)[0] == 0
    (alone / "out.exr").write_bytes(b"earlier")
    status, _, err = hdrgen("txt2hdr", "日没", "-o", "out.exr", "--pack", "random", "--steps", 1)
    assert status == 2
    assert "cannot read; write it in English" in err.splitlines()[-1]
    assert (alone / "out.exr").read_bytes() == b"earlier"


@pytest.mark.usefixtures("sidecar_ends")
def test_the_pictures_before_a_failure_stay(hdrgen: Run, alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hdrgen_server.cli import jobs
    from nuke_hdrgen.wire.errors import WorkerDied

    run = jobs.run

    def second_fails(link: jobs.Link, job: jobs.Job, update: object) -> jobs.Outcome:
        if job.seed == 1:
            raise WorkerDied("the worker ended twice")
        return run(link, job, lambda phase, done, total: None)

    monkeypatch.setattr(jobs, "run", second_fails)
    status, _, err = hdrgen(
        "txt2hdr", "a", "-o", "o.#.exr", "--pack", "chart", "--size", "64x64", "--count", 3, "--preview", "s.png"
    )
    assert status == 5
    assert "1 of 3 pictures are done and stay" in err
    assert read_exr_frame(alone / "o.0001.exr").pixels.max() > 500
    assert (alone / "s.png").is_file()
    assert not (alone / "o.0002.exr").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("  ", "-o", "o.exr"), "the prompt is empty"),
        (("a", "-o", "o.png"), "-o o.png is no .exr file"),
        (("a", "-o", "o.exr", "--count", 2), "put #### where the frame number goes"),
        (("a", "-o", "o.exr", "--size", "64"), "'64' is no WIDTHxHEIGHT"),
        (("a", "-o", "o.exr", "--size", "32x32"), "makes 64 to 8192 pixels"),
        (("a", "-o", "o.exr", "--size", "64x64", "--projection", "panorama"), "twice as wide as high"),
        (("a", "-o", "o.exr", "--projection", "fisheye"), "--projection must be perspective or panorama"),
        (("a", "-o", "o.exr", "--set", "width=64"), "width is set with --size"),
        (("a", "-o", "o.exr", "--set", "guidance=3"), "has no parameter 'guidance'"),
        (("a", "-o", "o.exr", "--preview", "o.jpg"), "is no .png file"),
        (("a", "-o", "o.exr", "--image", "none.exr"), "none.exr"),
        (("a", "-o", "o.exr", "--pack", "merge"), "does hdrfuse, not txt2hdr"),
    ],
)
def test_refusals_are_one_line_and_start_nothing(
    hdrgen: Run, alone: Path, given: tuple[object, ...], said: str
) -> None:
    pack = () if "--pack" in given else ("--pack", "chart")
    status, _, err = hdrgen("txt2hdr", *given, *pack)
    assert status == 2
    assert said in err
    assert err.strip().count("\n") == 0
    assert not list((alone.parent / "XDG_RUNTIME_DIR").rglob("endpoint.json"))
