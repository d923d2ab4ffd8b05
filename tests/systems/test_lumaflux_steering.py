"""The steered transformer: the frozen one at the start, every module with its effect and gradient, parts of a grid."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from lumaflux_cases import TINY, new_adapters, random_flux, stirred
from torch.nn import functional as F

from hdrgen_server.systems.lumaflux.adapters import Adapters, Conditions
from hdrgen_server.systems.lumaflux.steered import SteeredFlux, packed, token_places, unpacked
from hdrgen_server.systems.lumaflux.steering import View, sinusoids

SIDE = 24
TIME = torch.tensor([0.4])


def picture(seed: int = 3, side: int = SIDE) -> torch.Tensor:
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))


def shown(seed: int = 4) -> torch.Tensor:
    config = TINY.encoder
    return torch.randn(1, config.side**2, config.hidden_size, generator=torch.Generator().manual_seed(seed))


def latent(seed: int = 5, side: int = SIDE) -> torch.Tensor:
    cells = side // TINY.vae.factor
    return torch.randn(1, 4, cells, cells, generator=torch.Generator().manual_seed(seed))


def plain(transformer, conditions: Conditions, z: torch.Tensor) -> torch.Tensor:
    (found,) = transformer(
        hidden_states=packed(z),
        encoder_hidden_states=conditions.context,
        pooled_projections=conditions.pooled,
        timestep=TIME,
        img_ids=token_places(*conditions.view.size, z),
        txt_ids=torch.zeros(conditions.context.shape[1], 3),
        guidance=torch.ones(1),
        return_dict=False,
    )
    return unpacked(found, *z.shape[2:])


@torch.no_grad()
def test_before_training_it_is_the_frozen_transformer_bit_for_bit():
    adapters, z = new_adapters(), latent()
    conditions = adapters.condition(picture(), shown())
    before = plain(random_flux(), conditions, z)
    steered = SteeredFlux(random_flux())
    assert torch.equal(steered.velocity(adapters, conditions, z, TIME), before)
    stirred(adapters)
    conditions = replace(adapters.condition(picture(), shown()), context=conditions.context, pooled=conditions.pooled)
    assert not torch.allclose(steered.velocity(adapters, conditions, z, TIME), before, atol=1e-3)
    assert torch.equal(plain(steered.plain(), conditions, z), before)


MODULES = ("pga.up", "pga.p_v", "pga.w_r", "pcm.mlp.2", "coupler.w_p.2", "coupler.w_c.2")


@torch.no_grad()
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("block", ["transformer_blocks.0", "single_transformer_blocks.1"])
def test_every_module_of_a_block_changes_the_velocity(module, block):
    adapters, z = stirred(new_adapters()), latent()
    steered = SteeredFlux(random_flux())
    conditions = adapters.condition(picture(), shown())
    before = steered.velocity(adapters, conditions, z, TIME)
    for parameter in adapters.transformer.get_submodule(f"{block}.{module}").parameters():
        parameter.add_(torch.randn_like(parameter))
    assert not torch.equal(steered.velocity(adapters, conditions, z, TIME), before)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_adapter_and_no_frozen_weight(checkpointing):
    adapters = stirred(new_adapters())
    transformer = random_flux().train()
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    steered = SteeredFlux(transformer)
    conditions = adapters.condition(picture(), shown())
    steered.velocity(adapters, conditions, latent(), TIME).square().mean().backward()
    without = [n for n, p in adapters.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert [name for name in without if not name.startswith("rqs.")] == []
    assert all(p.grad is None for p in transformer.parameters())


@torch.no_grad()
def test_context_tokens_of_a_single_stream_block_have_a_physical_gate_of_one():
    adapters = stirred(new_adapters())
    pga = adapters.transformer[1].pga
    physical = torch.randn(1, 4, TINY.adapters.physical_channels)
    tokens, statistics, spectrum = torch.randn(1, 6, 32), torch.randn(1, 16), torch.randn(1, 8)
    (weights,) = adapters.modulation(TIME)[1:2]
    change = pga(tokens, physical, statistics, spectrum, weights)
    other = pga(tokens, physical + 5, statistics, spectrum, weights)
    assert torch.equal(change[:, :2], other[:, :2])
    assert not torch.allclose(change[:, 2:], other[:, 2:])


@torch.no_grad()
def test_value_adapter_by_hand():
    """R = (alpha A B + beta I) G_phys (I + n_spec Diag(g_FFT)), head by head (the document's PGA)."""
    adapters = stirred(new_adapters())
    pga = adapters.transformer[0].pga
    x, physical = torch.randn(1, 3, 32), torch.randn(1, 3, TINY.adapters.physical_channels)
    g, r = torch.randn(1, 16), torch.rand(1, 8)
    weights = adapters.modulation(TIME)[0]
    change = pga(x, physical, g, r, weights)
    for token in range(3):
        known = torch.cat([physical[0, token], g[0]])
        gate = torch.sigmoid(pga.p_v.weight @ known + pga.p_v.bias)
        spectral = 1 + weights.spectral * F.softplus(pga.w_r.weight @ r[0] + pga.w_r.bias)
        base = weights.pga * (pga.up.weight @ pga.down.weight @ x[0, token]) + weights.shift_pga * x[0, token]
        expected = base * (gate * spectral).repeat_interleave(16)
        torch.testing.assert_close(change[0, token], expected)


@torch.no_grad()
def test_coupler_by_hand_resamples_the_encoder_grid_to_the_picture():
    adapters = stirred(new_adapters())
    coupler = adapters.transformer[0].coupler
    grid = (5, 3)
    tokens, physical = torch.randn(1, 15, 32), torch.randn(1, 15, TINY.adapters.physical_channels)
    perceptual = torch.randn(1, TINY.encoder.side**2, 32)
    weights = adapters.modulation(TIME)[0]
    found = coupler(tokens, physical, perceptual, View.whole(grid), weights)
    planes = perceptual.transpose(1, 2).reshape(1, 32, TINY.encoder.side, TINY.encoder.side)
    resampled = F.interpolate(planes, size=grid, mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
    expected = tokens + weights.coupling * (coupler.w_p(physical) + coupler.w_c(resampled))
    torch.testing.assert_close(found, expected)
    part = View(grid, slice(1, 4), slice(0, 2))
    cut = coupler(part.part(tokens), part.part(physical), perceptual, part, weights)
    torch.testing.assert_close(cut, part.part(expected))


@torch.no_grad()
def test_conditioner_starts_with_the_published_gates_for_every_block_and_time():
    adapters = new_adapters()
    for weights in adapters.modulation(torch.tensor([0.0, 1.0])):
        torch.testing.assert_close(weights.pga, torch.full((2,), 0.11920292))  # sigmoid(-2)
        torch.testing.assert_close(weights.spectral, torch.full((2,), 0.01814993))  # softplus(-4)
        assert weights.shift_pga.abs().max() == weights.shift_pcm.abs().max() == 0
        torch.testing.assert_close(weights.pcm, weights.coupling)


def test_sinusoids_at_known_angles():
    waves = sinusoids(torch.tensor([0.001]), 4)
    torch.testing.assert_close(waves, torch.tensor([[0.841471, 0.0099998, 0.540302, 0.99995]]), rtol=1e-5, atol=1e-6)


def test_tokens_and_back():
    z = torch.randn(2, 4, 6, 8)
    tokens = packed(z)
    assert tokens.shape == (2, 12, 16)
    assert torch.equal(unpacked(tokens, 6, 8), z)
    assert torch.equal(tokens[0, 1, 4:8], z[0, 1, 0:2, 2:4].flatten())


def test_adapters_are_shared_between_passes_without_a_trace():
    transformer = random_flux()
    steered = SteeredFlux(transformer)
    one, two = stirred(new_adapters()), stirred(new_adapters(seed=9), seed=10)

    @torch.no_grad()
    def run(adapters: Adapters) -> torch.Tensor:
        return steered.velocity(adapters, adapters.condition(picture(), shown()), latent(), TIME)

    first = run(one)
    assert not torch.allclose(first, run(two))
    assert torch.equal(run(one), first)


@torch.no_grad()
@pytest.mark.parametrize("module", ["pga", "spectral", "pcm", "coupler"])
def test_a_module_left_out_is_as_if_it_were_not_there(module):
    adapters, z = stirred(new_adapters()), latent()
    steered = SteeredFlux(random_flux())
    conditions = adapters.condition(picture(), shown())
    whole = steered.velocity(adapters, conditions, z, TIME)
    adapters.without = frozenset({module})
    part = steered.velocity(adapters, conditions, z, TIME)
    assert not torch.equal(part, whole)
    name = {"spectral": "pga.w_r"}.get(module, module)
    for block in range(3):
        for parameter in adapters.transformer[block].get_submodule(name).parameters():
            parameter.add_(torch.randn_like(parameter))
    assert torch.equal(steered.velocity(adapters, conditions, z, TIME), part)
