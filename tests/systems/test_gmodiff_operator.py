"""The operator on real packs: exposure, tiles, cancel, layers, linear brackets and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from gmodiff_cases import TINY, TINY_PUBLISHED, Array, exposed, randomised, textured, write_pack

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.image.tags import LIN_REC709_SCENE, SRGB_REC709_SCENE
from hdrgen_server.systems.gmodiff import operator as gmodiff_operator
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.operator import GMODiffOperator, create
from hdrgen_server.systems.gmodiff.regressor import Regressor
from nuke_hdrgen.wire.errors import BadInput, BadParameter, Cancelled, OperatorFailed
from tests.systems.steps import Steps

torch.set_num_threads(1)
EVS = (-2.0, 0.0, 2.0)


@pytest.fixture
def near_merge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GMODiffOperator:
    """Untrained weights that choose between the two merges only."""
    monkeypatch.setitem(CONFIGS, "tiny", TINY)
    torch.manual_seed(0)
    model = Regressor(TINY)
    with torch.no_grad():
        model.head.choose[-1].bias.fill_(-30.0)
    return create(write_pack(tmp_path / "pack", model, "tiny"), "cpu")


@pytest.fixture
def random_operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GMODiffOperator:
    """Random weights everywhere: every path counts."""
    monkeypatch.setitem(CONFIGS, "tiny", TINY)
    return create(write_pack(tmp_path / "pack", randomised(TINY), "tiny"), "cpu")


def photographs(scene: Array, evs: Sequence[float] = EVS, **changes: object) -> list[Frame]:
    return [
        Frame(exposed(scene, ev, levels=255), ("R", "G", "B"), SRGB_REC709_SCENE, ev=ev, **changes)  # type: ignore[arg-type]
        for ev in evs
    ]


def fuse(
    operator: GMODiffOperator,
    frames: Sequence[Frame],
    progress: Steps | None = None,
    *,
    aovs: bool = False,
    **given: int,
) -> Frame:
    request = Request("hdrfuse", operator.descriptor.resolve(given), frame_count=len(frames), aovs=aovs)
    (result,) = operator.run(request, frames, progress or Steps())
    return result


@pytest.mark.parametrize("reference", [0, 1, 2])
def test_a_still_bracket_keeps_the_reference_exposure(near_merge: GMODiffOperator, reference: int) -> None:
    scene = textured(101, 143)
    frames = photographs(scene)
    result = fuse(near_merge, frames, reference=reference)
    codes = frames[reference].rgb
    well = ((codes > 0.1) & (codes < 0.9)).all(axis=2)
    ratio = result.rgb[well] / (scene[well] * 2.0 ** EVS[reference])
    assert float(np.median(ratio)) == pytest.approx(1.0, abs=0.02)
    assert (result.colourspace.interop_id, result.colourspace.range) == ("lin_rec709_scene", "scene_linear")
    assert (result.height, result.width, result.ev) == (101, 143, 0.0)


def test_the_default_reference_is_the_middle_exposure(near_merge: GMODiffOperator) -> None:
    frames = photographs(textured(64, 64), (2.0, -2.0, 0.0))
    assert np.array_equal(fuse(near_merge, frames).pixels, fuse(near_merge, frames, reference=2).pixels)


def test_the_order_of_the_frames_does_not_matter(random_operator: GMODiffOperator) -> None:
    frames = photographs(textured(64, 64), (-3.0, -1.0, 0.0, 2.0))
    turned = [frames[i] for i in (3, 0, 2, 1)]
    assert np.array_equal(fuse(random_operator, frames).pixels, fuse(random_operator, turned).pixels)


def test_a_published_pack_takes_three_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "tiny", TINY_PUBLISHED)
    operator = create(write_pack(tmp_path / "pack", randomised(TINY_PUBLISHED), "tiny"), "cpu")
    scene = textured(40, 50)
    assert fuse(operator, photographs(scene)).rgb.max() <= 1 + 1 / 64 + 1e-5
    with pytest.raises(BadInput, match="exactly 3 frames, got 2"):
        fuse(operator, photographs(scene, (0.0, 2.0)))


def test_highlights_come_from_the_shortest_exposure(near_merge: GMODiffOperator) -> None:
    scene = textured(64, 96, peak=3.5)
    result = fuse(near_merge, photographs(scene))
    bright = scene.min(axis=2) > 1.5
    assert bright.sum() > 50
    assert float(np.median(result.rgb[bright] / scene[bright])) > 0.6


@pytest.mark.parametrize("size", [(230, 401), (390, 250)])
def test_tiles_agree_with_the_whole(random_operator: GMODiffOperator, size: tuple[int, int]) -> None:
    """Both axes are cut in tiles that overlap by 32 pixels, more than twice the tiny network's reach of about 11."""
    frames = photographs(textured(*size))
    steps = Steps()
    tiled = fuse(random_operator, frames, steps, tile=192).rgb
    whole = fuse(random_operator, frames, tile=1024).rgb
    assert steps.seen[-1] == (steps.seen[-1][1], steps.seen[-1][1])
    assert steps.seen[-1][1] >= 6
    error = np.abs(tiled - whole) / np.maximum(np.abs(whole), 1e-3)
    assert float(error.max()) <= 1e-3


