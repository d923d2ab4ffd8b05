"""Base models that are another family, another prediction, or spoilt: one line that names the file and the key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from refine_cases import TINY, random_refiner
from safetensors.torch import load_file, save_file
from test_gmodiff_refine_loading import WEIGHTS, edit, write_base, write_single_file

from hdrgen_server.systems.gmodiff.refine.config import REFINERS
from hdrgen_server.systems.gmodiff.refine.family import check_folder
from hdrgen_server.systems.gmodiff.refine.loading import (
    LORA_FOLDER,
    REFINED_FILE,
    load_base,
    load_refined,
    load_vae,
    refined_state,
)
from hdrgen_server.systems.gmodiff.refine.lora import add_lora, save_lora
from nuke_hdrgen.wire.errors import BadInput

# unet/config.json and vae/config.json of published models, as far as they differ from Stable Diffusion 2.1 base.
SD21_UNET = {
    "act_fn": "silu", "attention_head_dim": [5, 10, 20, 20], "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False, "cross_attention_dim": 1024, "downsample_padding": 1, "dual_cross_attention": False,
    "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": 4, "layers_per_block": 2, "mid_block_scale_factor": 1,
    "norm_eps": 1e-05, "norm_num_groups": 32, "only_cross_attention": False, "out_channels": 4, "sample_size": 64,
    "use_linear_projection": True,
}  # fmt: skip
SD21_VAE = {
    "act_fn": "silu", "block_out_channels": [128, 256, 512, 512], "in_channels": 3, "latent_channels": 4,
    "layers_per_block": 2, "norm_num_groups": 32, "out_channels": 3, "sample_size": 768, "scaling_factor": 0.18215,
}  # fmt: skip
SCHEDULER = {
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
}  # fmt: skip
SD15 = {"attention_head_dim": 8, "cross_attention_dim": 768}
SDXL = {"attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048}
FLUX_VAE = {"latent_channels": 16, "shift_factor": 0.1159, "scaling_factor": 0.3611}


def configs(folder: Path, unet: dict[str, object], vae: dict[str, object], scheduler: dict[str, object]) -> Path:
    for part, base, changes, name in (
        ("unet", SD21_UNET, unet, "config.json"),
        ("vae", SD21_VAE, vae, "config.json"),
        ("scheduler", SCHEDULER, scheduler, "scheduler_config.json"),
    ):
        (folder / part).mkdir(parents=True)
        (folder / part / name).write_text(json.dumps({**base, **changes}))
    return folder


def one_line(error: pytest.ExceptionInfo[BadInput]) -> str:
    assert "\n" not in error.value.message
    return error.value.message


def test_the_published_configuration_is_taken(tmp_path: Path) -> None:
    check_folder(REFINERS["sd21"], configs(tmp_path, {}, {}, {}))


@pytest.mark.parametrize(
    ("unet", "vae", "scheduler", "says"),
    [
        (SD15, {}, {}, r"unet/config\.json: cross_attention_dim is 768, this pack needs 1024"),
        ({"attention_head_dim": 8}, {}, {}, r"unet/config\.json: attention_head_dim is 8"),
        (SDXL, {}, {}, r"unet/config\.json: block_out_channels is \[320, 640, 1280\]"),
        ({}, FLUX_VAE, {}, r"vae/config\.json: latent_channels is 16, this pack needs 4"),
        ({}, {"shift_factor": 0.1}, {}, r"vae/config\.json: shift_factor is 0\.1"),
        ({"freq_shift": 1}, {}, {}, r"unet/config\.json: freq_shift is 1"),
        ({}, {}, {"prediction_type": "v_prediction"}, r"scheduler_config\.json: prediction_type is v_prediction"),
        ({}, {}, {"beta_schedule": "linear"}, r"scheduler_config\.json: beta_schedule is linear"),
    ],
    ids=["SD 1.5", "heads", "SDXL", "Flux's VAE", "shifted latents", "time", "SD 2.1 for 768 pixels", "betas"],
)  # fmt: skip
def test_another_family_is_refused_by_its_own_configuration(
    tmp_path: Path, unet: dict[str, object], vae: dict[str, object], scheduler: dict[str, object], says: str
) -> None:
    with pytest.raises(BadInput, match=says) as error:
        load_base(REFINERS["sd21"], configs(tmp_path, unet, vae, scheduler))
    assert "Stable Diffusion 2.1 base" in one_line(error)


def test_what_stands_where_a_base_was_expected_is_named(tmp_path: Path) -> None:
    (tmp_path / "flux" / "transformer").mkdir(parents=True)
    with pytest.raises(BadInput, match=r"flux holds a diffusion transformer") as error:
        load_base(TINY, tmp_path / "flux")
    one_line(error)
    (tmp_path / "v2-1.safetensors").write_bytes(b"")
    with pytest.raises(BadInput, match=r"name the file itself: .*v2-1\.safetensors"):
        load_base(TINY, tmp_path)
    with pytest.raises(BadInput, match=r"nothing does not exist; give one \.safetensors file, or a folder"):
        load_base(TINY, tmp_path / "nothing")
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(BadInput, match=r"model\.ckpt is no \.safetensors file; give one, or a folder"):
        load_base(TINY, tmp_path / "model.ckpt")


def spoil(path: Path, name: str, value: float) -> None:
    state = load_file(path)
    state[name].view(-1)[-1] = value
    save_file(state, path, metadata={"format": "pt"})


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, value: float) -> None:
    folder = write_base(random_refiner(TINY), tmp_path)
    spoil(folder / "unet" / WEIGHTS, "conv_out.weight", value)
    with pytest.raises(BadInput, match=r"conv_out\.weight holds NaN or Inf; fetch") as error:
        load_base(TINY, folder)
    assert str(folder) in one_line(error)
    spoil(folder / "vae" / WEIGHTS, "decoder.conv_in.bias", value)
    with pytest.raises(BadInput, match=r"vae: tensor decoder\.conv_in\.bias holds NaN or Inf"):
        load_vae(TINY, folder / "vae")


def test_a_spoilt_adapter_is_named(tmp_path: Path) -> None:
    trained = random_refiner(TINY)
    add_lora(trained)
    save_file(refined_state(trained), tmp_path / REFINED_FILE)
    save_lora(trained, tmp_path / LORA_FOLDER)
    path = tmp_path / LORA_FOLDER / "unet.safetensors"
    name = min(load_file(path))
    spoil(path, name, float("nan"))
    with pytest.raises(BadInput, match=rf"unet\.safetensors: tensor {re.escape(name)} holds NaN") as error:
        load_refined(random_refiner(TINY), tmp_path)
    one_line(error)


Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
CROSS = "model.diffusion_model.input_blocks.3.1.transformer_blocks.0.attn2.to_k.weight"


def only(prefix: str) -> Change:
    return lambda state: {name: tensor for name, tensor in state.items() if name.startswith(prefix)}


@pytest.mark.parametrize(
    ("change", "metadata", "says"),
    [
        (only("model."), {}, r"has no tensors named first_stage_model\.\*"),
        (only("first"), {}, r"has no tensors named model\.diffusion_model\.\*"),
        (lambda s: {**s, CROSS: torch.zeros(32, 768)}, {}, r"to_k\.weight has shape \(32, 768\), not \(32, 24\)"),
        (
            lambda s: {**s, "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(16, 9, 3, 3)},
            {},
            r"conv_in\.weight has shape \(16, 9, 3, 3\), not \(16, 8, 3, 3\)",
        ),
        (
            lambda s: {
                **only("first")(s), "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": torch.zeros(2, 2)
            },
            {},
            "belongs to another model family",
        ),
        (lambda s: {**s, "v_pred": torch.zeros(0)}, {}, "predicts velocity .it has a tensor v_pred"),
        (dict, {"modelspec.prediction_type": "v"}, r"metadata modelspec\.prediction_type is v"),
        (dict, {"modelspec.architecture": "stable-diffusion-v2-768-v"}, r"metadata modelspec\.architecture is stable"),
        (
            lambda s: {**s, "first_stage_model.quant_conv.bias": torch.full((8,), torch.nan)},
            {},
            r"quant_conv\.bias holds NaN or Inf",
        ),
    ],
    ids=["no VAE", "no UNet", "SD 1.5", "inpainting", "SD 3", "marker", "prediction", "architecture", "NaN"],
)  # fmt: skip
def test_a_single_file_of_something_else_is_refused(
    tmp_path: Path, change: Change, metadata: dict[str, str], says: str
) -> None:
    path = write_single_file(random_refiner(TINY), tmp_path / "sd.safetensors")
    save_file(change(load_file(path)), path, metadata=metadata)
    with pytest.raises(BadInput, match=says) as error:
        load_base(TINY, path)
    assert str(path) in one_line(error)


def test_only_what_is_needed_of_a_single_file_is_read(tmp_path: Path) -> None:
    path = write_single_file(random_refiner(TINY), tmp_path / "sd.safetensors")
    rest = {"cond_stage_model.model.ln_final.bias": torch.full((4,), torch.nan), "model_ema.decay": torch.ones(1)}
    save_file({**load_file(path), **rest}, path, metadata={"modelspec.prediction_type": "epsilon"})
    load_base(TINY, path)


def test_a_cut_single_file_is_named(tmp_path: Path) -> None:
    path = write_single_file(random_refiner(TINY), tmp_path / "sd.safetensors")
    whole = path.read_bytes()
    for length in (0, 5, 200, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput, match=r"sd\.safetensors cannot be read as safetensors") as error:
            load_base(TINY, path)
        one_line(error)


def test_a_configuration_may_leave_out_what_it_does_not_change(tmp_path: Path) -> None:
    folder = write_base(random_refiner(TINY), tmp_path)
    path = folder / "unet" / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "norm_eps"}))
    load_base(TINY, folder)
    edit(path, attention_head_dim=8)
    with pytest.raises(BadInput, match="attention_head_dim is 8"):
        load_base(TINY, folder)
