"""All that LumaFlux trains, under the names that its published checkpoints have.

It owns the tree of modules, whose state is exactly a published file, and what it makes of one picture: the conditions
that every step shares. It must not know the frozen networks, hooks or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hdrgen_server.systems.lumaflux.config import LumaFluxConfig
from hdrgen_server.systems.lumaflux.physical import TONE_PLANES, Physical, PhysicalEncoder, tones_of
from hdrgen_server.systems.lumaflux.steering import BlockAdapter, Conditioner, View, start_at_zero
from hdrgen_server.systems.lumaflux.tonefield import ToneField

NULL_DEVIATION = 0.02
SHARED = "modulation."
REPEATED = "transformer.transformer_blocks.0.modulation."
"""The released code registers the shared conditioner in every block too, so its files may name it by the first one."""


@dataclass(frozen=True, eq=False)
class Conditions:
    """What a picture says to every step: its light, what it shows (`perceptual`, (B, P, width)), the transformer's
    context (B, T, joint width) and pooled vector (B, pooled width), its tones (B, 2 Q), and which part of its tokens
    `view` selects.
    """

    physical: Physical
    perceptual: Tensor
    context: Tensor
    pooled: Tensor
    tones: Tensor
    view: View

    def seen(self, view: View) -> Conditions:
        """The same picture's conditions for a part of it."""
        return replace(self, physical=replace(self.physical, tokens=view.part(self.physical.tokens)), view=view)

    def to(self, device: torch.device, dtype: torch.dtype) -> Conditions:
        """The same on a device and in the transformer's precision."""
        physical = Physical(*(x.to(device, dtype) for x in vars(self.physical).values()))
        perceptual, context, pooled = (x.to(device, dtype) for x in (self.perceptual, self.context, self.pooled))
        return Conditions(physical, perceptual, context, pooled, self.tones.to(device), self.view)


class Connector(nn.Module):
    """C_perc: the image encoder's tokens brought to another width."""

    def __init__(self, inputs: int, bottleneck: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(inputs, bottleneck), nn.SiLU(), nn.Linear(bottleneck, outputs))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, P, inputs) to (B, P, outputs)."""
        return self.proj(tokens)


class Blocks(nn.Module):
    """The transformer's blocks as the published names have them."""

    def __init__(self, config: LumaFluxConfig) -> None:
        super().__init__()
        flux = config.flux

        def some(count: int) -> nn.ModuleList:
            return nn.ModuleList(BlockAdapter(config.adapters, flux.width, flux.heads) for _ in range(count))

        self.transformer_blocks = some(flux.layers)
        self.single_transformer_blocks = some(flux.single_layers)

    def __getitem__(self, index: int) -> BlockAdapter:
        """The adapter of a block, counted from the first double-stream one to the last single-stream one."""
        double = len(self.transformer_blocks)
        found = self.transformer_blocks[index] if index < double else self.single_transformer_blocks[index - double]
        assert isinstance(found, BlockAdapter)
        return found


MODULES = ("pga", "spectral", "pcm", "coupler", "rqs")
"""What can be left out, to show what it does: PGA or its spectral gate, PCM, the coupler, the tone field."""


class Adapters(nn.Module):
    """Everything that is trained. Its state dict is a published adapter file.

    `without` names those of MODULES that are left out, as if they were not there.
    """

    def __init__(self, config: LumaFluxConfig, without: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.config, self.without = config, without
        sizes, flux = config.adapters, config.flux
        inputs = config.encoder.hidden_size
        self.null_context = nn.Parameter(NULL_DEVIATION * torch.randn(sizes.null_tokens, flux.joint_attention_dim))
        self.null_pooled = nn.Parameter(torch.zeros(flux.pooled_projection_dim))
        self.physical = PhysicalEncoder(sizes)
        self.perc_connector = Connector(inputs, sizes.bottleneck, flux.width)
        self.ctx_connector = Connector(inputs, sizes.bottleneck, flux.joint_attention_dim)
        self.pooled_from_stats = nn.Linear(sizes.statistics, flux.pooled_projection_dim)
        nn.init.zeros_(self.pooled_from_stats.weight)
        self.modulation = Conditioner(flux.blocks, sizes.modulation)
        self.transformer = Blocks(config)
        self.rqs = ToneField(sizes, config.vae.latent_channels, config.peak_nits)
        if sizes.tones:
            self.tone_connector = Connector(TONE_PLANES * len(sizes.tones), sizes.tone_hidden, flux.width)
            start_at_zero(self.tone_connector.proj[-1])

    def condition(self, codes: Tensor, shown: Tensor) -> Conditions:
        """The conditions of SDR codes (B, 3, H, W) in [0, 1] and the image encoder's tokens of them (B, P, inputs)."""
        cell = self.config.cell
        physical = self.physical(codes, cell)
        null = self.null_context.expand(len(codes), -1, -1)
        tones = tones_of(codes.float(), self.config.adapters.tones)
        perceptual = self.perc_connector(shown)
        if self.config.adapters.tones:
            perceptual = perceptual + self.tone_connector(tones)[:, None]
        return Conditions(
            physical,
            perceptual,
            torch.cat([null, self.ctx_connector(shown)], dim=1),
            self.null_pooled + self.pooled_from_stats(physical.statistics),
            tones,
            View.whole((codes.shape[2] // cell, codes.shape[3] // cell)),
        )


def parameter_groups(adapters: Adapters) -> dict[str, int]:
    """How many parameters each part has, by the names of the released code's own breakdown."""
    found: dict[str, int] = {}
    for name, parameter in adapters.named_parameters():
        group = _group_of(name)
        found[group] = found.get(group, 0) + parameter.numel()
    return found


_GROUPS: Mapping[str, str] = {
    "physical": "physical", "perc_connector": "connector", "tone_connector": "connector", "ctx_connector": "context",
    "modulation": "modulation", "null_context": "null and pooled", "null_pooled": "null and pooled",
    "pooled_from_stats": "null and pooled",
}  # fmt: skip


def _group_of(name: str) -> str:
    parts = name.split(".")
    if parts[0] == "transformer":
        return parts[3]
    return parts[1] if parts[0] == "rqs" else _GROUPS[parts[0]]


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A published file's tensors under this tree's names."""
    return {
        SHARED + name.removeprefix(REPEATED) if name.startswith(REPEATED) else name: tensor
        for name, tensor in state.items()
    }