def test_a_lower_rung_uses_smaller_tiles(random_operator: GMODiffOperator) -> None:
    frames = photographs(textured(64, 448))
    counts: list[int] = []
    for rung in (0, 2, 3):
        random_operator.set_rung(rung)
        steps = Steps()
        fuse(random_operator, frames, steps)
        counts.append(steps.seen[-1][1])
    assert counts[0] == 1 < counts[1] < counts[2]


def test_cancel_ends_between_tiles(random_operator: GMODiffOperator) -> None:
    steps = Steps(cancel_at=2)
    with pytest.raises(Cancelled):
        fuse(random_operator, photographs(textured(200, 420)), steps, tile=192)
    assert [done for done, _ in steps.seen] == [0, 1, 2]


def test_aovs_add_confidence_and_gain(random_operator: GMODiffOperator) -> None:
    frames = photographs(textured(200, 210), layers={"depth.Z": np.full((200, 210), 7, np.float16)})
    plain = fuse(random_operator, frames, tile=192)
    result = fuse(random_operator, frames, tile=192, aovs=True)
    assert set(plain.layers) == {"depth.Z"}
    gains = {f"hdrgen.gain_{c}" for c in "rgb"}
    assert set(result.layers) == {"depth.Z", "hdrgen.confidence", "hdrgen.clipped", *gains}
    assert np.array_equal(result.pixels, plain.pixels)
    for name in ("hdrgen.confidence", *gains):
        layer = result.layers[name]
        assert layer.shape == (200, 210)
        assert 0 <= float(layer.min()) <= float(layer.max()) <= 1 + 1e-5
        assert float(layer.max() - layer.min()) > 0.01


def test_alpha_and_data_of_the_reference_stay(near_merge: GMODiffOperator) -> None:
    frames = []
    for index, frame in enumerate(photographs(textured(40, 50))):
        alpha = np.full((40, 50, 1), 0.25 * (index + 1), np.float32)
        pixels = np.concatenate([frame.pixels, alpha], axis=2)
        frames.append(frame.with_pixels(pixels, channels=("R", "G", "B", "A"), number=index, metadata={"n": index}))
    result = fuse(near_merge, frames)
    assert result.channels == ("R", "G", "B", "A")
    assert (result.pixels[..., 3] == 0.5).all()
    assert (result.number, result.metadata) == (1, {"n": 1})


def test_a_linear_bracket_that_clips_keeps_its_own_scale(near_merge: GMODiffOperator) -> None:
    scene = textured(96, 120, peak=2.5)
    frames = [
        Frame(np.minimum(scene * np.float32(2.0**ev), np.float32(0.8)), ("R", "G", "B"), LIN_REC709_SCENE, ev=ev)
        for ev in EVS
    ]
    result = fuse(near_merge, frames)
    well = ((frames[1].rgb > 0.01) & (frames[1].rgb < 0.7)).all(axis=2)
    assert float(np.median(result.rgb[well] / scene[well])) == pytest.approx(1.0, abs=0.005)
    assert float(result.rgb.max()) > 1.2


def test_a_linear_bracket_that_clips_nowhere_keeps_its_own_scale(near_merge: GMODiffOperator) -> None:
    scene = textured(64, 80, peak=2.0)
    frames = [Frame(scene * np.float32(2.0**ev), ("R", "G", "B"), LIN_REC709_SCENE, ev=ev) for ev in EVS]
    result = fuse(near_merge, frames)
    assert float(np.median(result.rgb / scene)) == pytest.approx(1.0, abs=0.005)


