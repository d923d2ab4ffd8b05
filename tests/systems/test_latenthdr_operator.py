"""LatentHDR from files to frames, plates and prompts, with tiny random networks through the real loaders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from latenthdr_cases import MANIFEST, TINY_HEAD, new_head, write_pack
from qwen_cases import TINY as TINY_QWEN
from qwen_cases import LetterText, tiny_model, write_folder
from safetensors.torch import save_file
from steps import Steps

from hdrgen_server.colour.interop import colourspace
from hdrgen_server.colour.ocio import convert
from hdrgen_server.contracts.frame import Box, Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.packs.manifest import Pack, parse_pack, read_pack
from hdrgen_server.systems.latenthdr import loading
from hdrgen_server.systems.latenthdr import operator as o
from hdrgen_server.systems.latenthdr.generated import PromptOperator, beyond
from hdrgen_server.systems.latenthdr.merge import Merged, Merger
from hdrgen_server.systems.latenthdr.spaces import load_space
from hdrgen_server.systems.latenthdr.stack import StackMaker
from hdrgen_server.systems.qwenlog import lora
from hdrgen_server.systems.qwenlog import operator as qwenlog
from hdrgen_server.systems.qwenlog.frame import Tiling
from hdrgen_server.systems.qwenlog.operator import Light
from nuke_hdrgen.wire.errors import BadInput, BadParameter, Cancelled

SRGB, LINEAR = colourspace("srgb_rec709_scene"), colourspace("lin_rec709_scene")
RNG = np.random.default_rng(11)
STACK = {"ev_low": -2.0, "ev_high": 1.0}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "CONFIGS", MappingProxyType({"tiny": TINY_HEAD}))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_pack(tmp_path_factory.mktemp("pack"))


@pytest.fixture
def operator(pack: Pack) -> o.PlateOperator:
    made = o.create(pack, "cpu")
    assert isinstance(made, o.PlateOperator)
    return made


def plate(height: int = 40, width: int = 56, *, clipped: bool = True) -> Frame:
    rows, columns = np.mgrid[:height, :width]
    codes = 0.15 + 0.6 * columns / width + 0.1 * np.sin(rows / 5) + RNG.uniform(-0.05, 0.05, (height, width))
    codes = np.repeat(np.clip(codes, 0, 0.95)[..., None], 3, axis=2) * [1, 0.95, 0.9]
    if clipped:
        codes[5:20, 30:50] = 1
    return Frame(np.rint(codes * 255).astype(np.float32) / 255, ("R", "G", "B"), SRGB)


def run(operator, *frames: Frame, aovs: bool = False, watch: Steps | None = None, **given: object) -> list[Frame]:
    parameters = operator.descriptor.resolve({**STACK, **given})
    (operation,) = operator.descriptor.operations
    request = Request(operation, parameters, seed=3, frame_count=len(frames), aovs=aovs)
    return list(operator.run(request, iter(frames), watch or Steps()))


def test_a_plate_comes_back_scene_linear_with_its_own_detail(operator) -> None:
    frame = plate()
    (result,) = run(operator, frame, aovs=True)
    assert result.colourspace.interop_id == "lin_rec2020_scene"
    assert np.isfinite(result.pixels).all()
    light = convert(frame, result.colourspace).rgb
    known = result.layers["hdrgen.generated"] == 0
    gain = np.stack([result.layers[f"hdrgen.gain_{c}"] for c in "rgb"], axis=2)
    np.testing.assert_allclose(result.rgb[known], (light * np.exp2(gain))[known], rtol=1e-5)
    assert result.metadata["counts"]["clipped"] == 15 * 20 * 3


def test_the_stack_comes_as_layers_that_merge_to_the_same_light(operator) -> None:
    (result,) = run(operator, plate(), aovs=True)
    names = [f"hdrgen.ev_{ev}_{c}" for ev in ("m2", "m1", "p0", "p1") for c in "rgb"]
    assert [name for name in result.layers if name.startswith("hdrgen.ev_")] == names
    assert all(result.layers[name].dtype == np.float16 for name in names)
    merger = Merger(40, 56)
    for index, ev in enumerate((-2.0, -1.0, 0.0, 1.0)):
        planes = [result.layers[name].astype(np.float32) for name in names[3 * index : 3 * index + 3]]
        merger.add(ev, np.stack(planes, axis=2))
    assert np.isfinite(merger.result().scene_linear_hwc).all()
    (without,) = run(operator, plate(), aovs=False)
    assert not [name for name in without.layers if name.startswith("hdrgen.")]


def test_mid_grey_stays_and_bars_of_black_stay_black(operator) -> None:
    grey = Frame(np.full((32, 32, 3), 0.18, np.float32), ("R", "G", "B"), LINEAR)
    (result,) = run(operator, grey)
    assert np.log2(result.rgb @ [0.2627, 0.6780, 0.0593] / 0.18).mean() == pytest.approx(0, abs=0.02)
    frame = plate()
    frame.pixels[:8] = 0
    assert np.abs(run(operator, frame)[0].rgb[:8]).max() == 0


@pytest.mark.parametrize("size", [(1, 1), (7, 13), (33, 31)])
def test_any_size_comes_back_in_its_size(operator, size) -> None:
    codes = RNG.uniform(0, 1, (*size, 3)).astype(np.float32)
    (result,) = run(operator, Frame(codes, ("R", "G", "B"), SRGB))
    assert result.pixels.shape == (*size, 3)
    assert np.isfinite(result.pixels).all()


def test_alpha_layers_windows_and_metadata_pass_and_frames_stand_alone(operator) -> None:
    base = plate()
    pixels = np.concatenate([base.pixels, RNG.uniform(0, 1, (40, 56, 1))], axis=2).astype(np.float32)
    frame = Frame(
        pixels, ("R", "G", "B", "A"), SRGB, number=7, data_window=Box(3, 4, 58, 43), display_window=Box(0, 0, 99, 99),
        metadata={"camera": "x"}, layers={"depth.Z": np.ones((40, 56), np.float16)},
    )  # fmt: skip
    first, second = run(operator, frame, replace(frame, number=8))
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.pixels[..., 3], pixels[..., 3])
    assert (first.number, first.data_window, second.number) == (7, frame.data_window, 8)
    assert first.metadata["camera"] == "x"
    assert "depth.Z" in first.layers


def test_steps_count_tiles_and_cancel_ends_between_them(operator) -> None:
    watch = Steps()
    run(operator, plate(), watch=watch)
    assert watch.seen == [(done, 3) for done in range(4)], "in, out, and all exposures of so small a plate at once"
    with pytest.raises(Cancelled):
        run(operator, plate(), watch=Steps(cancel_at=1))


@torch.inference_mode()
def test_batches_and_tiles_do_not_change_a_stack(pack, monkeypatch) -> None:
    loaded = loading.load_latenthdr(pack)
    picture = RNG.uniform(-1, 1, (48, 64, 3)).astype(np.float32)

    def codes(tiling: Tiling) -> tuple[np.ndarray, int]:
        seen: list[int] = []
        maker = StackMaker(
            loaded.head, loaded.space, (48, 64), (-1.0, 0.0, 2.0), tiling, lambda done, total: seen.append(total),
            passes=1,
        )  # fmt: skip
        found = np.stack([exposed.codes_hwc for exposed in maker.stack(maker.encode(picture))])
        maker.finished()
        assert len(seen) == maker.total + 1
        return found, maker.total

    together, _ = codes(Tiling(0, 0))
    monkeypatch.setattr("hdrgen_server.systems.latenthdr.stack.BATCH_PIXELS", 1)
    alone, total = codes(Tiling(0, 0))
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert total == 4
    _, tiled = codes(Tiling(32, 8))
    assert tiled > total


def test_rungs_and_tiles_that_are_asked_for_make_more_steps(operator) -> None:
    frame, whole, tiled = plate(140, 150), Steps(), Steps()
    run(operator, frame, watch=whole)
    run(operator, frame, watch=tiled, tile=64)
    assert tiled.seen[-1][1] > whole.seen[-1][1]
    operator.set_rung(3)
    again = Steps()
    run(operator, frame, watch=again)
    assert again.seen[-1][1] > whole.seen[-1][1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ev_low": -9.0}, "ev_low -9 is outside what latenthdr-tiny was trained on; use -7 to 5"),
        ({"ev_high": 5.5}, "ev_high 5.5 is outside"),
        ({"ev_low": 2.0}, "ev_low 2 is above ev_high 1"),
    ],
)
def test_evs_that_the_head_never_saw_are_refused(operator, given, said) -> None:
    with pytest.raises(BadParameter, match=said):
        run(operator, plate(), **given)


def test_plates_that_are_hdr_already_are_refused_by_what_to_use(operator) -> None:
    light = Frame(np.exp2(RNG.uniform(-4, 5, (24, 24, 3))).astype(np.float32), ("R", "G", "B"), LINEAR)
    with pytest.raises(BadInput, match="HDR already needs no latenthdr: use it as it is"):
        run(operator, light)
    with pytest.raises(BadInput, match="no SDR encoding"):
        run(operator, Frame(plate().pixels, ("R", "G", "B"), colourspace("pq_rec2020_display")))


@pytest.mark.parametrize(("rows", "refused"), [(6, True), (1, False)])
def test_highlights_above_white_beside_some_at_it_are_hdr_all_the_same(operator, rows: int, refused: bool) -> None:
    light_hwc = np.full((24, 24, 3), 0.18, np.float32)
    light_hwc[:, :4] = 1
    light_hwc[-rows:, -8:] = 3
    frame = Frame(light_hwc, ("R", "G", "B"), LINEAR)
    if refused:
        with pytest.raises(BadInput, match="8% of frame 0 is above SDR's white; a frame that is HDR already"):
            run(operator, frame)
    else:
        assert all(np.isfinite(result.rgb).all() for result in run(operator, frame))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"channels": 16}, "its head takes 16 latent channels, the VAE of latenthdr-tiny has 4; train one for it"),
        ({"backbone": "0123456789abcdef"}, "was trained on the VAE 0123456789abcdef, that of latenthdr-tiny is"),
        ({"backbone": ""}, "was trained on the VAE of an unknown backbone"),
        ({"options": "ev_low = 3\nev_high = 1"}, "ev_low 3 and ev_high 1 must be two EVs in order"),
    ],
)
def test_heads_that_do_not_match_their_backbone_are_refused(tmp_path, made, said) -> None:
    with pytest.raises(BadInput, match=said):
        o.create(write_pack(tmp_path, **made), "cpu")


def test_damaged_packs_are_named(tmp_path) -> None:
    pack = write_pack(tmp_path)
    state = dict(new_head().state_dict())
    del state["features.layers.0.weight"]
    save_file(state, tmp_path / "head.safetensors")
    with pytest.raises(BadInput, match=r"has no tensor features\.layers\.0\.weight"):
        o.create(pack, "cpu")
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(BadInput, match="cannot be read as safetensors"):
        o.create(pack, "cpu")
    text = (tmp_path / "pack.toml").read_text().replace('"tiny"', '"huge"')
    with pytest.raises(BadInput, match="head 'huge', which is none of tiny"):
        o.create(parse_pack(text.encode(), tmp_path), "cpu")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """A qwenlog pack of tiny random networks."""
    folder = write_folder(tmp_path_factory.mktemp("qwen"))
    head = 'format = 1\nname = "qwenlog-tiny"\nsystem = "qwenlog"\nlicence = "x"\n'
    (folder / "pack.toml").write_text(f'{head}[options]\nconfig = "tiny"\ncurve = "logc4"\nprimaries = "rec709"\n')
    return read_pack(folder)


@pytest.fixture
def drawing(generator: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pack:
    """A pack of txt2hdr that holds a head alone."""
    monkeypatch.setattr(qwenlog, "CONFIGS", {"tiny": TINY_QWEN})
    monkeypatch.setattr("hdrgen_server.systems.qwenlog.loading.load_text", lambda config, folder, dtype: LetterText())
    save_file(dict(new_head().state_dict()), tmp_path / "head.safetensors")
    text = MANIFEST.format(
        name="latenthdr-qwen-tiny", operation="txt2hdr", more='base = "qwenlog-tiny"', options="",
        backbone=load_space(generator.path).fingerprint(),
    )  # fmt: skip
    return parse_pack(text.encode(), tmp_path).on(generator)


def drawn(pack: Pack, watch: Steps | None = None, frames: tuple[Frame, ...] = (), **given: object) -> Frame:
    asked = {"prompt": "a lamp", "width": 96, "height": 64, "steps": 2, "guidance": 1.0, **given}
    (result,) = run(o.create(pack, "cpu"), *frames, watch=watch, aovs=True, **asked)
    return result


def test_a_prompt_becomes_light_by_one_pass_of_the_generator(drawing, monkeypatch) -> None:
    operator = o.create(drawing, "cpu")
    assert isinstance(operator, PromptOperator)
    calls: list[int] = []
    operator.model.transformer.register_forward_hook(lambda *_: calls.append(1))
    watch = Steps()
    asked = {"prompt": "a lamp", "width": 96, "height": 64, "steps": 2, "guidance": 1.0}
    (result,) = run(operator, watch=watch, aovs=True, **asked)
    assert len(calls) == 2, "one call a step, whatever the stack"
    assert result.pixels.shape == (64, 96, 3)
    assert result.colourspace.interop_id == "lin_rec709_scene"
    assert len([name for name in result.layers if name.startswith("hdrgen.ev_")]) == 12
    assert watch.seen[-1][0] == watch.seen[-1][1]
    assert [done for done, _ in watch.seen] == sorted(done for done, _ in watch.seen)
    np.testing.assert_array_equal(drawn(drawing).pixels, result.pixels)
    assert not np.array_equal(drawn(drawing, prompt="two lamps").pixels, result.pixels)


def test_panoramas_and_start_pictures_reach_the_generator(drawing) -> None:
    plain = drawn(drawing, width=128)
    assert not np.array_equal(drawn(drawing, width=128, projection="panorama").pixels, plain.pixels)
    start = Frame(RNG.uniform(0, 4, (64, 128, 3)).astype(np.float32), ("R", "G", "B"), LINEAR, number=4)
    kept = drawn(drawing, frames=(start,), width=128, strength=0.0)
    assert kept.number == 4
    np.testing.assert_array_equal(
        drawn(drawing, frames=(start,), width=128, strength=0.0, prompt="x").pixels, kept.pixels
    )
    assert not np.array_equal(drawn(drawing, frames=(start,), width=128, strength=0.9).pixels, kept.pixels)


def test_a_sun_beyond_the_darkest_exposure_keeps_what_the_base_says() -> None:
    light = np.ones((1, 3, 3), np.float32)
    own = Light(np.array([[[400.0] * 3, [400.0] * 3, [0.5] * 3]], np.float32), {})
    clipped = np.array([[True, False, True]])
    found = beyond(Merged(light, clipped, clipped), own)
    np.testing.assert_array_equal(found[0, :, 0], [400, 1, 1])


def test_packs_that_cannot_draw_are_refused_by_name(drawing, generator, tmp_path) -> None:
    with pytest.raises(BadInput, match="draws with a pack of qwenlog as its base and has none; set base"):
        o.create(replace(drawing, base=None), "cpu")
    other = replace(generator, system="qwenlinear", name="other")
    with pytest.raises(BadInput, match="has other, a pack of qwenlinear"):
        o.create(replace(drawing, base=other), "cpu")
    with pytest.raises(BadInput, match="was trained on the VAE"):
        o.create(replace(drawing, options={**drawing.options, "backbone": "x"}), "cpu")
    with pytest.raises(BadParameter, match="ev_low -8 is outside what latenthdr-qwen-tiny"):
        drawn(drawing, ev_low=-8.0)


def test_an_adapter_of_joint_training_reaches_the_base(drawing, tmp_path) -> None:
    before = drawn(drawing).pixels
    model = tiny_model()
    lora.add(model.transformer, dict.fromkeys(lora.targets(model.transformer, ("to_q",)), 2), init="gaussian")
    state = {name: tensor + 0.3 for name, tensor in lora.saved(model.transformer).items()}
    save_file(state, tmp_path / "lora.safetensors")
    assert not np.array_equal(drawn(drawing).pixels, before)
