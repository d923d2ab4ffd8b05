"""LumaFlux's published adapters become a pack on FLUX.1 and SigLIP, behind the licence gate."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hdrgen_server.cli.main import run
from hdrgen_server.gateway.admission import admit
from hdrgen_server.packs import licence
from hdrgen_server.packs.assemble import assemble
from hdrgen_server.packs.headers import read_header
from hdrgen_server.packs.registry import load_registry
from hdrgen_server.settings import Settings, load_settings
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import BadInput, LicenceNotAccepted

TENSOR = {"x": np.zeros(2, np.float32)}


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HDRGEN_DATA_FOLDER", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def adapters(tmp_path: Path) -> Path:
    names = ("physical.conv.weight", "null_context", "rqs.chroma.weight")
    path = tmp_path / "LumaFlux main.safetensors"
    save_file({name: np.zeros(2, np.float32) for name in names}, path)
    return path


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return model(tmp_path / "siglip-so400m", "model.safetensors")


def model(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "pickled.bin").write_bytes(b"not taken")
    for name in files:
        save_file(TENSOR, folder / name)
    return folder


def flux_folder(root: Path) -> Path:
    shards = [f"diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    (model(root / "transformer", *shards) / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    model(root / "vae", "diffusion_pytorch_model.safetensors")
    return root


def flux_files(root: Path) -> Path:
    root.mkdir()
    save_file(TENSOR, root / "flux1-dev.safetensors")
    save_file(TENSOR, root / "ae.safetensors")
    return root


def hdrgen(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def add(*arguments: object) -> int:
    return hdrgen("packs", "add", *arguments)


def test_a_diffusers_folder_and_single_files_become_packs(adapters, encoder, tmp_path, capsys):
    base = flux_folder(tmp_path / "flux")
    assert add(adapters, "--base", base, "--encoder", encoder, "--link") == 0
    pack = load_registry(load_settings()).get("lumaflux-main")
    assert {f.path for f in pack.files} == {
        "adapters.safetensors", "siglip/config.json", "siglip/model.safetensors", "transformer/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
        "transformer/diffusion_pytorch_model.safetensors.index.json", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }  # fmt: skip
    assert pack.file("adapters.safetensors").resolve() == adapters
    assert pack.descriptor.memory.fixed_mib > 20_000
    adapters.rename(tmp_path / "other.safetensors")
    capsys.readouterr()
    files = flux_files(tmp_path / "files")
    assert add(tmp_path / "other.safetensors", "--base", files, "--encoder", encoder) == 0
    copied = load_registry(load_settings()).get("other")
    assert {"transformer.safetensors", "vae.safetensors"} < {f.path for f in copied.files}
    assert not copied.file("vae.safetensors").is_symlink()


def test_the_gate_is_shut_until_someone_accepts(adapters, encoder, tmp_path, capsys):
    assert add(adapters, "--base", flux_files(tmp_path / "files"), "--encoder", encoder) == 0

    def ask(settings: Settings) -> str:
        registry = load_registry(settings)
        opened = m.Open("1", "sdr2hdr", 1, m.Colourspace("lin_rec709_scene", "lin_rec709_scene"), "lumaflux-main")
        return admit(opened, registry, partial(licence.require, settings=settings)).name

    with pytest.raises(LicenceNotAccepted) as caught:
        ask(load_settings())
    assert caught.value.message.count("\n") == 0
    assert "FLUX.1-dev-NC" in caught.value.message
    assert "`hdrgen packs accept lumaflux-main`" in caught.value.message
    site = load_settings().__class__(data_folder=load_settings().data_folder, accept_licences=("FLUX.1-dev-NC",))
    assert ask(site) == "lumaflux-main"
    with pytest.raises(LicenceNotAccepted):
        ask(load_settings())
    assert hdrgen("packs", "accept", "lumaflux-main") == 0
    assert ask(load_settings()) == "lumaflux-main"
    record = json.loads(licence.record_path(load_settings()).read_text())
    assert record["lumaflux-main"]["licence"] == "FLUX.1-dev-NC"


def test_what_is_missing_is_named(adapters, encoder, tmp_path, capsys):
    base = flux_files(tmp_path / "files")
    assert add(adapters, "--encoder", encoder) == 2
    assert "name its folder with --base" in capsys.readouterr().err
    assert add(adapters, "--base", base) == 2
    assert "name its folder with --encoder" in capsys.readouterr().err
    (base / "ae.safetensors").unlink()
    with pytest.raises(BadInput, match=r"has no folder vae/ and not one ae.safetensors"):
        assemble(adapters, base, encoder, tmp_path / "out")
    with pytest.raises(BadInput, match=r"has no config.json with \*.safetensors beside it"):
        assemble(adapters, flux_files(tmp_path / "again"), base, tmp_path / "out2")


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, (4).to_bytes(8, "little") + b"no, ", b"\x02" + bytes(7) + b"[]"])
def test_a_file_without_names_is_refused(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadInput, match="cannot be read as safetensors"):
        read_header(path)


def test_a_lora_is_no_pack(tmp_path, capsys):
    save_file(TENSOR, tmp_path / "lora.safetensors")
    assert add(tmp_path / "lora.safetensors") == 2
    assert "must be LumaFlux's adapters" in capsys.readouterr().err
    folder = tmp_path / "pack"
    folder.mkdir()
    (folder / "pack.toml").write_text('format = 1\nname = "t"\nsystem = "merge"\nlicence = "x"\n')
    assert add(folder, "--encoder", folder) == 2
    assert "--encoder is for LumaFlux's adapters" in capsys.readouterr().err


def qwen_folder(root: Path) -> Path:
    for part, file in (("transformer", "diffusion_pytorch_model.safetensors"), ("vae", "model.safetensors")):
        model(root / part, file)
    model(root / "text_encoder", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    for part in ("tokenizer", "scheduler"):
        model(root / part)
    (root / "tokenizer" / "merges.txt").write_text("a b\n")
    return root


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "Krea LogC4.safetensors"
    save_file({"lora_unet_transformer_blocks_0_attn_to_q.lora_down.weight": np.zeros(2, np.float32)}, path)
    return path


def test_a_lora_and_qwen_image_become_a_pack(lora: Path, tmp_path: Path) -> None:
    base = qwen_folder(tmp_path / "qwen")
    given = ("--curve", "logc4", "--primaries", "rec709", "--licence", "CC-BY-4.0")
    assert add(lora, "--base", base, *given, "--link") == 0
    pack = load_registry(load_settings()).get("krea-logc4")
    assert {"lora.safetensors", "transformer/config.json", "tokenizer/merges.txt"} < {f.path for f in pack.files}
    assert not any(f.path.endswith(".bin") for f in pack.files)
    assert (pack.system, pack.licence) == ("qwenlog", "CC-BY-4.0")
    assert dict(pack.options) == {"config": "published", "curve": "logc4", "primaries": "rec709"}
    assert pack.file("lora.safetensors").resolve() == lora


def test_what_a_lora_does_not_say_is_asked_for(lora: Path, adapters: Path, tmp_path: Path, capsys) -> None:
    base = qwen_folder(tmp_path / "qwen")
    cases = [
        ((lora,), "name its folder with --base"),
        ((lora, "--base", base), "give --curve, one of logc4"),
        ((lora, "--base", base, "--curve", "srgb"), "give --curve, one of logc4"),
        ((lora, "--base", base, "--curve", "logc4"), "give --primaries, one of rec709"),
        ((lora, "--base", base, "--curve", "logc4", "--primaries", "rec709"), "with --licence"),
        ((lora, "--base", base, "--encoder", base), "--encoder is for LumaFlux's adapters"),
        ((adapters, "--curve", "logc4"), "--curve is for a LoRA of Qwen-Image"),
    ]
    for arguments, said in cases:
        assert add(*arguments) == 2
        assert said in capsys.readouterr().err
    (base / "tokenizer").rename(base / "elsewhere")
    assert add(lora, "--base", base, "--curve", "logc4", "--primaries", "rec709", "--licence", "MIT") == 2
    assert "has no folder tokenizer/" in capsys.readouterr().err
