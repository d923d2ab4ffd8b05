"""Fills a head and finds its backbone's latent space, in a pack's folder or in that of the pack that it is on.

It owns the pack's layout and options, and every complaint about them. It must not know pictures, tiles or training.

A pack holds `head.safetensors`, and `vae/` unless its base has it. Its options are `head` (a configuration's name),
`ev_low` and `ev_high` (what the head was trained on) and `backbone` (the fingerprint of the VAE it was trained on).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hdrgen_server.networks.tensors import fill
from hdrgen_server.networks.weight_files import read
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.latenthdr.config import CONFIGS, EV_HIGH, EV_LOW, Range
from hdrgen_server.systems.latenthdr.head import ExposureHead
from hdrgen_server.systems.latenthdr.spaces import LatentSpace, load_space
from hdrgen_server.systems.qwenlog.loading import VAE
from nuke_hdrgen.wire.errors import BadInput

HEAD_FILE = "head.safetensors"
RETRAIN = "train one for it with `hdrgen train latenthdr --base FOLDER`"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A head, the space that it works in, and the EVs that it knows."""

    head: ExposureHead
    space: LatentSpace
    evs: Range

    def to(self, device: torch.device) -> Loaded:
        """The same on a device."""
        self.head.to(device)
        self.space.to(device)
        return self


def load_latenthdr(pack: Pack) -> Loaded:
    """What a pack of either operation holds, on the CPU in float32.

    Raises BadInput naming the file that is missing, damaged or another model's, and a backbone that the head was not
    trained on.
    """
    name = str(pack.options.get("head", ""))
    if name not in CONFIGS:
        raise BadInput(f"pack {pack.name} has head {name!r}, which is none of {', '.join(CONFIGS)}; make it again")
    holder = pack.holder(VAE)
    space = load_space(holder.path)
    state = {key: tensor.float() for key, tensor in read(pack.path / HEAD_FILE).items()}
    entered = state.get("enter.weight")
    if entered is not None and entered.shape[1] != space.channels:
        raise BadInput(
            f"pack {pack.name}: its head takes {entered.shape[1]} latent channels, the VAE of {holder.name} has "
            f"{space.channels}; {RETRAIN}"
        )
    trained_on, found = str(pack.options.get("backbone", "")), space.fingerprint()
    if trained_on != found:
        raise BadInput(
            f"pack {pack.name}: its head was trained on the VAE {trained_on or 'of an unknown backbone'}, that of "
            f"{holder.name} is {found}; {RETRAIN}"
        )
    with torch.device("meta"):
        head = ExposureHead(CONFIGS[name], space.channels)
    fill(head, state, str(pack.path / HEAD_FILE))
    return Loaded(head.eval().requires_grad_(requires_grad=False), space, _range(pack))


def _range(pack: Pack) -> Range:
    low, high = pack.options.get("ev_low", EV_LOW), pack.options.get("ev_high", EV_HIGH)
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)) or not low < high:
        raise BadInput(f"pack {pack.name}: options ev_low {low!r} and ev_high {high!r} must be two EVs in order")
    return Range(float(low), float(high))
