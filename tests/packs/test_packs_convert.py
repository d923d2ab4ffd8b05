"""Published checkpoints become packs, and nothing that a checkpoint says is ever run."""

from __future__ import annotations

import collections
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from hdrgen_server.packs import conversion
from hdrgen_server.packs.pickled import read_checkpoint
from hdrgen_server.systems.gmodiff import convert as converter
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.released import (
    LISTS,
    LORA_FILES,
    Layout,
    folded,
    projection_shapes,
    refined_name,
    refiner_shapes,
    regressor_shapes,
    released_layout,
)
from nuke_hdrgen.wire.errors import BadInput, HDRGenError, PermissionRefused

SMALL_REGRESSOR = replace(
    CONFIGS["released"], widths=(4, 6, 6, 8, 10), encoder=(1, 1, 1, 2), decoder=(1, 1, 1, 1), mask_width=2
)


def small_layout() -> Layout:
    """The published layer names, every width at most 6 channels and rank 2."""
    layers = tuple(
        replace(layer, out=min(layer.out, 5), inputs=min(layer.inputs, 6)) for layer in released_layout().layers
    )
    return Layout(layers, projection_shapes(6, unshuffled=3, middle=4), SMALL_REGRESSOR, rank=2)


def filled(shapes: dict[str, tuple[int, ...]], rng: np.random.Generator) -> collections.OrderedDict[str, torch.Tensor]:
    """Random tensors under these names, as a module's state dict has them."""
    state: collections.OrderedDict[str, torch.Tensor] = collections.OrderedDict()
    for name, shape in shapes.items():
        whole = name.endswith("num_batches_tracked")
        state[name] = torch.tensor(7) if whole else torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
    state._metadata = collections.OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    return state


def stage_two(layout: Layout) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    state: dict[str, Any] = {entry: dict(filled(shapes, rng)) for entry, shapes in refiner_shapes(layout).items()}
    state["proj"] = filled(dict(layout.projection), rng)
    state |= {name: ["conv_in", "mid_block.attentions.0.proj_in"] for name in LISTS}
    return state | {f"rank_{network}": layout.rank for network in ("unet", "vae", "vae_c")}


def regressor(layout: Layout) -> dict[str, Any]:
    state = filled(regressor_shapes(layout.regressor), np.random.default_rng(2))
    return {
        "epoch": 3,
        "val_metrics": {"val_mask_bce": 0.1},
        "optimizer": {"state": {}, "param_groups": []},
        "state_dict": collections.OrderedDict((f"module.{name}", tensor) for name, tensor in state.items()),
    }


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A folder with both checkpoints in the small layout."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save(stage_two(small_layout()), folder / "gmodiff_81000.pkl")
    torch.save(regressor(small_layout()), folder / "dareg_mask.pth")
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_every_tensor_arrives_under_its_name(released: Path, tmp_path: Path) -> None:
    out, layout = tmp_path / "out", small_layout()
    out.mkdir()
    names = converter.convert(files_of(released), out, layout)
    assert names == [
        f"{name}.safetensors" for name in ("lora/condition", "lora/unet", "lora/vae", "refine", "regressor")
    ]
    made = {name: load_file(out / name) for name in names}
    given = torch.load(released / "gmodiff_81000.pkl", weights_only=True)
    stage_one = torch.load(released / "dareg_mask.pth", weights_only=True)["state_dict"]

    assert len(made["regressor.safetensors"]) == len(stage_one)
    assert np.array_equal(made["regressor.safetensors"]["head.intro.0.weight"], stage_one["module.intro_1.weight"])
    assert np.array_equal(
        made["regressor.safetensors"]["backbone.encoders.3.1.attention.bias"],
        stage_one["module.encoders.3.1.sca.1.bias"],
    )
    unet = given["state_dict_unet"]
    name = "up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_out.0"
    assert np.array_equal(
        made["lora/unet.safetensors"][f"{name}.lora_B.weight"], unet[f"{name}.lora_B.default_decoder.weight"]
    )
    assert not [key for key in made["lora/unet.safetensors"] if key.startswith("conv_in.")]
    assert "decoder.mid_block.attentions.0.to_q.lora_A.weight" in made["lora/vae.safetensors"]
    assert "quant_conv.lora_A.weight" in made["lora/condition.safetensors"]

    refine = made["refine.safetensors"]
    base, down, up = (
        unet[f"conv_in.{part}.weight"] for part in ("base_layer", "lora_A.default_encoder", "lora_B.default_encoder")
    )
    merged = base + 8 / 2 * torch.einsum("or,rihw->oihw", up[..., 0, 0], down)
    assert np.allclose(refine["unet.conv_in.weight"], merged, atol=1e-5)
    gate = {name for name in refine if name.startswith("blocks.3.")}
    assert gate == {
        f"blocks.3.{n}" for n in ("skip.weight", "gate.0.weight", "gate.0.bias", "gate.2.weight", "gate.2.bias")
    }
    assert refine["prior.mask_encoder.2.num_batches_tracked"] == 7
    total = sum(len(tensors) for name, tensors in made.items() if name.startswith("lora/"))
    assert total + 2 * sum(layer.whole for layer in layout.layers) == 2 * len(layout.layers)


