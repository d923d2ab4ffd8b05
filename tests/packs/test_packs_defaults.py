"""A pack's own defaults for its system's parameters, the plain packs, and their order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.packs.manifest import parse_pack
from hdrgen_server.packs.registry import EMBEDDED_FOLDER, Registry, load_registry
from hdrgen_server.settings import load_settings
from hdrgen_server.systems.bt2446.operator import create
from nuke_hdrgen.wire.errors import BadInput

HEAD = 'format = 1\nname = "x"\nsystem = "bt2446"\nlicence = "Apache-2.0"\n'


def parsed(tail: str):
    return parse_pack((HEAD + tail).encode(), EMBEDDED_FOLDER)


def test_a_packs_defaults_are_its_descriptors_and_can_still_be_chosen_otherwise():
    pack = parsed('[defaults]\nmethod = "c"\n')
    assert pack.descriptor.resolve({})["method"] == "c"
    assert pack.descriptor.resolve({"method": "a"})["method"] == "a"
    assert pack.descriptor.resolve({})["peak_nits"] == 1000.0
    assert parsed("").descriptor.resolve({})["method"] == "a"
    assert pack.digest != parsed("").digest


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        ('[defaults]\nmethod = "z"\n', "method must be one of a, c"),
        ("[defaults]\npeak_nits = 1.0\n", "peak_nits must be between 100 and 10000"),
        ("[defaults]\nsteps = 8\n", "bt2446 has no parameter 'steps'"),
        ('defaults = "c"\n', "defaults must be dict"),
    ],
)
def test_defaults_that_do_not_fit_are_named(tail, said):
    with pytest.raises(BadInput, match=said):
        parsed(tail)


def test_the_plain_packs_are_there_and_differ_above_the_knee(monkeypatch, tmp_path):
    monkeypatch.setenv("HDRGEN_DATA_FOLDER", str(tmp_path))
    registry = load_registry(load_settings())
    assert registry.problems == {}
    from hdrgen_server.colour.interop import colourspace
    from hdrgen_server.systems.reinhard.operator import create as create_reinhard

    frame = Frame(np.full((2, 2, 3), 0.9, np.float32), ("R", "G", "B"), colourspace("lin_rec709_scene"))
    found: dict[str, float] = {}
    for name, make in (("bt2446", create), ("bt2446c", create), ("reinhard", create_reinhard)):
        pack = registry.get(name)
        assert pack.files == ()
        operator = make(pack, "cpu")
        (result,) = operator.run(Request("sdr2hdr", pack.descriptor.resolve({})), iter([frame]), _Quiet())
        found[name] = float(result.rgb.mean())
    assert len({round(value, 2) for value in found.values()}) == 3
    assert min(found.values()) > 0.9


def test_a_draft_is_a_curve_and_a_final_is_generated():
    registry = load_registry(load_settings())
    plain = ["bt2446", "reinhard", "bt2446c"]
    orders = registry.defaults["sdr2hdr"]
    assert orders["draft"] == [*plain, "lumaflux-s", "latenthdr-s"]
    assert orders["final"] == ["lumaflux-s", "latenthdr-s", *plain]
    assert registry.default_for("sdr2hdr", "draft").name == "bt2446"
    wanted = next(name for name in orders["final"] if name in registry.packs)
    assert registry.default_for("sdr2hdr", "final").name == wanted


def with_packs(tmp_path: Path, **systems: str) -> Registry:
    """The shipped packs without those of LumiVid, and packs of these systems in a user's folder; a name that ends in
    `_s` is a preview's.
    """
    for name, system in systems.items():
        folder = tmp_path / "packs" / name
        folder.mkdir(parents=True)
        preview = str(name.endswith("_s")).lower()
        text = f'format = 1\nname = "{name}"\nsystem = "{system}"\nlicence = "MIT"\npreview = {preview}\n'
        (folder / "pack.toml").write_text(text)
    registry = load_registry(load_settings(data_folder=tmp_path))
    shipped = [name for name, pack in registry.packs.items() if pack.system == "lumivid" and name not in systems]
    for name in shipped:
        del registry.packs[name]
    return registry


def test_a_shot_takes_a_pack_for_shots_where_one_is(tmp_path):
    registry = with_packs(tmp_path, any_name_s="lumivid")
    still = registry.default_for("sdr2hdr", "final")
    assert still.system != "lumivid"
    assert registry.default_for("sdr2hdr", "final", shot=True).name == "any_name_s"
    assert registry.default_for("sdr2hdr", "draft", shot=True).name == "bt2446"
    assert registry.default_for("txt2hdr", "final", shot=True) == registry.default_for("txt2hdr", "final")
    names = registry.default_names()
    assert (names["sdr2hdr/final"], names["sdr2hdr.shot/final"]) == (still.name, "any_name_s")
    assert "sdr2hdr.shot/draft" not in names
    assert names["sdr2hdr/draft"] == "bt2446"


def test_without_one_a_shot_takes_what_a_still_takes(tmp_path):
    registry = with_packs(tmp_path)
    for quality in ("draft", "final"):
        still = registry.default_for("sdr2hdr", quality)
        assert registry.default_for("sdr2hdr", quality, shot=True) == still
        assert registry.default_names()[f"sdr2hdr/{quality}"] == still.name
    assert not any(".shot/" in key for key in registry.default_names())


def test_of_a_system_a_full_pack_comes_before_a_preview(tmp_path):
    registry = with_packs(tmp_path, a_s="lumivid", b_full="lumivid", c_full="lumivid", a_plain="bt2446")
    assert registry.default_for("sdr2hdr", "final", shot=True).name == "b_full"
    assert registry.default_for("sdr2hdr", "draft").name == "bt2446"  # a pack's name comes before a system's


class _Quiet:
    def step(self, done: int, total: int, frame: int = 0) -> None:
        del done, total, frame
