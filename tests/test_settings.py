"""Settings: precedence, refusals in one line, and where each value comes from."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from hdrgen_server.settings import Settings, descriptions, load_settings, origins, settings_files, unknown_variables
from nuke_hdrgen.wire.errors import BadParameter
from nuke_hdrgen.wire.limits import Limits


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HDRGEN_DEVICE", "HDRGEN_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "site"))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")


def _write(layer: str, text: str) -> Path:
    path = dict(settings_files())[layer]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_every_layer_wins_over_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (load_settings().threads, origins()["threads"]) == (0, "default")
    site = _write("site", "threads = 1")
    assert (load_settings().threads, origins()["threads"]) == (1, str(site))
    user = _write("user", "threads = 2")
    assert (load_settings().threads, origins()["threads"]) == (2, str(user))
    project = _write("project", "threads = 3")
    assert (load_settings().threads, origins()["threads"]) == (3, str(project))
    monkeypatch.setenv("HDRGEN_THREADS", "4")
    assert (load_settings().threads, origins()["threads"]) == (4, "HDRGEN_THREADS")
    assert (load_settings(threads=5).threads, origins(threads=5)["threads"]) == (5, "flag")
    assert load_settings(threads=None).threads == 4


def test_layers_merge_option_by_option() -> None:
    _write("site", 'device = "cpu"\nthreads = 1')
    _write("user", "threads = 2")
    settings = load_settings()
    assert (settings.device, settings.threads) == ("cpu", 2)


def test_lists_split_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDRGEN_PACKS_FOLDERS", "/site/packs:~/more")
    monkeypatch.setenv("HDRGEN_ACCEPT_LICENCES", "A-1, B-2")
    settings = load_settings()
    assert settings.packs_folders == (Path("/site/packs"), Path("~/more").expanduser())
    assert settings.accept_licences == ("A-1", "B-2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("threds = 2", ("threds", "threads")),
        ('threads = "many"', ("threads", "many")),
        ("threads = -1", ("threads", "-1")),
        ("threads = ", ("cannot be read",)),
        ('provenance = "some"', ("provenance", "some")),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(text: str, words: tuple[str, ...]) -> None:
    path = _write("user", text)
    with pytest.raises(BadParameter) as caught:
        load_settings()
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert all(word in caught.value.message for word in words)


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDRGEN_THREADS", "-3")
    with pytest.raises(BadParameter, match="HDRGEN_THREADS"):
        load_settings()


def test_an_unknown_override_is_refused() -> None:
    with pytest.raises(BadParameter, match="did you mean 'device'"):
        load_settings(devise="cpu")


def test_misspelt_variables_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDRGEN_DEVISE", "cpu")
    assert "HDRGEN_DEVISE" in unknown_variables()
    assert "HDRGEN_DEVICE" not in unknown_variables()


def test_every_option_is_documented() -> None:
    assert all(text.endswith(".") for text in descriptions().values())
    assert set(descriptions()) == set(Settings.__struct_fields__)


def test_importing_settings_and_packs_brings_no_torch() -> None:
    code = (
        "import sys, hdrgen_server.settings, hdrgen_server.packs.registry, hdrgen_server.packs.add\n"
        "sys.exit(repr({'torch', 'typer', 'rich', 'OpenEXR'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stderr.strip() == "set()", result.stderr


def test_limits_are_the_wires_and_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().limits == Limits()
    monkeypatch.setenv("HDRGEN_LIMIT_FRAME_BYTES", "4096")
    assert load_settings().limits == replace(Limits(), frame_bytes=4096)


def test_the_digest_follows_what_a_server_must_share() -> None:
    plain = load_settings()
    assert plain.digest == load_settings(log_level="debug", device="cpu").digest
    assert plain.digest != load_settings(packs_folders=["/p"]).digest
