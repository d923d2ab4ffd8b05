"""What each module of a pack is worth: one after another made the identity, on held-out data.

It owns how each module of gmodiff is silenced, and the methods that result for every system that can tell; LumaFlux's
modules are in `knockout_lumaflux`. It must not know how figures are scored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from hdrgen_server.evaluate import knockout_lumaflux
from hdrgen_server.evaluate.protocol import Method
from hdrgen_server.systems.gmodiff.operator import GMODiffOperator
from hdrgen_server.systems.gmodiff.regressor import Regressor, SetHead
from hdrgen_server.systems.lumaflux.operator import LumaFluxOperator
from hdrgen_server.training.brackets import BracketSample
from nuke_hdrgen.wire.errors import BadParameter

if TYPE_CHECKING:
    from hdrgen_server.systems.gmodiff.refine.model import Refiner

Hook = Callable[[nn.Module, Any, Any], Any]
Silence = Callable[[Regressor], list[tuple[nn.Module, Callable[[Any], Any]]]]
OPEN_GATE = 16.0


def _zero(output: Tensor) -> Tensor:
    return torch.zeros_like(output)


def _open(output: Tensor) -> Tensor:
    gate, score = output.chunk(2, dim=1)
    return torch.cat([torch.full_like(gate, OPEN_GATE), torch.zeros_like(score)], dim=1)


def _no_decoding(output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    return torch.zeros_like(output[0]), output[1]


def _head(model: Regressor) -> SetHead:
    if not isinstance(model.head, SetHead):
        raise ValueError("the knock-out table is made for the set form")
    return model.head


MODULES: Mapping[str, Silence] = {
    "backbone (encoder and decoder)": lambda m: [(m.backbone, _no_decoding)],
    "attention to the reference": lambda m: [(_head(m).attention, _open)],
    "exposure modulation": lambda m: [(_head(m).exposure, _zero)],
    "choice among exposures": lambda m: [(_head(m).choose, _zero), (_head(m).choose_merge, _zero)],
    "correction": lambda m: [(_head(m).correct, _zero)],
    "merge features": lambda m: [(_head(m).merge_intro, _zero)],
    "degradation mask head": lambda m: [(m.mask, _zero)],
}


def _unchanged(_module: nn.Module, inputs: Any, _output: Any) -> Any:
    return inputs[0]


def _nothing(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    return torch.zeros_like(output)


def _no_step(refiner: Refiner) -> Hook:
    """The noise with which Eq. 6 gives back the latent that it got."""
    channels, share = refiner.config.vae.latent_channels, (1 - refiner.signal) / refiner.noise

    def hook(_module: nn.Module, inputs: Any, output: Any) -> Any:
        output.sample = inputs[0][:, :channels] * share
        return output

    return hook


SECOND: Mapping[str, Callable[[Refiner], list[tuple[nn.Module, Hook]]]] = {
    "denoising step": lambda r: [(r.unet, _no_step(r))],
    "decoder's refinement blocks": lambda r: [(block, _unchanged) for block in r.blocks],
    "embeddings c_L": lambda r: [(r.prior, _nothing)],
    "under-exposed frame": lambda r: [(r.unet.conv_in, _without_condition(r))],
}


def _without_condition(refiner: Refiner) -> Hook:
    """conv_in as if L0's latent were zero."""
    channels = refiner.config.vae.latent_channels

    def hook(module: nn.Module, inputs: Any, _output: Any) -> Any:
        assert isinstance(module, nn.Conv2d)
        latent, condition = inputs[0][:, :channels], torch.zeros_like(inputs[0][:, channels:])
        return module.forward(torch.cat([latent, condition], dim=1))

    return hook


@contextmanager
def silenced_second(refiner: Refiner, name: str) -> Generator[None]:
    """As `silenced`, for a module of the second stage."""
    with ExitStack() as stack:
        for module, hook in SECOND[name](refiner):
            stack.callback(module.register_forward_hook(hook).remove)
        yield


@contextmanager
def silenced(model: Regressor, name: str) -> Generator[None]:
    """The model with one module made the identity (or zero, where it adds to what is there) inside the block."""
    with ExitStack() as stack:
        for module, replace in MODULES[name](model):
            handle = module.register_forward_hook(lambda _m, _i, output, f=replace: f(output))
            stack.callback(handle.remove)
        yield


def knocked_out(operator: object, method: Method, quality: str = "draft") -> dict[str, Method]:
    """A method for each module of a loaded operator without it; those of gmodiff's second stage at quality `final`.

    Raises BadParameter for a pack of another kind.
    """

    def without(block: Callable[[], AbstractContextManager[None]]) -> Method:
        def run(sample: BracketSample) -> npt.NDArray[Any]:
            with block():
                return method(sample)

        return run

    return {f"without {name}": without(block) for name, block in _blocks(operator, quality).items()}


def _blocks(operator: object, quality: str) -> Mapping[str, Callable[[], AbstractContextManager[None]]]:
    if isinstance(operator, LumaFluxOperator):
        flux = operator.model
        return {name: functools.partial(knockout_lumaflux.silenced, flux, name) for name in knockout_lumaflux.NAMES}
    if not isinstance(operator, GMODiffOperator) or not isinstance(operator.model.head, SetHead):
        raise BadParameter("only packs of lumaflux and of gmodiff's set form have a knock-out table; leave it away")
    model, second = operator.model, operator.second if quality == "final" else None
    blocks = {name: functools.partial(silenced, model, name) for name in MODULES}
    if second is not None:
        return blocks | {name: functools.partial(silenced_second, second.refiner, name) for name in SECOND}
    return blocks
