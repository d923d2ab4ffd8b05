"""A frozen Flux transformer whose blocks LumaFlux steers from outside: its own code and weights stay as they are.

It owns the hooks on diffusers' blocks, the packing of latents into tokens and the call. It must not know VAEs, image
encoders, schedules or files.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn

from hdrgen_server.systems.lumaflux.adapters import Adapters, Conditions
from hdrgen_server.systems.lumaflux.config import PATCH
from hdrgen_server.systems.lumaflux.steering import Weights


@dataclass(frozen=True, eq=False)
class _Pass:
    """What the hooks need during one call of the transformer."""

    adapters: Adapters
    conditions: Conditions
    weights: list[Weights]


class SteeredFlux:
    """One frozen transformer with hooks; the adapters come with each call, so that several can share it."""

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        self.transformer = transformer.requires_grad_(requires_grad=False)
        self._now: _Pass | None = None
        blocks: list[Any] = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        for index, block in enumerate(blocks):
            block.register_forward_pre_hook(self._before(index), with_kwargs=True)
            block.attn.to_v.register_forward_hook(self._values(index))
            block.register_forward_hook(self._after(index))

    def velocity(self, adapters: Adapters, conditions: Conditions, latent: Tensor, time: Tensor) -> Tensor:
        """The velocity (B, C, h, w) at latents of that shape and flow times (B,) in [0, 1].

        `conditions` are on the transformer's device and in its precision, and their view is as large as the latent's
        token grid.
        """
        config = adapters.config
        tokens = packed(latent)
        weights = adapters.modulation(time.to(adapters.null_pooled.device))
        if "spectral" in adapters.without:
            weights = [replace(block, spectral=torch.zeros_like(block.spectral)) for block in weights]
        self._now = _Pass(adapters, conditions, weights)
        guidance = torch.full_like(time, config.guidance) if config.flux.guidance_embeds else None
        transformer: Any = self.transformer
        try:
            (found,) = transformer(
                hidden_states=tokens,
                encoder_hidden_states=conditions.context,
                pooled_projections=conditions.pooled,
                timestep=time.to(tokens.dtype),
                img_ids=token_places(*conditions.view.size, tokens),
                txt_ids=torch.zeros(conditions.context.shape[1], 3, dtype=tokens.dtype, device=tokens.device),
                guidance=guidance,
                return_dict=False,
            )
        finally:
            if not torch.is_grad_enabled():
                self._now = None  # a backward pass that recomputes blocks still needs it
        return unpacked(found, latent.shape[2], latent.shape[3])

    def plain(self) -> FluxTransformer2DModel:
        """The transformer with no pass in progress: as it was before."""
        self._now = None
        return self.transformer

    def _with(self, module: str) -> _Pass | None:
        """The pass in progress, None where there is none or it leaves this module out."""
        now = self._now
        return None if now is None or module in now.adapters.without else now

    def _before(self, index: int) -> Any:
        def hook(block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
            del block
            now = self._with("pcm")
            if now is None:
                return None
            tokens = given[0] if given else named["hidden_states"]
            pcm = now.adapters.transformer[index].pcm
            tokens = pcm(tokens, now.conditions.perceptual, now.weights[index])
            return ((tokens, *given[1:]), named) if given else (given, {**named, "hidden_states": tokens})

        return hook

    def _values(self, index: int) -> Any:
        def hook(layer: nn.Module, given: tuple[Tensor, ...], values: Tensor) -> Tensor | None:
            del layer
            now = self._with("pga")
            if now is None:
                return None
            physical = now.conditions.physical
            pga = now.adapters.transformer[index].pga
            return values + pga(given[0], physical.tokens, physical.statistics, physical.spectrum, now.weights[index])

        return hook

    def _after(self, index: int) -> Any:
        def hook(block: nn.Module, given: tuple[Any, ...], found: tuple[Tensor, Tensor]) -> Any:
            del block, given
            now = self._with("coupler")
            if now is None:
                return None
            context, tokens = found
            conditions = now.conditions
            coupler = now.adapters.transformer[index].coupler
            tokens = coupler(
                tokens, conditions.physical.tokens, conditions.perceptual, conditions.view, now.weights[index]
            )
            return context, tokens

        return hook


def packed(latent: Tensor) -> Tensor:
    """Latents (B, C, h, w) as tokens (B, h/2 x w/2, 4 C), channel by channel as Flux has them."""
    batch, channels, height, width = latent.shape
    cells = latent.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * PATCH * PATCH)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `packed`."""
    batch, _, channels = tokens.shape
    cells = tokens.reshape(batch, height // PATCH, width // PATCH, -1, PATCH, PATCH)
    return cells.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // PATCH**2, height, width)


def token_places(rows: int, columns: int, like: Tensor) -> Tensor:
    """(rows x columns, 3): 0, row and column of each token, for the rotary embedding."""
    places = torch.zeros(rows, columns, 3, dtype=torch.float32, device=like.device)
    places[..., 1] = torch.arange(rows, device=like.device)[:, None]
    places[..., 2] = torch.arange(columns, device=like.device)
    return places.flatten(0, 1)
