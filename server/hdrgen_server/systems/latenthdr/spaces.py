"""The one seam to a backbone: its latent space, from pictures to posterior means and back.

It owns how a VAE's means are scaled as its backbone wants them, for the two classes of VAE that the project has, and
which of them a folder holds. It must not know heads, exposures, tiles or packs. Pictures are (B, 3, H, W) nominally in
[-1, 1], H and W multiples of `factor`; nothing is clamped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_kl_qwenimage import AutoencoderKLQwenImage
from safetensors import SafetensorError
from torch import Tensor

from hdrgen_server.networks.tensors import fill
from hdrgen_server.networks.weight_files import first_line, read
from hdrgen_server.systems.qwenlog import stills
from hdrgen_server.systems.qwenlog.loading import VAE, table_of
from nuke_hdrgen.wire.errors import BadInput

CONFIG_FILE = "config.json"
PRINT_DIGITS = 16


class LatentSpace(Protocol):
    """A VAE as the head sees it."""

    channels: int
    factor: int
    device: torch.device

    def encode(self, pictures: Tensor) -> Tensor:
        """Posterior means (B, channels, H / factor, W / factor), scaled as the backbone wants them."""
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """The pictures of latents."""
        ...

    def to(self, device: torch.device) -> LatentSpace:
        """The same on a device."""
        ...

    def fingerprint(self) -> str:
        """What tells this VAE's weights from all others', whatever precision a file had them in."""
        ...


class KLSpace:
    """An `AutoencoderKL`: Stable Diffusion's, FLUX.1's and the small one. z = (mean - shift) x scale."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae: Any = vae.eval().requires_grad_(requires_grad=False)
        settings: Any = vae.config
        self.channels, self.factor = int(settings.latent_channels), 1 << (len(settings.block_out_channels) - 1)
        self.device = torch.device("cpu")
        self._scale, self._shift = float(settings.scaling_factor), float(settings.shift_factor or 0.0)

    def encode(self, pictures: Tensor) -> Tensor:
        """Posterior means, shifted and scaled."""
        return (self.vae.encode(pictures).latent_dist.mode() - self._shift) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        """The pictures of latents."""
        return self.vae.decode(latents / self._scale + self._shift).sample

    def to(self, device: torch.device) -> KLSpace:
        """The same on a device."""
        self.vae.to(device)
        self.device = device
        return self

    def fingerprint(self) -> str:
        """Of all weights."""
        return _fingerprint(self.vae.state_dict())


class QwenSpace:
    """An `AutoencoderKLQwenImage` on stills: z = (mean - latents_mean) / latents_std, channel by channel."""

    def __init__(self, vae: AutoencoderKLQwenImage) -> None:
        self.vae = stills.for_stills(vae.eval().requires_grad_(requires_grad=False))
        settings: Any = vae.config
        self.channels, self.factor = int(settings.z_dim), 1 << (len(settings.dim_mult) - 1)
        self.device = torch.device("cpu")
        self._mean = torch.tensor(settings.latents_mean)[None, :, None, None]
        self._deviation = torch.tensor(settings.latents_std)[None, :, None, None]

    def encode(self, pictures: Tensor) -> Tensor:
        """Posterior means, each channel with zero mean and unit deviation."""
        mean, _ = stills.encode(self.vae, pictures)
        return (mean - self._mean) / self._deviation

    def decode(self, latents: Tensor) -> Tensor:
        """The pictures of latents."""
        return stills.decode(self.vae, latents * self._deviation + self._mean)

    def to(self, device: torch.device) -> QwenSpace:
        """The same on a device."""
        module: Any = self.vae
        module.to(device)
        self._mean, self._deviation = self._mean.to(device), self._deviation.to(device)
        self.device = device
        return self

    def fingerprint(self) -> str:
        """Of what stills meet: a VAE that is stored for stills alone is the same."""
        return _fingerprint(stills.last_taps(self.vae.state_dict(), self.vae))


def load_space(folder: Path) -> LatentSpace:
    """The latent space of a folder: a VAE as diffusers saves it, or one that holds it as vae/; its config.json says
    which class. Raises BadInput naming the file and what in it is wrong.
    """
    place = folder / VAE if (folder / VAE).is_dir() else folder
    if not (place / CONFIG_FILE).is_file():
        raise BadInput(f"{place} has no {CONFIG_FILE}; name the folder of a VAE, or one with vae/ in it")
    table = table_of(place / CONFIG_FILE)
    name = str(table.get("_class_name", ""))
    if name == AutoencoderKL.__name__:
        return KLSpace(_kl(place))
    if name == AutoencoderKLQwenImage.__name__:
        return QwenSpace(_qwen(place, table))
    raise BadInput(
        f"{place / CONFIG_FILE} is of class {name or 'unknown'!r}; a head works on AutoencoderKL or "
        "AutoencoderKLQwenImage: give a folder of one of these"
    )


def _kl(place: Path) -> AutoencoderKL:
    try:
        found: Any = AutoencoderKL.from_pretrained(
            place, local_files_only=True, use_safetensors=True, torch_dtype=torch.float32, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"{place} cannot be loaded: {first_line(error)}; fetch or add it again") from error
    vae, notes = found
    lacking = [*notes["missing_keys"], *(str(key[0]) for key in notes["mismatched_keys"])]
    if lacking:
        raise BadInput(f"{place} has no tensor {min(lacking)} of the right shape; fetch or add it again")
    return vae


def _qwen(place: Path, table: Mapping[str, Any]) -> AutoencoderKLQwenImage:
    with torch.device("meta"):
        made: Any = AutoencoderKLQwenImage.from_config(dict(table))
    vae: AutoencoderKLQwenImage = made
    state: dict[str, Tensor] = {}
    for path in sorted(place.glob("*.safetensors")):
        state |= read(path)
    fill(vae, stills.all_taps({name: tensor.float() for name, tensor in state.items()}, vae), str(place))
    return vae


def _fingerprint(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()[:PRINT_DIGITS]
