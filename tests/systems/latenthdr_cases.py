"""Small LatentHDR heads and packs for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file

from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import Pack, read_pack
from hdrgen_server.systems.gmodiff.refine.config import VAEConfig
from hdrgen_server.systems.latenthdr.config import HeadConfig
from hdrgen_server.systems.latenthdr.head import ExposureHead
from hdrgen_server.systems.latenthdr.spaces import load_space

torch.set_num_threads(1)
TINY_HEAD = HeadConfig((8, 12), middle=1, bands=4, condition=8)
TINY_VAE = VAEConfig((8, 16, 16), layers_per_block=1, norm_num_groups=4, scaling_factor=0.7, sample_size=32)
MANIFEST = """format = 1
name = "{name}"
system = "latenthdr"
operation = "{operation}"
licence = "Apache-2.0"
{more}
[options]
head = "tiny"
backbone = "{backbone}"
{options}
"""


def new_head(channels: int = 4, seed: int = 0, amount: float = 0.05) -> ExposureHead:
    """A head with noise on every parameter, so that no path is without effect."""
    torch.manual_seed(seed)
    head = ExposureHead(TINY_HEAD, channels).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=amount)
    return head.requires_grad_(requires_grad=False)


def write_vae(folder: Path, seed: int = 1) -> Path:
    """A random AutoencoderKL as diffusers saves it."""
    torch.manual_seed(seed)
    AutoencoderKL(**TINY_VAE.arguments(), shift_factor=0.1).save_pretrained(folder)
    return folder


def write_pack(folder: Path, *, options: str = "", channels: int = 4, backbone: str | None = None) -> Pack:
    """A pack of sdr2hdr with a random VAE and head."""
    folder.mkdir(parents=True, exist_ok=True)
    write_vae(folder / "vae")
    save_file(dict(new_head(channels).state_dict()), folder / "head.safetensors")
    backbone = load_space(folder).fingerprint() if backbone is None else backbone
    text = MANIFEST.format(name="latenthdr-tiny", operation="sdr2hdr", more="", backbone=backbone, options=options)
    (folder / "pack.toml").write_text(text)
    (folder / "pack.toml").write_bytes(finished_manifest(folder))
    return read_pack(folder)
