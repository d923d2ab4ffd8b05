"""Figures of an exposure head: exact for exact exposures, and asked for by one option."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import numpy as np
import OpenEXR
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor

from hdrgen_server.cli.main import run
from hdrgen_server.evaluate import stacked
from hdrgen_server.evaluate.metrics import dynamic_range
from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.systems.gmodiff.refine.config import VAEConfig
from hdrgen_server.systems.latenthdr import loading
from hdrgen_server.systems.latenthdr.config import HeadConfig, Range
from hdrgen_server.systems.latenthdr.exposure import picture_of
from hdrgen_server.systems.latenthdr.head import ExposureHead
from hdrgen_server.systems.latenthdr.loading import Loaded
from hdrgen_server.systems.latenthdr.operator import PlateOperator
from hdrgen_server.systems.latenthdr.spaces import load_space
from hdrgen_server.systems.qwenlog.frame import ON_CPU
from hdrgen_server.training.exposures import Exposures, ExposureSource
from hdrgen_server.training.scenes import Scene
from nuke_hdrgen.wire.errors import BadParameter

TINY = HeadConfig((8, 12), middle=1, bands=4, condition=8)


class Pixels:
    """A latent space that is the pictures themselves."""

    channels, factor, device = 3, 1, torch.device("cpu")

    def encode(self, pictures: Tensor) -> Tensor:
        return pictures

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def to(self, device: torch.device) -> Pixels:
        del device
        return self

    def fingerprint(self) -> str:
        return "pixels"


class Told(ExposureHead):
    """A head that knows the light of what it is shown, and leaves a share of each exposure out."""

    def __init__(self, light: Tensor, lacking: float) -> None:
        super().__init__(TINY, 3)
        self.light, self.lacking = light, lacking

    def forward(self, latents: Tensor, evs: Tensor, *, around: bool = False) -> Tensor:
        del latents, around
        ev = float(evs[0])
        return picture_of(self.light * (1 - self.lacking * (round(ev) % 2)), ev)


def figures(light: Tensor, lacking: float) -> stacked.HeadFigures:
    view = Exposures(light, light.clamp(0, 1), torch.zeros(1, 1))
    operator = PlateOperator(
        load_descriptor("latenthdr", "sdr2hdr"), Loaded(Told(light, lacking), Pixels(), Range()), ON_CPU, "x"
    )
    return stacked.head_figures(operator, "x", [view])


def test_exact_exposures_agree_and_beat_a_plate_made_darker() -> None:
    light = torch.exp2(torch.linspace(-8, 5, 64 * 64)).reshape(1, 1, 64, 64).repeat(1, 3, 1, 1)
    exact = figures(light, 0.0)
    assert exact.clip_gain_db > 60
    assert exact.worst < 1e-4
    off = figures(light, 0.1)
    assert off.disagreement == pytest.approx(0.1 / 0.95, rel=0.01)
    assert off.worst >= off.disagreement


def test_other_packs_have_no_head() -> None:
    with pytest.raises(BadParameter, match="merge has no exposure head; --exposures is for packs of latenthdr"):
        stacked.head_figures(object(), "merge", [])


def test_the_range_of_a_result_is_in_stops() -> None:
    light = np.exp2(np.linspace(-4, 6, 10_001))[:, None, None].repeat(3, axis=2)
    assert dynamic_range(light) == pytest.approx(10 * 0.998, abs=0.01)


@pytest.fixture
def panoramas(tmp_path: Path, scenes: list[Scene]) -> Path:
    light = scenes[0].scene_linear_hwc
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB": light}).write(str(tmp_path / "lebombo.exr"))
    return tmp_path


def test_a_pack_is_scored_beside_others_and_by_its_exposures(panoramas, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(loading, "CONFIGS", MappingProxyType({"tiny": TINY}))
    monkeypatch.setattr("hdrgen_server.training.exposures.HELD_OUT_EACH", 1)
    monkeypatch.setattr("hdrgen_server.cli.exposed.CROP", 32)
    pack = tmp_path / "latent-tiny"
    torch.manual_seed(1)
    AutoencoderKL(**VAEConfig((8, 16), 1, 4, sample_size=32).arguments()).save_pretrained(pack / "vae")
    save_file(dict(ExposureHead(TINY, 4).state_dict()), pack / "head.safetensors")
    head = 'format = 1\nname = "latent-tiny"\nsystem = "latenthdr"\noperation = "sdr2hdr"\nlicence = "x"\n'
    options = f'[options]\nhead = "tiny"\nbackbone = "{load_space(pack).fingerprint()}"\n'
    (pack / "pack.toml").write_text(head + options)
    (pack / "pack.toml").write_bytes(finished_manifest(pack))
    assert run(["evaluate", str(pack), "--data", str(panoramas), "--exposures", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["exposures"][str(pack)]
    assert found["views"] == 1
    assert set(found) == {"clip_gain_db", "disagreement", "worst", "views"}
    given = ["--data", str(panoramas), "--kinds", "a", "--count", "1", "--set", "ev_low=-1", "--set", "ev_high=1"]
    assert run(["evaluate", str(pack), *given, "--json"]) == 0
    (image,) = json.loads(capsys.readouterr().out)["scores"][str(pack)]["a"]["images"]
    assert image["range_stops"] > 1
    assert run(["evaluate", "merge", "--data", str(panoramas), "--exposures"]) == 2
    assert "merge has no exposure head" in capsys.readouterr().err


def test_held_out_views_are_those_of_no_training(panoramas) -> None:
    first, second = (ExposureSource(panoramas, 32).held_out() for _ in range(2))
    assert len(first) == 4
    assert all(torch.equal(a.light, b.light) for a, b in zip(first, second, strict=True))
