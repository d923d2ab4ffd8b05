"""The linear start: an untrained autoencoder is a plain reduction and enlargement, and all of it can learn.

And the weights that came of it: they fit the configuration and keep colours better than the start does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

import hdrgen_server.packs
from hdrgen_server.systems.gmodiff.refine.config import REFINERS, VAEConfig
from hdrgen_server.training.linear_start import start_linear

SHAPES = [
    VAEConfig((12, 24), layers_per_block=1, norm_num_groups=4),
    VAEConfig((16, 16, 16), layers_per_block=2, norm_num_groups=4),
    REFINERS["s"].vae,
]


def started(config: VAEConfig) -> AutoencoderKL:
    torch.manual_seed(5)
    model = AutoencoderKL(**config.arguments())
    start_linear(model)
    return model


def round_trip(model: Any, pictures: Tensor) -> Tensor:
    return model.decode(model.encode(pictures).latent_dist.mode()).sample


def smooth_picture() -> Tensor:
    """Colour ramps within 0.8 of grey, (1, 3, 64, 64)."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    return 0.8 * torch.stack([x, y, (x - y) / 2])[None]


@pytest.mark.parametrize("config", SHAPES)
def test_colours_come_through_where_no_detail_is(config: VAEConfig) -> None:
    picture = smooth_picture()
    with torch.inference_mode():
        error = (round_trip(started(config).eval(), picture) - picture)[..., 16:-16, 16:-16]
    assert float(error.abs().max()) < 0.12


def test_a_latent_is_the_mean_of_its_block() -> None:
    torch.manual_seed(1)
    picture = torch.rand(1, 3, 64, 64) - 0.5
    model: Any = started(REFINERS["s"].vae).eval()
    with torch.inference_mode():
        posterior = model.encode(picture).latent_dist
    means = F.avg_pool2d(picture, 8)
    latents = posterior.mode()[:, :3]
    assert float((latents - latents.mean() - (means - means.mean())).abs().max()) < 0.01
    assert float(posterior.std.max()) < 0.1


def test_every_weight_learns_within_two_steps() -> None:
    model: Any = started(SHAPES[0])
    torch.manual_seed(2)
    picture = torch.rand(2, 3, 32, 32) - 0.5
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    moved: set[str] = set()
    for _ in range(3):
        posterior = model.encode(picture).latent_dist
        ((model.decode(posterior.sample()).sample - picture).abs().mean() + 1e-3 * posterior.kl().mean()).backward()
        moved |= {n for n, p in model.named_parameters() if p.grad is not None and float(p.grad.abs().sum()) > 0}
        optimiser.step()
        optimiser.zero_grad()
    still = {name for name, _ in model.named_parameters()} - moved
    assert still == set()


def test_the_shipped_weights_fit_their_configuration_and_keep_colours() -> None:
    folder = Path(hdrgen_server.packs.__file__).parent / "weights" / "vae-s"
    model = AutoencoderKL.from_pretrained(folder).eval()
    config = REFINERS["s"].vae
    arguments = {name: value for name, value in config.arguments().items() if name != "scaling_factor"}
    assert {name: _plain(model.config[name]) for name in arguments} == {n: _plain(v) for n, v in arguments.items()}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 6e6
    picture = smooth_picture()
    with torch.inference_mode():
        error = (round_trip(model.float(), picture) - picture)[..., 16:-16, 16:-16]
        latents = model.encode(picture).latent_dist.mode() * model.config.scaling_factor
    assert float(error.abs().mean()) < 0.04
    assert 0.3 < float(latents.std()) < 3


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
