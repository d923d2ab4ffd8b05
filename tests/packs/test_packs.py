"""Packs: strict manifests, the registry with its defaults, adding, verifying and the licence gate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hdrgen_server.packs import licence
from hdrgen_server.packs.add import add
from hdrgen_server.packs.descriptors import load_descriptor, parse_descriptor, system_names
from hdrgen_server.packs.manifest import MANIFEST_BYTES, PICKLE_SUFFIXES, parse_pack, read_pack
from hdrgen_server.packs.registry import EMBEDDED_FOLDER, load_registry, user_packs_folder
from hdrgen_server.packs.verify import verify
from hdrgen_server.settings import Settings, load_settings
from nuke_hdrgen.wire.errors import BadInput, HDRGenError, LicenceNotAccepted, StorageError, UnknownPack

GOOD = 'format = 1\nname = "toy"\nsystem = "merge"\nlicence = "Apache-2.0"\n'
WEIGHTS = b"not really weights"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return load_settings(data_folder=tmp_path / "data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "toy"
    path.mkdir()
    (path / "pack.toml").write_text(GOOD, encoding="utf-8")
    (path / "model.safetensors").write_bytes(WEIGHTS)
    return path


def test_embedded_packs_are_as_their_manifests_say(settings: Settings) -> None:
    registry = load_registry(settings)
    assert not registry.problems
    assert {"merge", "echo"} <= {pack.name for pack in registry.all()}
    for pack in registry.all():
        own = hashlib.sha256((pack.path / "pack.toml").read_bytes()).hexdigest()
        on_base = own if pack.base is None else hashlib.sha256(f"{own} {pack.base.digest}".encode()).hexdigest()
        assert pack.digest == on_base
        assert pack.revision == pack.descriptor.revision >= 1
        assert verify(pack) == ()
        assert pack.size_bytes <= 16 << 20


def test_every_system_reads_strictly() -> None:
    assert {"merge", "echo", "gmodiff"} <= set(system_names())
    for name in system_names():
        assert load_descriptor(name).system == name
    with pytest.raises(UnknownPack, match="merge"):
        load_descriptor("nothing")


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.update(colour=1),
        lambda t: t["sizes"].update(most=1),
        lambda t: t["memory"].update(most=1),
        lambda t: t["parameters"][0].update(most=1),
        lambda t: t["parameters"][0].update(default=99),
        lambda t: t["parameters"][0].update(kind="number"),
        lambda t: t.pop("revision"),
    ],
)
def test_a_descriptor_with_a_mistake_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    table: dict[str, Any] = {
        "summary": "a", "operations": ["hdrfuse"], "revision": 1, "sizes": {}, "memory": {},
        "parameters": [{"name": "n", "kind": "int", "default": 1, "summary": "n", "maximum": 5}],
    }  # fmt: skip
    parse_descriptor("toy", table)
    change(table)
    with pytest.raises((ValueError, HDRGenError)):
        parse_descriptor("toy", table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format = ", ("not TOML",)),
        (GOOD.replace('licence = "Apache-2.0"\n', ""), ("licence",)),
        (GOOD + "colour = 1\n", ("colour", "known are")),
        (GOOD + 'preview = "yes"\n', ("preview", "bool")),
        (GOOD.replace("format = 1", "format = 2"), ("format 2",)),
        (GOOD.replace("format = 1", "format = true"), ("format", "int")),
        (GOOD.replace('"toy"', '"../toy"'), ("../toy",)),
        (GOOD.replace('"merge"', '"absent"'), ("absent", "merge")),
        (GOOD + '[[files]]\npath = "a.safetensors"\n', ("needs path, bytes and sha256",)),
        (GOOD + '[[files]]\npath = "a.safetensors"\nbytes = 1\nsha256 = "zz"\n', ("64",)),
        (GOOD + '[[files]]\npath = "a.safetensors"\nbytes = -1\nsha256 = "zz"\n', ("whole number",)),
        (GOOD + f'[[files]]\npath = "../a.safetensors"\nbytes = 1\nsha256 = "{"0" * 64}"\n', ("plain path",)),
        (GOOD + f'[[files]]\npath = "/a.safetensors"\nbytes = 1\nsha256 = "{"0" * 64}"\n', ("plain path",)),
        (GOOD + f'[[files]]\npath = "a.exe"\nbytes = 1\nsha256 = "{"0" * 64}"\n', ("no place",)),
    ],
)
def test_a_bad_manifest_is_one_line_that_names_it(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises(HDRGenError) as caught:
        parse_pack(text.encode(), Path("/packs/toy"))
    message = caught.value.message
    assert message.startswith("/packs/toy/pack.toml")
    assert "\n" not in message
    assert caught.value.exit_status == 2
    assert all(word in message for word in words)


def test_a_huge_or_absent_manifest_is_refused(folder: Path) -> None:
    (folder / "pack.toml").write_bytes(b"#" * (MANIFEST_BYTES + 1))
    with pytest.raises(BadInput, match="no pack manifest"):
        read_pack(folder)
    with pytest.raises(BadInput, match=r"pack\.toml"):
        read_pack(folder / "nothing")


def test_add_records_every_file_and_copies(folder: Path, settings: Settings) -> None:
    pack = add(folder, settings)
    assert pack.path == user_packs_folder(settings) / "toy"
    assert [(f.path, f.bytes) for f in pack.files] == [("model.safetensors", len(WEIGHTS))]
    assert pack.file("model.safetensors").read_bytes() == WEIGHTS
    assert load_registry(settings).get("toy").digest == pack.digest
    assert "[[files]]" not in (folder / "pack.toml").read_text(encoding="utf-8")
    assert [p.name for p in user_packs_folder(settings).iterdir()] == ["toy"]
    with pytest.raises(BadInput, match="already"):
        add(folder, settings)


def test_add_link_leaves_the_weights_and_finishes_the_manifest(folder: Path, settings: Settings) -> None:
    pack = add(folder, settings, link=True)
    assert (user_packs_folder(settings) / "toy").is_symlink()
    assert read_pack(folder).digest == pack.digest
    assert verify(pack) == ()


@pytest.mark.parametrize("suffix", sorted(PICKLE_SUFFIXES))
def test_add_refuses_a_pickle_by_name(folder: Path, settings: Settings, suffix: str) -> None:
    (folder / f"model{suffix.upper()}").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"may hold a pickle.*safetensors"):
        add(folder, settings)
    assert not user_packs_folder(settings).exists()


def test_add_refuses_files_that_differ_or_are_not_listed(folder: Path, settings: Settings) -> None:
    add(folder, settings, link=True)
    (user_packs_folder(settings) / "toy").unlink()
    (folder / "more.safetensors").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"does not list more\.safetensors"):
        add(folder, settings)
    (folder / "more.safetensors").unlink()
    (folder / "model.safetensors").write_bytes(WEIGHTS[::-1])
    with pytest.raises(BadInput, match="sha256 differs"):
        add(folder, settings)


def test_add_where_nothing_can_be_written(folder: Path, settings: Settings) -> None:
    settings.data_folder.write_bytes(b"a file where the folder should be")
    with pytest.raises(StorageError, match="toy"):
        add(folder, settings)


def test_verify_says_what_is_wrong(folder: Path, settings: Settings) -> None:
    pack = add(folder, settings)
    weights = pack.path / "model.safetensors"
    weights.write_bytes(WEIGHTS[::-1])
    assert "sha256" in verify(pack)[0]
    weights.write_bytes(WEIGHTS + b"x")
    assert "bytes" in verify(pack)[0]
    weights.unlink()
    assert "cannot be read" in verify(pack)[0]
    with pytest.raises(BadInput, match="missing"):
        pack.file("model.safetensors")
    with pytest.raises(BadInput, match="lists no file"):
        pack.file("other.safetensors")


def test_a_broken_pack_is_named_and_stops_no_other(folder: Path, settings: Settings) -> None:
    add(folder, settings)
    (user_packs_folder(settings) / "toy" / "pack.toml").write_text("format = ", encoding="utf-8")
    registry = load_registry(settings)
    assert registry.get("merge").name == "merge"
    with pytest.raises(BadInput, match="not TOML"):
        registry.get("toy")


def test_a_doubled_pack_names_both_places(folder: Path, settings: Settings, tmp_path: Path) -> None:
    add(folder, settings)
    registry = load_registry(load_settings(data_folder=settings.data_folder, packs_folders=[tmp_path]))
    assert "toy" not in {pack.name for pack in registry.all()}
    with pytest.raises(BadInput, match="2 times") as caught:
        registry.get("toy")
    assert str(folder) in caught.value.message
    assert str(user_packs_folder(settings)) in caught.value.message


def test_unknown_names_and_operations(settings: Settings) -> None:
    registry = load_registry(settings)
    with pytest.raises(UnknownPack, match="merge"):
        registry.get("nothing")
    with pytest.raises(UnknownPack, match="nothing"):
        registry.default_for("nothing", "draft")
    assert registry.default_for("echo", "final").name == "echo"


def test_the_default_falls_back_to_merge(settings: Settings) -> None:
    registry = load_registry(settings)
    shipped = (EMBEDDED_FOLDER / "gmodiff-s" / "pack.toml").is_file()
    assert registry.default_for("hdrfuse", "draft").name == ("gmodiff-s" if shipped else "merge")
    registry.packs.pop("gmodiff-s", None)
    assert registry.default_for("hdrfuse", "draft").name == "merge"


def test_the_licence_gate(folder: Path, settings: Settings) -> None:
    text = GOOD.replace("Apache-2.0", "Example-NC-1.0") + 'must_accept = true\nlicence_url = "https://example.org/nc"\n'
    (folder / "pack.toml").write_text(text, encoding="utf-8")
    pack = add(folder, settings)
    with pytest.raises(LicenceNotAccepted, match=r"Example-NC-1\.0.*hdrgen packs accept toy") as caught:
        licence.require(pack, settings)
    assert caught.value.exit_status == 4
    site = load_settings(data_folder=settings.data_folder, accept_licences=["Example-NC-1.0"])
    licence.require(pack, site)
    licence.accept(pack, settings)
    licence.require(pack, settings)
    other = parse_pack(text.replace("NC-1.0", "NC-2.0").encode(), folder)
    assert not licence.accepted(other, settings)


def test_a_plain_pack_asks_for_nothing(settings: Settings) -> None:
    licence.require(load_registry(settings).get("merge"), settings)
    assert not licence.record_path(settings).exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"toy": 1}'])
def test_a_broken_record_of_licences_is_named(folder: Path, settings: Settings, text: str) -> None:
    (folder / "pack.toml").write_text(GOOD + "must_accept = true\n", encoding="utf-8")
    pack = add(folder, settings)
    licence.record_path(settings).write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match=r"accepted\.json"):
        licence.accepted(pack, settings)


def test_acceptance_keeps_the_others(folder: Path, settings: Settings) -> None:
    pack = add(folder, settings)
    licence.record_path(settings).write_text(json.dumps({"other": {"licence": "X"}}), encoding="utf-8")
    licence.accept(pack, settings)
    assert set(json.loads(licence.record_path(settings).read_text(encoding="utf-8"))) == {"other", "toy"}
