"""Txt2HDR by Qwen-Image on log codes, as the worker sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from qwen_cases import TINY, LetterText, manifest, tiny_model, write_folder
from steps import Steps

from hdrgen_server.colour.curves import CURVES
from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.primaries import rgb_to_rgb
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.image.exr import encode_exr, read_exr_frame
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.systems.qwenlog import operator as qwenlog
from hdrgen_server.systems.qwenlog.frame import ON_CPU
from nuke_hdrgen.wire.errors import BadInput, BadParameter, OperatorFailed

DESCRIPTOR = load_descriptor("qwenlog")


def new_operator(curve: str = "logc4", primaries: str = "rec709") -> qwenlog.QwenOperator:
    return qwenlog.QwenOperator(DESCRIPTOR, tiny_model(), qwenlog.CodeLook(curve, primaries), ON_CPU)


def run(operator: qwenlog.QwenOperator, frames: tuple[Frame, ...] = (), seed: int = 3, **given: object) -> Frame:
    asked = {"prompt": "a lamp", "width": 96, "height": 64, "steps": 2, **given}
    request = Request("txt2hdr", DESCRIPTOR.resolve(asked), seed=seed)
    (result,) = operator.run(request, frames, Steps())
    return result


def picture(width: int = 96, height: int = 64) -> Frame:
    light = np.random.default_rng(1).uniform(0, 4, (height, width, 3)).astype(np.float32)
    return Frame(light, ("R", "G", "B"), colourspace("lin_rec709_scene"), number=7)


def test_a_prompt_becomes_a_tagged_scene_linear_frame():
    operator = new_operator()
    result = run(operator)
    assert result.pixels.shape == (64, 96, 3)
    assert result.colourspace.interop_id == "lin_rec709_scene"
    assert np.array_equal(result.pixels, run(operator).pixels), "the same seed, the same pixels"
    for change in ({"prompt": "a lamp and fog"}, {"negative_prompt": "blue"}, {"guidance": 1.0}, {"steps": 3}):
        assert not np.array_equal(result.pixels, run(operator, **change).pixels), change
    assert not np.array_equal(result.pixels, run(operator, seed=4).pixels)


@pytest.mark.parametrize(("curve", "white"), [("logc4", 469.8), ("logc3", 55.08), ("pq", 100.0), ("acescct", 222.86)])
def test_code_one_reaches_the_result_whole_and_what_is_beyond_too(curve, white):
    operator = new_operator(curve)
    decoder = operator.model.vae.decoder
    with torch.no_grad():
        decoder.conv_out.weight.zero_()
        decoder.conv_out.bias.copy_(torch.tensor([1.0, 1.5, -1.2]))
    light = read_exr_frame(encode_exr(run(operator))).rgb
    assert light[..., 0] == pytest.approx(white, rel=1e-3)
    assert (light[..., 1] > white * 1.5).all()
    assert light[..., 2] == pytest.approx(float(CURVES[curve].decode(np.float32(-0.1))), rel=1e-3, abs=1e-5)


def test_light_goes_through_a_look_and_back():
    light = picture().pixels * 100
    for curve in qwenlog.LOG_CURVES:
        look = qwenlog.CodeLook(curve, "awg4")
        back = look.light_of(look.picture_of(light), aovs=True)
        np.testing.assert_allclose(back.scene_linear_hwc, light, rtol=2e-3, atol=2e-3)
        assert not back.layers
    codes = qwenlog.CodeLook("logc4", "awg4").picture_of(light)
    own = CURVES["logc4"].encode(light @ rgb_to_rgb("rec709", "awg4").astype(np.float32).T)
    np.testing.assert_allclose((codes + 1) / 2, own, atol=1e-6)


def test_a_start_picture_is_kept_as_far_as_strength_says():
    operator, start = new_operator(), picture()
    assert np.array_equal(run(operator, (start,), strength=0.0).pixels, start.pixels)
    assert run(operator, (start,), strength=0.5).number == 7
    codes = {s: run(operator, (start,), strength=s, steps=10, guidance=1.0).pixels for s in (0.1, 0.5, 1.0)}
    free = run(operator, steps=10, guidance=1.0).pixels
    far = {s: np.abs(found - free).mean() for s, found in codes.items()}
    assert far[0.1] > far[0.5] > far[1.0]
    assert run(operator, (picture(192, 128),), strength=0.5).pixels.shape == (64, 96, 3)


def test_a_panorama_is_asked_by_its_projection():
    operator = new_operator()
    asked = {"width": 128, "height": 64}
    assert not np.array_equal(run(operator, **asked).pixels, run(operator, **asked, projection="panorama").pixels)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"prompt": "  "}, "the prompt is empty"),
        ({"prompt": "x" * 30_000}, "30000 characters"),
        ({"width": 100}, "multiples of 16, got 100 x 64"),
        ({"width": 16, "height": 16}, "64 to 8192"),
        ({"projection": "panorama"}, "twice as wide as high, got 96 x 64"),
        ({"steps": 1000}, "steps must be between 0 and 200"),
        ({"guidance": 0.5}, "guidance must be between 1 and 20"),
        ({"guidance": float("nan")}, "guidance must be between"),
    ],
)
def test_what_cannot_be_asked_is_refused(given, said):
    with pytest.raises(BadParameter, match=said):
        run(new_operator(), **given)


def test_start_pictures_that_do_not_fit_are_refused():
    operator = new_operator()
    with pytest.raises(BadInput, match="is 64 x 64, the result 96 x 64"):
        run(operator, (picture(64, 64),))
    wider = run(operator, (picture(102, 64),), strength=0.0)
    np.testing.assert_array_equal(wider.pixels, picture(102, 64).pixels[:, 3:99])
    with pytest.raises(BadInput, match="one start picture, got 2"):
        run(operator, (picture(), picture()))
    broken = picture()
    broken.pixels[0, 0, 0] = np.nan
    with pytest.raises(BadInput, match="NaN or Inf"):
        run(operator, (broken,))


def test_a_model_that_makes_nan_fails_by_name():
    operator = new_operator()
    with torch.no_grad():
        operator.model.vae.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises(OperatorFailed, match="made NaN or Inf"):
        run(operator)


def test_far_larger_than_trained_is_said_and_rungs_cut_tiles():
    operator = new_operator()
    assert run(operator).metadata["warnings"] == ()
    (warning,) = run(operator, width=384, height=384, steps=1).metadata["warnings"]
    assert "384 x 384 is far above" in warning
    whole = run(operator, width=256, height=160, steps=1).pixels
    operator.set_rung(3)
    assert qwenlog.tiles_of(ON_CPU, operator.model, 0, 3).edge < ON_CPU.edge
    tiled = run(operator, width=256, height=160, steps=1).pixels
    assert not np.array_equal(whole, tiled)


def test_a_pack_is_created_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(qwenlog, "CONFIGS", {"tiny": TINY})
    monkeypatch.setattr("hdrgen_server.systems.qwenlog.loading.load_text", lambda config, folder, dtype: LetterText())
    write_folder(tmp_path)
    pack = manifest(tmp_path, config="tiny", options='curve = "logc3"\nprimaries = "awg3"\n')
    assert run(qwenlog.create(pack, "cpu")).pixels.shape == (64, 96, 3)
    for options, said in (
        ('curve = "log"\nprimaries = "rec709"\n', "curve 'log'; it must say one of logc4"),
        ('curve = "pq"\n', "primaries ''; it must say one of"),
    ):
        with pytest.raises(BadInput, match=said):
            qwenlog.create(manifest(tmp_path, config="tiny", options=options), "cpu")
    with pytest.raises(BadInput, match="config 'huge'"):
        qwenlog.create(manifest(tmp_path, config="huge"), "cpu")
