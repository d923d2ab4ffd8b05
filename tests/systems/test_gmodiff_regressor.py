"""The merge, the gain-map relation and both forms of the regressor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from gmodiff_cases import TINY, TINY_PUBLISHED, exposed, randomised, reference_first, textured

from hdrgen_server.systems.gmodiff.candidates import (
    FLOOR,
    Bracket,
    consistent_merge,
    disagreement,
    log2_floor,
    unsupported,
    weighted_merge,
)
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.prepare import prepare, to_bracket
from hdrgen_server.systems.gmodiff.regressor import (
    ALPHA,
    MERGE_BIAS,
    UNSUPPORTED_LOGIT,
    Regressor,
    gain_of,
    gain_scale,
    inverse_mu_law,
    mu_law,
    reconstruct,
)

torch.set_num_threads(1)
EVS = (-2.0, 0.0, 2.0)
PUBLISHED_PARAMETERS = {"published": 25_187_844, "released": 48_329_220}


def bracket_of(evs: Sequence[float], reference: int, size: tuple[int, int] = (40, 48), peak: float = 6.0) -> Bracket:
    scene = textured(*size, seed=len(evs), peak=peak)
    return to_bracket([prepare([exposed(scene, ev) for ev in evs], evs, reference)])


def truth_of(evs: Sequence[float], reference: int, size: tuple[int, int] = (40, 48), peak: float = 6.0) -> torch.Tensor:
    scene = textured(*size, seed=len(evs), peak=peak) * 2.0 ** evs[reference]
    return torch.from_numpy(scene).permute(2, 0, 1)[None].float()


def flat(codes: Sequence[float], linear: Sequence[float], evs: Sequence[float]) -> Bracket:
    """A bracket of 4x4 grey frames."""
    shape = (1, len(evs), 3, 4, 4)
    return Bracket(
        torch.tensor(codes).view(1, -1, 1, 1, 1).expand(shape),
        torch.tensor(linear).view(1, -1, 1, 1, 1).expand(shape),
        torch.tensor([list(evs)]),
        torch.ones(1, len(evs), 1, 4, 4),
    )


@pytest.mark.parametrize("evs", [(0.0, 2.0), EVS, (-3.0, 0.0, 3.0), (-2.0, -1.0, 0.0, 1.0, 2.0)])
@pytest.mark.parametrize("reference", [0, 1])
def test_the_merge_of_a_noise_free_bracket_is_the_truth(evs: tuple[float, ...], reference: int) -> None:
    peak = 0.85 * 2.0 ** -min(evs)
    merged = weighted_merge(bracket_of(evs, reference, peak=peak))
    assert torch.allclose(merged, truth_of(evs, reference, peak=peak), rtol=1e-3, atol=1e-5)


def test_what_every_exposure_clips_comes_from_the_shortest() -> None:
    merged = weighted_merge(flat((1.0, 1.0, 1.0), (1.0, 4.0, 0.25), (0.0, -2.0, 2.0)))
    assert torch.allclose(merged, torch.full_like(merged, 4.0))


def test_what_the_shortest_could_not_see_comes_from_the_reference() -> None:
    bracket = flat((1.0, 1.0), (1.0, 4.0), (0.0, -2.0))
    unseen = torch.ones_like(bracket.valid)
    unseen[:, 1] = 0
    merged = weighted_merge(Bracket(bracket.codes, bracket.scene_linear, bracket.ev, unseen))
    assert torch.allclose(merged, torch.ones_like(merged))


def test_crushed_pixels_keep_a_weight() -> None:
    merged = weighted_merge(flat((0.0, 0.0, 0.004), (0.0, 0.0, 0.0004), (0.0, -2.0, 2.0)))
    assert torch.isfinite(merged).all()
    assert 0.0002 < float(merged.mean()) <= 0.0004


def test_log2_floor_has_a_finite_gradient_everywhere() -> None:
    x = torch.tensor([-1.0, 0.0, FLOOR, 1.0], requires_grad=True)
    log2_floor(x).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert log2_floor(torch.tensor([-1.0, 2.0])).tolist() == [-14.0, 1.0]


def test_mu_law_and_gain_round_trip() -> None:
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert torch.allclose(inverse_mu_law(mu_law(x)), x, atol=1e-12)
    assert mu_law(torch.tensor([1.0, -3.0])).tolist() == [1.0, 0.0]
    assert float(mu_law(torch.tensor(0.5))) == pytest.approx(math.log(51) / math.log(101))
    codes = torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    light = 5 * torch.rand(1, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scale = torch.full((1, 1, 1, 1), 32.0, dtype=torch.float64)
    assert torch.allclose(reconstruct(gain_of(light, codes, scale), codes, scale), light, atol=1e-10)


@pytest.mark.parametrize("evs", [(0.0, 2.0), EVS, (-4.0, 0.0)])
@pytest.mark.parametrize("config", ["s", "set"])
def test_the_gain_map_reaches_three_stops_over_the_shortest_exposure(evs: tuple[float, ...], config: str) -> None:
    scale = gain_scale(CONFIGS[config], torch.tensor([reference_first(evs, len(evs) // 2)]))
    clip_point = 2.0 ** -(min(evs) - evs[len(evs) // 2])
    highest = reconstruct(torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1, 1), scale)
    assert float(torch.log2(highest.min() / clip_point)) >= 3.0


def test_the_published_scale_is_one() -> None:
    scale = gain_scale(CONFIGS["published"], torch.tensor([[0.0, -2.0, 2.0]]))
    assert scale.tolist() == [[[[1.0]]]]
    assert float(reconstruct(torch.ones(1), torch.ones(1), torch.ones(1))) == pytest.approx(1 + ALPHA)


@pytest.mark.parametrize("count", range(2, 8))
def test_the_set_form_takes_two_to_seven_exposures(count: int) -> None:
    evs = tuple(1.3 * i - 2.0 for i in range(count))
    with torch.inference_mode():
        result = randomised(TINY)(bracket_of(evs, count - 1))
    assert result.gain.shape == (1, 3, 40, 48)
    assert result.mask_logits.shape == (1, 1, 40, 48)
    assert torch.isfinite(result.gain).all()


@pytest.mark.parametrize("evs", [(0.0, 2.0), (-2.0, -1.0, 0.0, 1.0)])
def test_the_published_form_refuses_other_counts(evs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="exactly three"):
        Regressor(TINY_PUBLISHED)(bracket_of(evs, 0))


@pytest.mark.parametrize("config", [TINY, TINY_PUBLISHED], ids=["set", "published"])
@pytest.mark.parametrize("size", [(37, 41), (16, 17)])
def test_odd_sizes_come_back_as_they_were(config, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        result = randomised(config)(bracket_of(EVS, 1, size))
    assert result.gain.shape == (1, 3, *size)
    assert result.mask_logits.shape == (1, 1, *size)
    assert float(result.gain.min()) >= 0
    assert float(result.gain.max()) <= 1


def test_an_untrained_set_form_is_a_choice_biased_to_the_merges() -> None:
    bracket = bracket_of(EVS, 1, (40, 48), peak=3.4)
    with torch.inference_mode():
        result = Regressor(TINY).eval()(bracket).scene_linear(bracket.codes[:, 0])
    logits = torch.tensor([MERGE_BIAS, MERGE_BIAS, 0.0, 0.0, 0.0])
    merges = [weighted_merge(bracket), consistent_merge(bracket, disagreement(bracket))]
    stops = log2_floor(torch.cat([*(m[:, None] for m in merges), bracket.scene_linear], dim=1))
    expected = torch.exp2((torch.softmax(logits, 0).view(1, -1, 1, 1, 1) * stops).sum(dim=1))
    assert torch.allclose(result, expected, rtol=1e-3, atol=1e-5)
    well = ((bracket.codes > 0.05) & (bracket.codes < 0.95)).all(dim=1)
    assert torch.allclose(result[well], truth_of(EVS, 1, peak=3.4)[well], rtol=1e-2)


def test_the_order_of_the_other_exposures_does_not_matter() -> None:
    bracket = bracket_of((-3.0, -1.0, 0.0, 2.0), 2)
    order = [0, 3, 1, 2]
    turned = Bracket(*(x[:, order] for x in (bracket.codes, bracket.scene_linear, bracket.ev, bracket.valid)))
    model = randomised(TINY)
    with torch.inference_mode():
        a, b = (model(x).scene_linear(bracket.codes[:, 0]) for x in (bracket, turned))
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def test_an_exposure_that_alignment_moved_out_enters_no_merge() -> None:
    bracket = bracket_of(EVS, 1)
    valid, other = bracket.valid.clone(), bracket.scene_linear.clone()
    valid[:, 2] = 0
    other[:, 2] += 3
    doubt = disagreement(bracket)
    a, b = (Bracket(bracket.codes, light, bracket.ev, valid) for light in (bracket.scene_linear, other))
    assert torch.equal(weighted_merge(a), weighted_merge(b))
    assert torch.equal(consistent_merge(a, doubt), consistent_merge(b, doubt))


def test_exposures_that_agree_are_not_doubted() -> None:
    assert float(disagreement(bracket_of(EVS, 1, peak=0.2)).max()) < 0.1


def test_a_clipped_reference_allows_brighter_and_forbids_darker() -> None:
    brighter = disagreement(flat((1.0, 0.9), (1.0, 3.0), (0.0, -2.0)))
    darker = disagreement(flat((1.0, 0.4), (1.0, 0.5), (0.0, -2.0)))
    assert float(brighter.max()) == 0.0
    assert float(darker[:, 1].min()) > 3.0
    assert float(darker[:, 0].max()) == 0.0


def test_the_consistent_merge_leaves_out_what_moved() -> None:
    moved = flat((0.5, 0.8), (0.21, 2.4), (0.0, -2.0))
    merged = consistent_merge(moved, disagreement(moved))
    assert torch.allclose(merged, torch.full_like(merged, 0.21), rtol=1e-3)
    still, truth = bracket_of(EVS, 1, peak=0.2), truth_of(EVS, 1, peak=0.2)
    assert torch.allclose(consistent_merge(still, disagreement(still)), truth, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("codes", "linear", "expected"),
    [
        ((0.5, 0.2), (0.2, 0.2), 0.0),  # both see it
        ((1.0, 0.6), (1.0, 3.0), 0.0),  # the reference clips, the shorter one is brighter and whole
        ((1.0, 1.0), (1.0, 8.0), 0.0),  # everything clips: the shortest is all there is
        ((1.0, 0.2), (1.0, 0.3), 1.0),  # the reference says "at least 1", the shorter one 0.3: something else is there
    ],
)
def test_a_pixel_is_unsupported_where_no_exposure_speaks_of_it(
    codes: tuple[float, ...], linear: tuple[float, ...], expected: float
) -> None:
    bracket = flat(codes, linear, (0.0, -3.0))
    found = unsupported(bracket, disagreement(bracket))
    assert found.shape == (1, 1, 4, 4)
    assert torch.allclose(found, torch.full_like(found, expected), atol=1e-3)


def test_a_clipped_pixel_is_unsupported_where_the_shortest_moved_out() -> None:
    bracket = flat((1.0, 0.6), (1.0, 3.0), (0.0, -3.0))
    away = Bracket(bracket.codes, bracket.scene_linear, bracket.ev, bracket.valid.clone())
    away.valid[:, 1, :, :, :2] = 0
    found = unsupported(away, disagreement(away))
    assert found[..., :2].min() == 1
    assert found[..., 2:].max() < 1e-3


def test_specks_are_not_unsupported() -> None:
    codes, light = torch.full((1, 2, 3, 9, 9), 1.0), torch.full((1, 2, 3, 9, 9), 1.0)
    codes[:, 1], light[:, 1] = 0.6, 3.0
    bracket = Bracket(codes, light, torch.tensor([[0.0, -3.0]]), torch.ones(1, 2, 1, 9, 9))
    bracket.valid[:, 1, :, 4, 2:7] = 0
    assert unsupported(bracket, disagreement(bracket)).max() < 1e-3
    bracket.valid[:, 1, :, 3:6, 2:5] = 0
    assert unsupported(bracket, disagreement(bracket)).sum() == pytest.approx(9, abs=1e-2)


def test_the_degradation_mask_starts_from_what_is_unsupported() -> None:
    model = randomised(TINY).eval()
    here, there = (flat((1.0, code), (1.0, light), (0.0, -3.0)) for code, light in ((0.6, 3.0), (0.2, 0.3)))
    with torch.inference_mode():
        lifted = [model(b).mask_logits - model.mask(model(b).features)[..., :4, :4] for b in (here, there)]
    assert torch.allclose(lifted[0], torch.zeros_like(lifted[0]), atol=1e-2)
    assert torch.allclose(lifted[1], torch.full_like(lifted[1], UNSUPPORTED_LOGIT), atol=1e-2)


def test_gains_beyond_the_map_are_counted() -> None:
    bracket = flat((1.0, 1.0), (1.0, 4.0), (0.0, -2.0))
    model = Regressor(TINY).eval()
    with torch.no_grad():
        model.head.correct.bias[:3] = 30.0
        result = model(bracket)
    assert int(result.overflow) == result.gain.numel()
    assert float(result.gain.max()) == 1.0


@pytest.mark.parametrize(("name", "count"), PUBLISHED_PARAMETERS.items())
def test_full_size_parameter_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        model = Regressor(CONFIGS[name])
    assert sum(p.numel() for p in model.parameters()) == count
    assert [len(s) for s in model.backbone.encoders] == [2, 4, 4, 8]
    assert [len(s) for s in model.backbone.decoders] == [2, 2, 2, 2]


def test_every_configuration_has_its_published_shape() -> None:
    assert CONFIGS["published"].widths == (64, 128, 256, 512)
    assert CONFIGS["released"].widths == (64, 128, 256, 512, 1024)
    with torch.device("meta"):
        small, full = (sum(p.numel() for p in Regressor(CONFIGS[n]).parameters()) for n in ("s", "set"))
    assert small < 1_500_000 < full


@pytest.mark.parametrize("name", ["published", "set"])
def test_full_size_forward_is_finite(name: str) -> None:
    torch.manual_seed(0)
    model = Regressor(CONFIGS[name]).eval()
    with torch.inference_mode():
        result = model(bracket_of(EVS, 1, (33, 40)))
    assert result.gain.shape == (1, 3, 33, 40)
    assert torch.isfinite(result.gain).all()
    assert torch.isfinite(result.mask_logits).all()
    assert 0 <= float(result.gain.min()) <= float(result.gain.max()) <= 1
    tokens = model.mask.embeddings(result.features)
    assert tokens.shape == (1, 4 * 5 * 5, 1024)
    assert torch.isfinite(tokens).all()