def test_what_cannot_be_fused_is_refused(near_merge: GMODiffOperator) -> None:
    frames = photographs(textured(40, 50))
    with pytest.raises(BadInput, match="2 to 7"):
        fuse(near_merge, frames[:1])
    with pytest.raises(BadInput, match=r"50x40.*50x41"):
        fuse(near_merge, [frames[0], *photographs(textured(41, 50))[1:]])
    with pytest.raises(BadInput, match="equal EVs"):
        fuse(near_merge, photographs(textured(40, 50), (0.0, 0.0, 2.0)))
    with pytest.raises(BadInput, match="convert them to one space"):
        fuse(near_merge, [frames[0], Frame(frames[1].pixels, ("R", "G", "B"), LIN_REC709_SCENE, ev=0.0)])
    with pytest.raises(BadParameter, match="names no frame"):
        fuse(near_merge, frames, reference=3)


def test_values_that_are_not_finite_never_leave(near_merge: GMODiffOperator) -> None:
    with torch.no_grad():
        near_merge._model.head.correct.bias[0] = torch.nan
    with pytest.raises(OperatorFailed, match="not finite"):
        fuse(near_merge, photographs(textured(40, 50)))


def test_a_pack_without_its_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "tiny", TINY)
    pack = write_pack(tmp_path / "pack", Regressor(TINY), "tiny")
    (pack.path / "regressor.safetensors").unlink()
    with pytest.raises(BadInput, match="missing"):
        create(pack, "cpu")


def test_half_precision_weights_load_as_float(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "tiny", TINY)
    operator = create(write_pack(tmp_path / "pack", randomised(TINY).half(), "tiny"), "cpu")
    assert {p.dtype for p in operator._model.parameters()} == {torch.float32}
    assert np.isfinite(fuse(operator, photographs(textured(40, 50))).pixels).all()


MEASURE = """
import sys, threading, types
from pathlib import Path
import numpy as np, torch
sys.path[:0] = sys.argv[2:]
from gmodiff_cases import TINY, exposed, textured
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.image.tags import SRGB_REC709_SCENE
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.systems.gmodiff.operator import GMODiffOperator
from hdrgen_server.systems.gmodiff.regressor import Regressor

torch.set_num_threads(1)
folder = Path(sys.argv[1])
operator = GMODiffOperator(load_descriptor("gmodiff"), Regressor(TINY).eval(), "cpu")
silent = types.SimpleNamespace(step=lambda done, total, frame=0: None)

def anonymous():
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024

def peak(height, width):
    frames = []
    for ev in (-2.0, 0.0, 2.0):
        path = folder / f"{height}_{ev}.npy"
        np.save(path, np.tile(exposed(textured(144, 128), ev), (height // 144, width // 128, 1)))
        frames.append(Frame(np.load(path, mmap_mode="r"), ("R", "G", "B"), SRGB_REC709_SCENE, ev=ev))
    highest, done = [anonymous()], threading.Event()
    def sample():
        while not done.wait(0.1):
            highest.append(anonymous())
    thread = threading.Thread(target=sample)
    thread.start()
    for _ in operator.run(Request("hdrfuse", {"reference": -1, "tile": 0}), frames, silent):
        pass
    done.set()
    thread.join()
    return max(highest)

print(peak(576, 1024), peak(1152, 2048))
"""


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs /proc/self/smaps_rollup of Linux")
def test_memory_grows_only_by_the_result(tmp_path: Path) -> None:
    """Four times the pixels may cost the result (16 bytes a pixel) and 40 MiB, not four times the memory."""
    source = Path(gmodiff_operator.__file__).parents[3]
    paths = [str(Path(__file__).parent), str(source), str(source.parent)]
    run = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path), *paths], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    small, large = (int(word) for word in run.stdout.split())
    result_bytes = 16 * (2048 * 1152 - 1024 * 576)
    assert large - small < result_bytes + (40 << 20), f"{small >> 20} MiB then {large >> 20} MiB"


@pytest.mark.parametrize("fault", ["damaged", "empty", "short", "unlike", "config", "gone", "nan"])
def test_weights_that_do_not_fit_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setitem(CONFIGS, "tiny", TINY)
    model = randomised(TINY_PUBLISHED if fault == "unlike" else TINY)
    if fault == "nan":
        next(model.parameters()).data.view(-1)[0] = torch.nan
    pack = write_pack(tmp_path / "pack", model, "huge" if fault == "config" else "tiny")
    weights = tmp_path / "pack" / "regressor.safetensors"
    if fault == "damaged":
        weights.write_bytes(b"no safetensors at all")
    elif fault == "empty":
        weights.write_bytes(b"")
    elif fault == "short":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif fault == "gone":
        weights.unlink()
    with pytest.raises(BadInput, match=r"pack gmodiff-tiny.*hdrgen packs add") as caught:
        create(pack, "cpu")
    assert "\n" not in caught.value.message
