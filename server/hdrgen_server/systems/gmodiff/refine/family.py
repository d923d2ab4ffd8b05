"""Which base models stage two can stand on: what their own configuration files must say, checked before any weights.

It owns the tables of settings and the complaints about them. It must not know torch, weights or how they are loaded.
Shapes alone do not tell everything: heads, activations and what the network predicts differ under the same shapes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hdrgen_server.systems.gmodiff.refine.config import RefinerConfig
from nuke_hdrgen.wire.errors import BadInput

CONFIG = "config.json"
SCHEDULER = Path("scheduler") / "scheduler_config.json"
# What a configuration must state, and what may be left out and then has the same value.
STATED = (
    "block_out_channels", "layers_per_block", "latent_channels", "norm_num_groups", "cross_attention_dim",
    "attention_head_dim",
)  # fmt: skip
ARITHMETIC = (
    "act_fn", "center_input_sample", "downsample_padding", "flip_sin_to_cos", "freq_shift", "mid_block_scale_factor",
    "norm_eps", "only_cross_attention", "use_linear_projection",
)  # fmt: skip
# Latents are scaled and nothing else.
ABSENT = ("shift_factor", "latents_mean", "latents_std")
NEEDED = "name Stable Diffusion 2.1 base (the one for 512 pixels)"
# Stability AI's ModelSpec, metadata of single files: what the network predicts.
MODELSPEC_PREDICTION, MODELSPEC_ARCHITECTURE = "modelspec.prediction_type", "modelspec.architecture"


def check_folder(config: RefinerConfig, source: Path) -> None:
    """Compare a diffusers folder's configuration files with what stage two needs.

    Raises BadInput naming the file, the key and both values: another family or size, another noise schedule, or a
    network that predicts velocity (Stable Diffusion 2.1 for 768 pixels) rather than noise.
    """
    latent = config.vae.latent_channels
    check_config(source / "vae", config.vae.arguments(), source)
    check_config(source / "unet", config.unet.arguments(latent, latent), source)
    path = source / SCHEDULER
    if path.is_file():
        schedule = config.schedule
        wanted = {
            "prediction_type": "epsilon",
            "num_train_timesteps": schedule.steps,
            "beta_start": schedule.beta_start,
            "beta_end": schedule.beta_end,
            "beta_schedule": "scaled_linear",
            "rescale_betas_zero_snr": False,
        }
        _compare(_table(path, "fetch or add the folder again"), {}, wanted, path)


def check_config(folder: Path, wanted: Mapping[str, object], source: Path | None = None) -> None:
    """Compare one network's config.json with the arguments that it is built from. Raises BadInput as `check_folder`."""
    found = config_of(folder, source)
    stated = {name: wanted[name] for name in STATED if name in wanted}
    arithmetic = {name: wanted[name] for name in ARITHMETIC if name in wanted}
    _compare(found, stated, {**arithmetic, **dict.fromkeys(ABSENT)}, folder / CONFIG)


def config_of(folder: Path, source: Path | None = None) -> dict[str, Any]:
    """A network's config.json. Raises BadInput when it cannot be read, with what `source` seems to be instead."""
    return _table(folder / CONFIG, _instead(source or folder))


def check_single(path: Path, metadata: Mapping[str, str], names: Iterable[str]) -> None:
    """Raises BadInput where a single file says by its metadata, or by a marker, that it predicts velocity."""
    prediction = metadata.get(MODELSPEC_PREDICTION, "epsilon")
    architecture = metadata.get(MODELSPEC_ARCHITECTURE, "")
    marked = {
        f"its metadata {MODELSPEC_PREDICTION} is {prediction}": prediction != "epsilon",
        f"its metadata {MODELSPEC_ARCHITECTURE} is {architecture}": architecture.endswith("-768-v"),
        "it has a tensor v_pred": "v_pred" in set(names),
    }
    for text, is_so in marked.items():
        if is_so:
            raise BadInput(f"{path} predicts velocity ({text}), stage two needs noise; {NEEDED}")


def _compare(found: Mapping[str, Any], stated: Mapping[str, object], rest: Mapping[str, object], path: Path) -> None:
    """`stated` must be there and equal, `rest` may be missing."""
    for name, value in {**stated, **{name: rest[name] for name in rest if name in found}}.items():
        if _plain(found.get(name)) != _plain(value):
            raise BadInput(
                f"{path}: {name} is {found.get(name)}, this pack needs {_plain(value)}: it is of another model family "
                f"or size; {NEEDED}"
            )


def _table(path: Path, advice: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read; {advice}") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} is no table of settings; fetch or add the folder again")
    return found


def _instead(source: Path) -> str:
    """What to do about a folder that lacks a configuration file."""
    if (source / "transformer").is_dir():
        return f"{source} holds a diffusion transformer, as of Flux or Stable Diffusion 3; {NEEDED}"
    single = sorted(source.glob("*.safetensors")) if source.is_dir() else []
    if single and not (source / "unet").is_dir():
        return f"to load a single file, name the file itself: {single[0]}"
    return "a base model is a folder with unet/ and vae/ as diffusers saves them"


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value
