"""The test of Txt2HDR: words are told apart, peaks, memory and seams are what they say, on drawn places."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.evaluate import words
from hdrgen_server.evaluate.prompted import BOUNDS, Trained, memory_of, run_prompts, seam_of
from hdrgen_server.training import drawn
from hdrgen_server.training.captioned import CaptionSource
from hdrgen_server.training.drawn import KINDS, Place
from hdrgen_server.training.scenes import Scene
from nuke_hdrgen.wire.errors import BadInput

SIDE = 64


@pytest.fixture(autouse=True)
def few_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "PLACES", 8)
    monkeypatch.setattr(words, "VIEWS", 2)


def looked_at(kind: str, seed: int, panorama: bool = False) -> np.ndarray:
    place = Place.random(np.random.default_rng(seed), kind)
    rays = drawn.equirectangular(SIDE) if panorama else drawn.perspective(SIDE, place.around, place.high / 2, 1.2)
    return drawn.draw(place, rays)


def test_features_are_thirty_and_follow_exposure() -> None:
    light = looked_at("street", 1)
    plain, doubled = words.features_of(light), words.features_of(2 * light)
    assert plain.shape == (30,)
    assert doubled[:16] - plain[:16] == pytest.approx(1, abs=0.05)
    assert doubled[16:22] == pytest.approx(plain[16:22], abs=0.05)


def test_drawn_places_are_told_by_their_word(scenes: list[Scene]) -> None:
    classifier = words.held_out_words(scenes, SIDE)
    assert classifier.references == 8 * len(KINDS) + 2
    told = [classifier.word_of(looked_at(kind, seed)) == kind for kind in KINDS for seed in range(6)]
    assert np.mean(told) > 0.7


def test_a_panorama_without_a_word_is_refused() -> None:
    with pytest.raises(BadInput, match="somewhere"):
        words.references([Scene("somewhere", np.ones((8, 16, 3), np.float32), 0)], SIDE, 0)


def test_words_that_choose_are_counted_and_those_that_do_not(scenes: list[Scene]) -> None:
    trained = Trained([looked_at("noon", 3)], scenes, SIDE)
    spoken = {prompt: kind for kind, prompt in words.PROMPTS.items()}
    peaks = {"sun": "noon", "lamps": "night", "overcast": "overcast"}
    spoken |= {prompt: kind for name, kind in peaks.items() for prompt in BOUNDS[name].prompts}

    def follows(prompt: str, seed: int, panorama: bool) -> np.ndarray:
        return looked_at(spoken.get(prompt, "forest"), 100 + seed, panorama)

    def ignores(prompt: str, seed: int, panorama: bool) -> np.ndarray:
        del prompt
        return looked_at("night", seed, panorama)

    reported: list[tuple[int, int]] = []
    found = run_prompts(follows, scenes, trained, 4, SIDE, lambda done, total: reported.append((done, total)))
    hits, pictures = found.hits
    assert (pictures, hits > 18) == (32, True)
    assert found.sure > 0.7
    assert {name: peak.met for name, peak in found.peaks.items()} == {"sun": 1, "lamps": 1, "overcast": 1}
    assert reported[-1][0] == reported[-1][1] - 1 == 32 + 12 + 4 - 1

    blind = run_prompts(ignores, scenes, trained, 4, SIDE, lambda done, total: None)
    assert blind.hits[0] <= 4
    assert blind.words["noon"].taken_for["night"] >= 3
    assert blind.peaks["overcast"].met == 0


def test_a_picture_that_was_trained_on_is_at_no_distance(scenes: list[Scene]) -> None:
    known = [looked_at(kind, 5) for kind in KINDS]
    trained = Trained(known, scenes, SIDE)
    remembered = memory_of(known[:2], trained)
    assert (remembered.least, remembered.median, remembered.known) == (0, 0, len(KINDS))
    assert remembered.own_yaws > 0.2
    assert memory_of([looked_at("night", 9)], trained).least > 0.3


def test_a_seam_is_measured_against_the_columns() -> None:
    whole = looked_at("forest", 2, panorama=True)
    assert seam_of(whole).ratio < 3
    ramp = np.broadcast_to(np.linspace(0.1, 9, 64, dtype=np.float32)[None, :, None], (32, 64, 3))
    torn = seam_of(ramp)
    assert (torn.rank, torn.ratio > 50) == (1, True)


def test_the_pool_is_what_training_draws(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hdrgen_server.training import captioned

    monkeypatch.setattr(captioned, "PHOTOGRAPH_SHARE", 0)
    source = CaptionSource(tmp_path, 16, pool=3)
    batches = [source(np.random.default_rng(seed), 2) for seed in range(8)]
    seen = {b.number: b for b in batches if not b.panorama}
    views = list(source.pooled(2))
    assert len(views) % 2 == 0
    for batch in seen.values():
        first = batch.light[0].permute(1, 2, 0).numpy()
        assert any(np.array_equal(first, view) for view in views)
