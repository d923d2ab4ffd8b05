"""Packs on other packs, and systems that are another thing for each of their operations."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdrgen_server.packs import licence
from hdrgen_server.packs.add import add
from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.packs.manifest import parse_pack, read_pack
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import Settings, load_settings
from nuke_hdrgen.wire.errors import BadInput, HDRGenError, LicenceNotAccepted

ON = 'format = 1\nname = "{name}"\nsystem = "latenthdr"\noperation = "txt2hdr"\nlicence = "x"\nbase = "{base}"\n'
WHOLE = 'format = 1\nname = "{name}"\nsystem = "chart"\nlicence = "NC"\n{more}'


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return load_settings(data_folder=tmp_path / "data")


def write(settings: Settings, name: str, text: str) -> Path:
    folder = settings.data_folder / "packs" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pack.toml").write_text(text, encoding="utf-8")
    return folder


def test_a_pack_finds_its_base_and_changes_with_it(settings: Settings) -> None:
    folder = write(settings, "top", ON.format(name="top", base="ground"))
    write(settings, "ground", WHOLE.format(name="ground", more=""))
    pack = load_registry(settings).get("top")
    assert pack.base is not None
    assert pack.base.name == "ground"
    assert pack.digest not in {read_pack(folder).digest, pack.base.digest}
    assert load_registry(settings).based(pack) is pack
    write(settings, "ground", WHOLE.format(name="ground", more='summary = "other"\n'))
    assert load_registry(settings).get("top").digest != pack.digest


def test_a_base_that_is_not_here_broken_or_on_another_is_a_problem(settings: Settings) -> None:
    folder = write(settings, "top", ON.format(name="top", base="ground"))
    with pytest.raises(BadInput, match="pack top is on pack ground, which is not here; add that one"):
        load_registry(settings).get("top")
    with pytest.raises(BadInput, match="ground, which is not here"):
        add(folder, settings)
    write(settings, "ground", "format = 2\n")
    with pytest.raises(BadInput, match="pack top is on ground, which is broken"):
        load_registry(settings).get("top")
    write(settings, "ground", ON.format(name="ground", base="chart"))
    with pytest.raises(BadInput, match="top is on ground, which is on chart; name a whole pack"):
        load_registry(settings).get("top")


def test_the_bases_licence_is_asked_for_too(settings: Settings) -> None:
    write(settings, "top", ON.format(name="top", base="ground"))
    write(settings, "ground", WHOLE.format(name="ground", more="must_accept = true\n"))
    pack = load_registry(settings).get("top")
    with pytest.raises(LicenceNotAccepted, match="packs accept ground"):
        licence.require(pack, settings)
    assert pack.base is not None
    licence.accept(pack.base, settings)
    licence.require(pack, settings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ON.format(name="a", base="a"), "cannot be its own base"),
        (ON.format(name="a", base="../b"), "base '../b' must be 1 to 64"),
        (
            ON.format(name="a", base="b").replace('operation = "txt2hdr"\n', ""),
            "does one of sdr2hdr, txt2hdr; say which",
        ),
        (ON.format(name="a", base="b").replace("txt2hdr", "hdrfuse"), "does sdr2hdr, txt2hdr, not 'hdrfuse'"),
        (ON.format(name="a", base="b").replace("latenthdr", "none"), "there is no system 'none'"),
    ],
)
def test_manifests_that_cannot_be_are_named(text: str, said: str) -> None:
    with pytest.raises(HDRGenError, match=said):
        parse_pack(text.encode(), Path("/packs/a"))


def test_each_operation_has_its_own_parameters_frames_and_space() -> None:
    plates, pictures = load_descriptor("latenthdr", "sdr2hdr"), load_descriptor("latenthdr", "txt2hdr")
    assert plates.operations == ("sdr2hdr",)
    assert plates.made_size(plates.resolve({})) is None
    assert "prompt" not in plates.resolve({})
    assert plates.streams
    assert pictures.made_size(pictures.resolve({})) == (1024, 1024)
    assert (pictures.frames_minimum, pictures.output_space) == (0, "lin_rec709_scene")
    assert {p.name for p in load_descriptor("latenthdr").parameters} == {"ev_low", "ev_high", "ev_step", "tile"}
    assert load_descriptor("bt2446", "sdr2hdr").parameters == load_descriptor("bt2446").parameters
