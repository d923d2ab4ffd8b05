"""Small Qwen-Image configurations and networks for tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from diffusers.models.transformers.transformer_qwenimage import QwenImageTransformer2DModel
from torch import Tensor, nn

from hdrgen_server.packs.manifest import Pack, read_pack
from hdrgen_server.systems.qwenlog.config import (
    CONFIGS,
    S_FLOW,
    FlowConfig,
    QwenConfig,
    TextConfig,
    TransformerConfig,
    VAEConfig,
)
from hdrgen_server.systems.qwenlog.model import QwenImage

torch.set_num_threads(1)
TINY_TRANSFORMER = TransformerConfig(4, 2, 2, 16, 12, (4, 6, 6))
TINY_VAE = VAEConfig(8, 4, (1, 2, 2, 2), 1, (0.1, -0.2, 0.3, 0.0), (1.5, 0.7, 1.0, 2.0))
TINY = QwenConfig(TINY_TRANSFORMER, TINY_VAE, TextConfig("wordllama", 12, 16), S_FLOW, 128)
PUBLISHED = CONFIGS["published"]
PUBLISHED_FLOW = FlowConfig()


class LetterText:
    """One token a word, made from its letters: no package, any width."""

    def __init__(self, width: int = 12) -> None:
        self.width = width

    def encode(self, prompt: str) -> Tensor:
        rows = [torch.Generator().manual_seed(sum(map(ord, word))) for word in [*prompt.split(), "."]]
        return torch.stack([torch.randn(self.width, generator=generator) for generator in rows])

    def modules(self) -> tuple[nn.Module, ...]:
        return ()


def random_transformer(config: QwenConfig = TINY, seed: int = 0) -> QwenImageTransformer2DModel:
    """A transformer with random weights, the output's too."""
    torch.manual_seed(seed)
    return QwenImageTransformer2DModel(**config.transformer.arguments()).eval()


def random_vae(config: QwenConfig = TINY, seed: int = 1) -> AutoencoderKLQwenImage:
    """A VAE with random weights."""
    torch.manual_seed(seed)
    return AutoencoderKLQwenImage(**config.vae.arguments()).eval()


def tiny_model(config: QwenConfig = TINY) -> QwenImage:
    """A whole system of random networks."""
    return QwenImage(config, random_transformer(config), random_vae(config), LetterText(config.text.width))


def reduced(layers: int = 1) -> QwenConfig:
    """The published widths at a reduced depth."""
    return replace(PUBLISHED, transformer=replace(PUBLISHED.transformer, layers=layers))


def manifest(folder: Path, system: str = "qwenlog", config: str = "s", options: str = "") -> Pack:
    """Write a pack.toml that names no files, and read it."""
    folder.mkdir(parents=True, exist_ok=True)
    head = f'format = 1\nname = "tiny"\nsystem = "{system}"\nlicence = "Apache-2.0"\n[options]\nconfig = "{config}"\n'
    (folder / "pack.toml").write_text(head + options)
    return read_pack(folder)


def write_folder(folder: Path, config: QwenConfig = TINY, dtype: torch.dtype = torch.float32) -> Path:
    """Transformer, VAE and scheduler as diffusers saves them."""
    random_transformer(config).to(dtype).save_pretrained(folder / "transformer")
    random_vae(config).to(dtype).save_pretrained(folder / "vae")
    (folder / "scheduler").mkdir()
    table = {"_class_name": "FlowMatchEulerDiscreteScheduler", **config.flow.arguments()}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(table))
    return folder
