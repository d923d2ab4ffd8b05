"""A pack's own defaults for its system's parameters, the plain packs, and their order."""

from __future__ import annotations

import numpy as np
import pytest

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.packs.manifest import parse_pack
from hdrgen_server.packs.registry import EMBEDDED_FOLDER, load_registry
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


class _Quiet:
    def step(self, done: int, total: int, frame: int = 0) -> None:
        del done, total, frame