def test_the_released_regressor_runs_with_converted_weights(released: Path, tmp_path: Path) -> None:
    from hdrgen_server.systems.gmodiff.regressor import Regressor

    (tmp_path / "out").mkdir()
    converter.convert([released / "dareg_mask.pth"], tmp_path / "out", small_layout())
    model = Regressor(SMALL_REGRESSOR)
    weights = {
        name: torch.from_numpy(tensor) for name, tensor in load_file(tmp_path / "out" / "regressor.safetensors").items()
    }
    assert not any(model.load_state_dict(weights))


def test_the_published_sizes_fit_the_published_model() -> None:
    from hdrgen_server.systems.gmodiff.regressor import Regressor
    from hdrgen_server.systems.gmodiff.released import regressor_name

    with torch.device("meta"):
        model = Regressor(CONFIGS["released"])
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {regressor_name(name): shape for name, shape in regressor_shapes(CONFIGS["released"]).items()} == ours
    layout = released_layout()
    assert (layout.rank, len(layout.layers)) == (16, 373)
    shapes = refiner_shapes(layout)
    assert {entry: len(tensors) for entry, tensors in shapes.items()} == {
        "state_dict_unet": 518, "state_dict_vae": 186, "state_dict_vae_c": 68, "proj": 18,
    }  # fmt: skip
    assert shapes["state_dict_unet"]["conv_in.base_layer.weight"] == (320, 8, 3, 3)
    assert shapes["state_dict_unet"]["mid_block.attentions.0.proj_in.lora_A.default_others.weight"] == (16, 1280)
    assert shapes["state_dict_vae"]["decoder.skip_conv_4.conv1.base_layer.weight"] == (256, 128, 1, 1)
    assert shapes["state_dict_vae_c"]["decoder.skip_conv_2.weight"] == (
        512,
        256,
        1,
        1,
    )
    assert shapes["proj"]["mlp.0.weight"] == (1024, 2048)


