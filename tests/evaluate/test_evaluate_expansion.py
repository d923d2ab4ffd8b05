"""What the test of SDR expansion says beyond three curves: degradations, unclipped pixels, modules and steadiness."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from safetensors.torch import save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from hdrgen_server.cli.direct import load_operator
from hdrgen_server.cli.main import run
from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.evaluate import knockout, knockout_lumaflux, panned, protocol, report, sdr_baselines, sdr_protocol
from hdrgen_server.evaluate.metrics import score, unclipped_psnr
from hdrgen_server.image.exr import write_exr
from hdrgen_server.packs.manifest import read_pack
from hdrgen_server.systems.lumaflux.adapters import Adapters
from hdrgen_server.systems.lumaflux.config import CONFIGS
from hdrgen_server.systems.lumaflux.operator import LumaFluxOperator
from hdrgen_server.training.scenes import Scene
from nuke_hdrgen.wire.errors import BadInput, BadParameter


@pytest.fixture(scope="module")
def folder(scenes: list[Scene], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hdri")
    light_hwc = scenes[0].scene_linear_hwc
    write_exr(Frame(light_hwc, ("R", "G", "B"), colourspace("lin_rec709_scene")), path / "lebombo.exr")
    return path


def pack_of_s(folder: Path, options: str = "") -> Path:
    """Networks of size s with random weights, as a pack."""
    config = CONFIGS["s"]
    torch.manual_seed(1)
    FluxTransformer2DModel(**config.flux.arguments()).half().save_pretrained(folder / "transformer")
    AutoencoderKL(**config.vae_arguments()).half().save_pretrained(folder / "vae")
    SiglipVisionModel(SiglipVisionConfig(**config.encoder.arguments())).half().save_pretrained(folder / "siglip")
    adapters = Adapters(config)
    with torch.no_grad():
        for parameter in adapters.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    save_file(adapters.half().state_dict(), folder / "adapters.safetensors")
    head = f'format = 1\nname = "{folder.name}"\nsystem = "lumaflux"\nlicence = "Apache-2.0"\n'
    (folder / "pack.toml").write_text(f'{head}[options]\nconfig = "s"\n{options}', encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_of_s(tmp_path_factory.mktemp("flux"))


def evaluate(capsys: pytest.CaptureFixture[str], *given: object) -> dict:
    capsys.readouterr()
    assert run(["evaluate", *map(str, given), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_degradations_are_the_same_views_through_operators_and_x264(scenes: list[Scene]) -> None:
    assert len(sdr_protocol.DEGRADATIONS) == 24
    (plain,) = sdr_protocol.samples("a", scenes, 1)
    found = {k: next(sdr_protocol.samples(k, scenes, 1)) for k in ("hard_clip_gm/23", "hard_clip_gm/39", "bt2446a/23")}
    for sample in found.values():
        assert sample.scene_linear_hwc.tobytes() == plain.scene_linear_hwc.tobytes()
        assert sample.encoding == "g24_rec709_scene"
    # The clip at SDR white, 8 bits and a coarse quantiser: near the truth's own codes, the coarser the further away.
    wanted = CURVES["rec1886"].encode(np.clip(plain.scene_linear_hwc, 0, 1).astype(np.float64))
    fine, coarse = (np.abs(found[f"hard_clip_gm/{crf}"].codes_nhwc[0] - wanted).mean() for crf in (23, 39))
    assert fine < 0.05
    assert fine < coarse
    assert np.abs(found["bt2446a/23"].codes_nhwc[0] - wanted).mean() > fine
    with pytest.raises(BadParameter, match=r"no tone curve 'aces/23'; there are: a, b, c, .*, gamma_clip/39"):
        next(sdr_protocol.samples("aces/23", scenes, 1))


def test_unclipped_pixels_are_scored_alone() -> None:
    truth = np.full((16, 16, 3), 0.4, np.float32)
    codes = np.full((16, 16, 3), 0.5, np.float32)
    codes[:4, :, 1] = 250 / 255
    wrong_where_clipped = truth.copy()
    wrong_where_clipped[:4] = 3.0
    assert unclipped_psnr(wrong_where_clipped, truth, codes) == math.inf
    assert score(wrong_where_clipped, truth, codes).psnr < 30
    assert score(wrong_where_clipped, truth, codes).psnr_kept > 100  # the scale is found again to rounding
    assert math.isnan(unclipped_psnr(truth, truth, np.ones_like(codes)))
    off = truth * np.float32(1.1)
    assert unclipped_psnr(off, truth, codes) == pytest.approx(score_of_all(off, truth))


def score_of_all(image: np.ndarray, truth: np.ndarray) -> float:
    return unclipped_psnr(image, truth, np.zeros_like(truth))


def test_a_folder_and_a_kept_plate(pack: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--data", folder, "--count", 1, "--kinds", "a", "--set", "steps=1", "--preserve-plate")
    found = evaluate(capsys, pack, *given)["scores"]
    assert set(found) == {str(pack), f"{pack}, plate preserved"}
    made, kept = (found[name]["a"]["mean"] for name in (str(pack), f"{pack}, plate preserved"))
    assert kept["psnr_kept"] > 40  # 8-bit codes are all that is lost of them
    assert kept["psnr_kept"] > made["psnr_kept"]
    plain = evaluate(capsys, "inverse_srgb", *given[:6])["scores"]["inverse_srgb"]["a"]["mean"]
    assert kept["psnr_kept"] == pytest.approx(plain["psnr_kept"], abs=0.05)


def test_each_module_of_lumaflux_can_be_knocked_out(pack: Path, scenes: list[Scene]) -> None:
    operator = load_operator(read_pack(pack), "cpu")
    assert isinstance(operator, LumaFluxOperator)
    model = operator.model
    codes = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))

    def made() -> torch.Tensor:
        with torch.inference_mode():
            latent, conditions = model.encode(codes), model.condition(codes)
            final = latent - model.velocity(conditions, latent, torch.ones(1))
            return model.finish(model.decode(final), model.field(conditions, final))

    whole = made()
    for name in knockout_lumaflux.NAMES:
        with knockout_lumaflux.silenced(model, name):
            assert not torch.equal(made(), whole), name
        assert torch.equal(made(), whole), name
    with knockout_lumaflux.silenced(model, "backbone (transformer)"), torch.inference_mode():
        assert model.velocity(model.condition(codes), model.encode(codes), torch.ones(1)).abs().max() == 0
    names = knockout.knocked_out(operator, sdr_baselines.METHODS["inverse_srgb"])
    assert list(names) == [f"without {name}" for name in knockout_lumaflux.NAMES]
    with pytest.raises(BadParameter, match=r"only packs of lumaflux and of gmodiff's set form"):
        knockout.knocked_out(object(), sdr_baselines.METHODS["inverse_srgb"])


def test_a_pack_trained_without_something_says_so(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = pack_of_s(tmp_path, 'without = ["pga", "rqs"]\nwithout_operators = ["reinhard"]\n')
    operator = load_operator(read_pack(path), "cpu")
    assert isinstance(operator, LumaFluxOperator)
    assert operator.model.adapters.without == {"pga", "rqs"}
    kinds = "bt2446a/23,reinhard/23,reinhard/39"
    (tmp_path / "report").mkdir()
    given = ("--data", folder, "--count", 1, "--degradations", "--kinds", kinds, "--report", tmp_path / "report")
    found = evaluate(capsys, "bt2446", path, *given, "--set", "clip_threshold=250")["scores"]
    assert list(found["bt2446"]) == kinds.split(",")
    assert list(found[str(path)]) == ["reinhard/23", "reinhard/39"]
    text = (tmp_path / "report" / "report.md").read_text()
    assert "| operator | bt2446 | left out | lower by |" in text
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert rows["bt2446a"].endswith("| – | – |")
    whole, part = (
        [found[name][k]["mean"]["psnr"] for k in ("reinhard/23", "reinhard/39")] for name in ("bt2446", str(path))
    )
    assert rows["reinhard"].endswith(f"| {np.mean(whole) - np.mean(part):.1f} |")
    (path / "pack.toml").write_text((path / "pack.toml").read_text().replace("pga", "lora"), encoding="utf-8")
    with pytest.raises(BadInput, match=r"leaves out 'lora', which is no module"):
        load_operator(read_pack(path), "cpu")


def test_no_degradations_no_table(scenes: list[Scene]) -> None:
    found = protocol.compare(sdr_baselines.METHODS, scenes, ("a",), 1, draw=sdr_protocol.samples)
    assert report.degradation_table(found) == ""


def test_pans_flicker_as_their_plates_do(scenes: list[Scene], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, codes = panned.shot("a", scenes, 0, 4)
    again = panned.shot("a", scenes, 0, 4)[1]
    assert name == "lebombo"
    assert [c.tobytes() for c in codes] == [c.tobytes() for c in again]
    assert codes[0].shape == (panned.HEIGHT, panned.WIDTH, 3)
    assert 0.0005 < np.abs(codes[0] - codes[1]).mean() < 0.05

    def same(codes):
        return (c**2.2 for c in codes)

    def pulsing(codes):
        return (c**2.2 * (1.2 if index % 2 else 1.0) for index, c in enumerate(codes))

    (steady,) = panned.steadiness(same, scenes, "c", 1, 4)
    (unsteady,) = panned.steadiness(pulsing, scenes, "c", 1, 4)
    assert 0.8 < steady.ratio < 1.2
    assert unsteady.source == steady.source
    assert unsteady.ratio > 2
    given = ("--data", folder, "--flicker", "--count", 1, "--kinds", "a")
    (found,) = evaluate(capsys, "bt2446", *given)["flicker"]
    assert (found["method"], found["kind"], found["scene"]) == ("bt2446", "a", "lebombo")
    assert found["ratio"] == pytest.approx(found["result"] / found["source"])
    assert run(["evaluate", "merge", "--flicker", "--data", str(folder)]) == 2
    assert "--degradations, --flicker and --temporal are for sdr2hdr, and merge does hdrfuse" in capsys.readouterr().err
    (plain,) = evaluate(capsys, "inverse_srgb", *given)["flicker"]  # hard_clip's own inverse
    assert plain["source"] == found["source"]
    assert plain["ratio"] == pytest.approx(1)
