"""Txt2HDR by LatentHDR: one pass of the base pack's generator, then the head, the stack and its merge.

It owns the order of a prompt's job. It must not know sockets, files or how anything was trained. What a request means,
prompts and start pictures are `qwenlog`'s. The base latent is of log codes; the head learned from such.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from hdrgen_server.contracts.descriptor import Descriptor
from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Progress, Request
from hdrgen_server.networks.offload import helps, place
from hdrgen_server.networks.weight_files import read
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.systems.latenthdr.loading import Loaded, load_latenthdr
from hdrgen_server.systems.latenthdr.merge import Merged
from hdrgen_server.systems.latenthdr.merged import asked_evs, merge_stack
from hdrgen_server.systems.latenthdr.stack import StackMaker
from hdrgen_server.systems.qwenlog import lora
from hdrgen_server.systems.qwenlog.frame import ON_CPU, ON_CUDA, PictureMaker, Tiling
from hdrgen_server.systems.qwenlog.loading import LORA_FILE
from hdrgen_server.systems.qwenlog.model import QwenImage
from hdrgen_server.systems.qwenlog.operator import (
    CodeLook,
    Light,
    Order,
    config_of,
    framed,
    load_model,
    look_of,
    order_of,
    tiles_of,
)
from nuke_hdrgen.wire.errors import BadInput

GENERATOR = "qwenlog"


def create_generated(pack: Pack, device: str) -> PromptOperator:
    """Load a pack of txt2hdr and the generator that it is on. Raises BadInput where that is none, or does not match."""
    base = pack.base
    if base is None or base.system != GENERATOR:
        has = "none" if base is None else f"{base.name}, a pack of {base.system}"
        raise BadInput(
            f"pack {pack.name} draws with a pack of {GENERATOR} as its base and has {has}; set base in its manifest, "
            "or use a pack of qwenlog"
        )
    config, look = config_of(base), look_of(base)
    loaded = load_latenthdr(pack)
    model = load_model(config, base, device)
    if (pack.path / LORA_FILE).is_file():
        if (base.path / LORA_FILE).is_file():
            raise BadInput(f"packs {pack.name} and {base.name} both adapt the transformer; name a base without a LoRA")
        lora.load(model.transformer, read(pack.path / LORA_FILE), str(pack.path / LORA_FILE))
    on = torch.device(device)
    tiling = ON_CUDA if on.type == "cuda" else ON_CPU
    return PromptOperator(pack.descriptor, loaded.to(on), model, look, tiling, pack.name)


class PromptOperator:
    """A loaded pack of txt2hdr. One job at a time."""

    def __init__(
        self, descriptor: Descriptor, loaded: Loaded, model: QwenImage, look: CodeLook, tiling: Tiling, name: str
    ) -> None:
        self._descriptor, self.loaded, self.model, self.look = descriptor, loaded, model, look
        self._tiling, self._name = tiling, name
        self._rung = 0

    @property
    def descriptor(self) -> Descriptor:
        """What the system says about itself."""
        return self._descriptor

    def set_rung(self, rung: int) -> None:
        """Rung 2 and above halve the VAE's tiles; on the last, transformer and text encoder wait in main memory."""
        self._rung = rung
        for network in (self.model.transformer, *self.model.text.modules()):
            place(network, self.model.device, offloaded=helps(self.model.device, rung))

    def run(self, request: Request, frames: Iterable[Frame], progress: Progress) -> Iterator[Frame]:
        """Yield one picture of `width` x `height`, linear Rec.709, mid-grey at 0.18.

        The generator runs once, whatever the stack. Where the darkest exposure clips, light is the brighter of the
        stack's and what the base latent itself decodes to, so that a sun keeps its energy. A start picture is taken up
        at `strength`; at 0 its own latent is the base. `aovs` adds the exposures. Raises BadParameter for prompts,
        sizes and EVs that cannot be, BadInput for a start picture of another shape.
        """
        parameters = request.parameters
        evs = asked_evs(parameters, self.loaded.evs, self._name)
        order = order_of(self._descriptor, self.model, request, frames)
        drive = order.drive
        tiling = tiles_of(self._tiling, self.model, int(parameters["tile"]), self._rung)
        before = [0]
        size = drive.height, drive.width
        head, space = self.loaded.head, self.loaded.space
        stack = StackMaker(
            head, space, size, evs, tiling, lambda done, total: progress.step(before[0] + done, before[0] + total),
            passes=1, panorama=drive.panorama,
        )  # fmt: skip

        def drawing(done: int, total: int) -> None:
            before[0] = total
            progress.step(done, total + stack.total)

        base = self._base(order, PictureMaker(self.model, drive, tiling, drawing))
        stacked = merge_stack(stack.stack(base), size, aovs=request.aovs)
        with torch.inference_mode():
            own = self.look.light_of(stack.decode(base)[0], aovs=False)
        stack.finished()
        light_hwc = beyond(stacked.merged, own)
        yield framed(self._descriptor, self.model, order, Light(light_hwc, dict(stacked.layers)))

    def _base(self, order: Order, maker: PictureMaker) -> Tensor:
        begin_hwc = None if order.start_hwc is None else self.look.picture_of(order.start_hwc)
        return maker.latents(order.prompts, begin_hwc, order.strength)


def beyond(merged: Merged, own: Light) -> np.ndarray:
    """Merged light, (H, W, 3), and where every exposure clips the brighter of it and the base's own."""
    light_hwc = merged.scene_linear_hwc
    return np.where(merged.clipped_hw[..., None], np.maximum(light_hwc, own.scene_linear_hwc), light_hwc)