def test_the_table_of_layers_is_that_of_the_published_configuration() -> None:
    """The public source's own rule, applied to diffusers' model at the published sizes."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from hdrgen_server.systems.gmodiff.refine.config import SD21_UNET, SD21_VAE

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**SD21_UNET.arguments(8, 4)), AutoencoderKL(**SD21_VAE.arguments())
    layers = [layer for layer in released_layout().layers if "skip_conv" not in layer.name]
    for layer in layers:
        module = (unet if layer.network == "unet" else vae).get_submodule(layer.name)
        assert tuple(module.weight.shape) == layer.weight, layer.name
        assert (module.bias is not None) == layer.bias
    words = ("to_k", "to_q", "to_v", "to_out.0", "conv", "proj_in", "proj_out", "ff.net.2", "ff.net.0.proj")
    named = [n.removesuffix(".weight") for n, _ in unet.named_parameters() if "bias" not in n and "norm" not in n]
    listed = {layer.name for layer in layers if layer.network == "unet"}
    assert listed == {name for name in named if any(word in name for word in words)}
    groups = collections.Counter((layer.network, layer.adapter) for layer in layers)
    assert groups["unet", "others"] == sum("mid_block" in layer.name for layer in layers if layer.network == "unet")
    assert groups["vae", "encoder"] == groups["vae_c", "encoder"] == 32


def test_what_is_converted_fits_stage_two_at_its_published_size() -> None:
    """Names and shapes of refine.safetensors and of the three adapters, none missing, none left over."""
    from peft import get_peft_model_state_dict

    from hdrgen_server.systems.gmodiff.refine.config import REFINERS
    from hdrgen_server.systems.gmodiff.refine.loading import refined_state
    from hdrgen_server.systems.gmodiff.refine.lora import ADAPTER, adapted, add_lora
    from hdrgen_server.systems.gmodiff.refine.model import Refiner

    layout = released_layout()
    refine = {refined_name("proj", name): shape for name, shape in layout.projection.items()}
    adapters: dict[str, dict[str, tuple[int, ...]]] = {name: {} for name in LORA_FILES.values()}
    for layer in layout.layers:
        if layer.whole:
            refine[refined_name(layer.network, f"{layer.name}.weight")] = layer.weight
            refine |= {refined_name(layer.network, f"{layer.name}.bias"): (layer.out,)} if layer.bias else {}
        else:
            down, up = layer.lora(layout.rank)
            adapters[LORA_FILES[layer.network]] |= {
                f"{layer.name}.lora_A.weight": down,
                f"{layer.name}.lora_B.weight": up,
            }
    with torch.device("meta"):
        refiner = Refiner(REFINERS["sd21-released"])
        assert {name: tuple(tensor.shape) for name, tensor in refined_state(refiner).items()} == refine
        add_lora(refiner)
    for name, (network, _, _) in adapted(refiner).items():
        state = get_peft_model_state_dict(network, adapter_name=ADAPTER)
        assert {key: tuple(tensor.shape) for key, tensor in state.items()} == adapters[f"lora/{name}"]


def test_the_base_lies_beside_what_refines_it(tmp_path: Path) -> None:
    base, out = tmp_path / "sd", tmp_path / "out"
    out.mkdir()
    for part in conversion.BASE_FOLDERS:
        (base / part).mkdir(parents=True)
        for name in conversion.BASE_NAMES:
            (base / part / name).write_text(part)
    conversion.place_base(base, out, ["refine.safetensors"])
    assert (out / "vae" / "config.json").read_text() == "vae"
    assert not (out / "scheduler").exists()
    (base / "scheduler").mkdir()
    (base / "scheduler" / "scheduler_config.json").write_text("{}")
    (tmp_path / "whole").mkdir()
    conversion.place_base(base, tmp_path / "whole", ["refine.safetensors"])
    assert (tmp_path / "whole" / "scheduler" / "scheduler_config.json").read_text() == "{}"
    (base / "unet" / "config.json").unlink()
    with pytest.raises(BadInput, match=r"unet/config\.json"):
        conversion.place_base(base, out, ["refine.safetensors"])
    with pytest.raises(BadInput, match="--base"):
        conversion.place_base(None, out, ["refine.safetensors", "regressor.safetensors"])
    conversion.place_base(None, out, ["regressor.safetensors"])
    (tmp_path / "one.safetensors").write_text("all")
    conversion.place_base(tmp_path / "one.safetensors", out, ["refine.safetensors"])
    assert (out / "base.safetensors").read_text() == "all"


def test_folding_is_the_products_sum() -> None:
    rng = np.random.default_rng(0)
    weight, down, up = rng.standard_normal((3, 4)), rng.standard_normal((2, 4)), rng.standard_normal((3, 2))
    assert np.allclose(folded(weight, down, up, 0.5), weight + 0.5 * up @ down, atol=1e-6)


class Evil:
    """What runs a command when an ordinary unpickler meets it."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("nested", [False, True])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, nested: bool) -> None:
    """Through the real process; the file that the command would make is not there."""
    mark = tmp_path / "owned"
    evil: object = Evil(f"touch {mark}")
    torch.save(stage_two(small_layout()) | {"extra": evil} if nested else evil, tmp_path / "gmodiff.pkl")
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=r"gmodiff\.pkl names (posix|nt)\.system, which is no tensor") as caught:
        conversion.convert([tmp_path / "gmodiff.pkl"], tmp_path / "out")
    assert "\n" not in caught.value.message
    assert not mark.exists()
    assert list((tmp_path / "out").iterdir()) == []


def packed(path: Path, stream: bytes, parts: dict[str, bytes] | None = None, method: int = zipfile.ZIP_STORED) -> Path:
    """A checkpoint with this pickle stream."""
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", stream)
        for name, data in (parts or {}).items():
            archive.writestr(f"archive/{name}", data)
    return path


def tensor(key: str = "0", elements: int = 4, offset: int = 0, size: str = "(I4\nt", stride: str = "(I1\nt") -> bytes:
    """A pickle of one float32 tensor, in protocol 0, with what it claims about itself."""
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((S'storage'\nctorch\nFloatStorage\nS'" + key.encode() + b"'\nS'cpu'\n"
        + f"I{elements}\ntQI{offset}\n{size}{stride}I00\nccollections\nOrderedDict\n(tRtR.".encode()
    )  # fmt: skip


FOUR = struct.pack("<4f", 1, 2, 3, 4)


def test_a_tensor_by_hand(tmp_path: Path) -> None:
    assert read_checkpoint(packed(tmp_path / "a", tensor(), {"data/0": FOUR})).tolist() == [1, 2, 3, 4]
    turned = tensor(size="(I2\nI2\nt", stride="(I1\nI2\nt")
    assert read_checkpoint(packed(tmp_path / "b", turned, {"data/0": FOUR})).tolist() == [[1, 3], [2, 4]]
    none = tensor(size="(I0\nI2\nt", stride="(I2\nI1\nt")
    assert read_checkpoint(packed(tmp_path / "c", none, {"data/0": FOUR})).shape == (0, 2)
    saved = {
        "half": torch.tensor([1.5], dtype=torch.float16),
        "brain": torch.tensor([[-2.5, 3.0]], dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "view": torch.arange(6.0)[2:5],
    }
    torch.save(saved, tmp_path / "d")
    found = read_checkpoint(tmp_path / "d")
    for name, value in saved.items():
        assert found[name].shape == tuple(value.shape)
        assert np.array_equal(found[name], value.detach().float().numpy()), name


@pytest.mark.parametrize(
    ("stream", "parts", "words"),
    [
        (tensor(elements=10**12), {"data/0": FOUR}, "claims 1000000000000 elements and has 16 bytes"),
        (tensor(size="(I1000000\nI1000000\nt", stride="(I0\nI0\nt"), {"data/0": FOUR}, "reaches beyond"),
        (tensor(offset=2), {"data/0": FOUR}, "reaches beyond"),
        (tensor(stride="(I2\nt"), {"data/0": FOUR}, "reaches beyond"),
        (tensor(stride="(I-1\nt"), {"data/0": FOUR}, "sizes that are none"),
        (tensor(size="(I2\nI2\nt"), {"data/0": FOUR}, "damaged"),
        (tensor(key="9"), {"data/0": FOUR}, "no part '9'"),
        (tensor(key="../../../etc/passwd"), {"data/0": FOUR}, "no part"),
        (b"cbuiltins\neval\n(S'1'\ntR.", {}, "builtins.eval"),
        (b"cnumpy\nndarray\n.", {}, "numpy.ndarray"),
        (pickle.dumps(os.system, 4), {}, r"(posix|nt)\.system"),
        (b"(S'module'\nS'x'\ntQ.", {}, "no storage"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", {}, "damaged"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", {}, "damaged"),
        (b"\x80\x02]q\x00(", {}, "damaged"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(I1\nI0\n(t(ttR.", {}, "out of something else"),
        (b"", {}, "damaged"),
    ],
)
def test_pickles_that_claim_or_name_too_much(
    tmp_path: Path, stream: bytes, parts: dict[str, bytes], words: str
) -> None:
    path = packed(tmp_path / "x.pkl", stream, parts)
    with pytest.raises(BadInput, match=words) as caught:
        read_checkpoint(path)
    assert "x.pkl" in caught.value.message
    assert "\n" not in caught.value.message


def test_archives_that_unfold_or_are_none(tmp_path: Path) -> None:
    bomb = packed(tmp_path / "bomb.pkl", tensor(), {"data/0": bytes(1 << 24)}, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 16
    with pytest.raises(BadInput, match="claims"):
        read_checkpoint(bomb)
    (tmp_path / "old.pkl").write_bytes(pickle.dumps({"a": 1}, 2))
    with pytest.raises(BadInput, match="no checkpoint in torch's zip format"):
        read_checkpoint(tmp_path / "old.pkl")
    with pytest.raises(BadInput, match="big-endian"):
        read_checkpoint(packed(tmp_path / "big.pkl", tensor(), {"data/0": FOUR, "byteorder": b"big"}))
    with zipfile.ZipFile(tmp_path / "two.pkl", "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        archive.writestr("b/data.pkl", b"N.")
    with pytest.raises(BadInput, match="2 pickles"):
        read_checkpoint(tmp_path / "two.pkl")
    with pytest.raises(BadInput, match="cannot be read"):
        read_checkpoint(tmp_path / "none.pkl")


def test_any_cut_is_said(released: Path, tmp_path: Path) -> None:
    whole = (released / "dareg_mask.pth").read_bytes()
    path = tmp_path / "cut.pth"
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(BadInput, match=r"cut\.pth"):
            read_checkpoint(path)
    rng = np.random.default_rng(0)
    for _ in range(200):
        mangled = bytearray(whole)
        for at in rng.integers(0, len(whole), 3):
            mangled[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(mangled)
        try:
            read_checkpoint(path)
        except HDRGenError as error:
            assert "cut.pth" in error.message  # noqa: PT017 - a mangled file may be whole by luck


def changed(edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    state = stage_two(small_layout())
    edit(state)
    return state


A_LORA = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.default_encoder.weight"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda s: s["state_dict_unet"].pop(A_LORA), f"state_dict_unet has no LoRA weights {A_LORA}"),
        (
            lambda s: s["state_dict_unet"].update({A_LORA: torch.ones(2, 768)}),
            f"{A_LORA} has shape .2, 768.*another base model",
        ),
        (
            lambda s: s["state_dict_unet"].update({"conv_in.base_layer.weight": torch.ones(5, 4, 3, 3)}),
            "conv_in.*has shape .5, 4, 3, 3",
        ),
        (
            lambda s: s["state_dict_vae"].update({"extra": torch.ones(1)}),
            "1 tensors that do not belong there, such as extra",
        ),
        (lambda s: s["proj"].update({"mlp.0.bias": torch.full((6,), np.nan)}), "mlp.0.bias holds NaN"),
        (lambda s: s.update(proj=[1, 2]), "proj holds list"),
        (lambda s: s.pop("proj"), "has no entry 'proj'"),
        (lambda s: s.update(rank_vae=4), "rank_vae is 4"),
        (lambda s: s.update(zzz=4), "unknown entry 'zzz'"),
    ],
)
def test_a_checkpoint_of_something_else(tmp_path: Path, edit: Callable[[dict[str, Any]], object], words: str) -> None:
    torch.save(changed(edit), tmp_path / "g.pkl")
    with pytest.raises(BadInput, match=words) as caught:
        converter.convert([tmp_path / "g.pkl"], tmp_path, small_layout())
    assert "g.pkl" in caught.value.message


def test_what_is_no_pair_of_checkpoints(released: Path, tmp_path: Path) -> None:
    first, second = files_of(released)
    with pytest.raises(BadInput, match="stage two alone"):
        converter.convert([second], tmp_path, small_layout())
    with pytest.raises(BadInput, match="second checkpoint for regressor"):
        converter.convert([first, first], tmp_path, small_layout())
    torch.save({"model": 1}, tmp_path / "other.pth")
    with pytest.raises(BadInput, match=r"neither .* \(it has model\)"):
        converter.convert([tmp_path / "other.pth"], tmp_path, small_layout())
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(BadInput, match="holds list"):
        converter.convert([tmp_path / "list.pth"], tmp_path, small_layout())


def test_the_process_refuses_other_work(tmp_path: Path) -> None:
    """The second wall: what a confined process may not do, in one that is confined."""
    import subprocess
    import sys

    program = (
        "import os, socket, subprocess\nfrom hdrgen_server.packs.confine import confine\n"
        "confine(256 << 20, 1 << 20, 60)\nsaid = []\n"
        "for work in (lambda: os.system('true'), lambda: socket.socket().connect(('127.0.0.1', 9)),\n"
        "             lambda: subprocess.run(['true']), lambda: os.fork(), lambda: bytearray(1 << 30),\n"
        "             lambda: open('big', 'wb').write(bytes(2 << 20))):\n"
        "    try:\n        work()\n        said.append('done')\n"
        "    except (Exception, MemoryError) as error:\n        said.append(type(error).__name__)\n"
        "print(' '.join(said))"
    )
    ended = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    refused = PermissionRefused.__name__
    assert ended.stdout.split() == [refused, refused, refused, refused, "MemoryError", "OSError"]


def test_the_process_answers_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(regressor(small_layout()), tmp_path / "dareg.pth")
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match=r"dareg\.pth: state_dict: intro_0\.weight has shape \(4, 6, 3, 3\), not \(64"):
        conversion.convert([tmp_path / "dareg.pth"], tmp_path / "out")
    monkeypatch.setattr(conversion, "CONVERTER", "hdrgen_server.no_such_module")
    with pytest.raises(BadInput, match="ended the process that converts it"):
        conversion.convert([tmp_path / "dareg.pth"], tmp_path / "out")


def test_main_answers_with_files_or_a_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(converter, "confine", lambda **_: None)
    monkeypatch.setattr(converter, "released_layout", small_layout)
    torch.save(regressor(small_layout()), tmp_path / "dareg.pth")
    assert converter.main([str(tmp_path), str(tmp_path / "dareg.pth")]) == 0
    assert json.loads(capsys.readouterr().out) == {"files": ["regressor.safetensors"]}
    with safe_open(tmp_path / "regressor.safetensors", "np") as stored:
        assert "head.ending.weight" in stored.keys()  # noqa: SIM118 - no mapping
    assert converter.main([str(tmp_path), str(tmp_path / "none.pth")]) == 0
    assert json.loads(capsys.readouterr().out)["error"] == "storage"
    (tmp_path / "regressor.safetensors").write_bytes((tmp_path / "regressor.safetensors").read_bytes()[:900])
    with pytest.raises(SafetensorError):
        load_file(tmp_path / "regressor.safetensors")


def test_what_needs_converting(tmp_path: Path) -> None:
    (tmp_path / "a.pth").touch()
    (tmp_path / "b.PKL").touch()
    (tmp_path / "notes.txt").touch()
    assert [p.name for p in conversion.checkpoints_in(tmp_path)] == ["a.pth", "b.PKL"]
    assert conversion.checkpoints_in(tmp_path / "a.pth") == (tmp_path / "a.pth",)
    (tmp_path / "pack.toml").touch()
    assert conversion.checkpoints_in(tmp_path) == ()
    for name in ("notes.txt", "none"):
        with pytest.raises(BadInput, match=name):
            conversion.checkpoints_in(tmp_path / name)
