"""From checkpoints in the authors' layout to a fused bracket: what runs is what the checkpoints hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from gmodiff_cases import exposed, randomised, textured
from peft import get_peft_model_state_dict
from refine_cases import TINY, random_refiner
from torch.nn import functional as F

from hdrgen_server.contracts.frame import Frame
from hdrgen_server.contracts.operator import Request
from hdrgen_server.image.tags import SRGB_REC709_SCENE
from hdrgen_server.packs import conversion
from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import read_pack
from hdrgen_server.systems.gmodiff import convert as converter
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.operator import create
from hdrgen_server.systems.gmodiff.refine import choice
from hdrgen_server.systems.gmodiff.refine.config import REFINERS, LoraRanks
from hdrgen_server.systems.gmodiff.refine.loading import load_base, load_refined
from hdrgen_server.systems.gmodiff.refine.lora import ADAPTER, adapted, add_lora
from hdrgen_server.systems.gmodiff.refine.model import Refiner
from hdrgen_server.systems.gmodiff.refine.prior import ReleasedPrior
from hdrgen_server.systems.gmodiff.released import LISTS, Layer, Layout, regressor_name, regressor_shapes

torch.set_num_threads(1)
REGRESSOR = replace(CONFIGS["released"], widths=(4, 6, 8), encoder=(1, 1), decoder=(1, 1), strides=(2, 4), mask_width=2)
REFINER = replace(
    REFINERS["sd21-released"], vae=TINY.vae, unet=TINY.unet, lora=LoraRanks(4, 4, 4, alpha=8), token=8,
    regressor="tiny-released",
)  # fmt: skip
WHOLE_SCALE = 8 / 4


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "tiny-released", REGRESSOR)
    monkeypatch.setattr(choice, "REFINERS", {"sd21-released": REFINER})


class Quiet:
    def step(self, done: int, total: int, frame: int = 0) -> None:
        """Nothing."""


def adapter_of(name: str) -> str:
    """Which of the three adapters of the UNet holds a layer."""
    return "encoder" if "down_blocks" in name else "decoder" if "up_blocks" in name or name == "conv_out" else "others"


def held_whole(name: str, weight: torch.Tensor, bias: torch.Tensor | None, network: str, adapter: str) -> Any:
    """A layer as the checkpoint has those that are trained whole: split into a base and a low-rank part."""
    generator = torch.Generator().manual_seed(len(name))
    down = 0.1 * torch.randn((4, *weight.shape[1:]), generator=generator)
    up = 0.1 * torch.randn((len(weight), 4, *(1,) * (weight.dim() - 2)), generator=generator)
    base = weight - WHOLE_SCALE * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    state = {f"{name}.base_layer.weight": base} | ({} if bias is None else {f"{name}.base_layer.bias": bias})
    state |= {f"{name}.lora_{f}.default_{adapter}.weight": t for f, t in (("A", down), ("B", up))}
    kernel = weight.shape[2] if weight.dim() == 4 else 0
    return Layer(network, adapter, name, weight.shape[0], weight.shape[1], kernel, bias is not None), state


def as_released(refiner: Refiner) -> tuple[dict[str, Any], Layout]:
    """The checkpoint of this refiner in the authors' layout, and that layout."""
    layers: list[Layer] = []
    state: dict[str, dict[str, torch.Tensor]] = {"unet": {}, "vae": {}, "vae_c": {}}
    for file, (network, _, _) in adapted(refiner).items():
        group = {"condition": "vae_c"}.get(file, file)
        lora = get_peft_model_state_dict(network, adapter_name=ADAPTER)
        for name in sorted({key.rsplit(".lora_", 1)[0] for key in lora}):
            adapter = adapter_of(name) if group == "unet" else "decoder" if name.startswith("decoder") else "encoder"
            down, up = (lora[f"{name}.lora_{factor}.weight"] for factor in "AB")
            kernel = down.shape[2] if down.dim() == 4 else 0
            layers.append(Layer(group, adapter, name, up.shape[0], down.shape[1], kernel, bias=True))
            state[group] |= {f"{name}.lora_{f}.default_{adapter}.weight": t for f, t in (("A", down), ("B", up))}
    conv_in = refiner.unet.conv_in
    whole = [("conv_in", conv_in.weight, conv_in.bias, "unet", "encoder")]
    for index, block in enumerate(refiner.blocks, 1):
        skip = f"decoder.skip_conv_{index}"
        state["vae_c"][f"{skip}.weight"] = torch.zeros_like(block.skip.weight)
        whole.append((f"{skip}.conv1", block.skip.weight, None, "vae", "decoder"))
        whole += [(f"{skip}.mlp.{i}", block.gate[i].weight, block.gate[i].bias, "vae", "decoder") for i in (0, 2)]
    for entry in whole:
        layer, tensors = held_whole(*entry)
        layers.append(layer)
        state[layer.network] |= tensors
    projection = refiner.prior.state_dict()
    layout = Layout(tuple(layers), {k: tuple(v.shape) for k, v in projection.items()}, REGRESSOR, rank=4)
    ranks = {f"rank_{network}": 4 for network in state}
    return {f"state_dict_{n}": s for n, s in state.items()} | {"proj": projection} | {
        n: [] for n in LISTS
    } | ranks, layout


@torch.no_grad()
def test_a_released_pair_becomes_a_pack_that_computes_the_same(tmp_path: Path) -> None:
    base, weights, out = (tmp_path / name for name in ("base", "weights", "pack"))
    first = random_refiner(REFINER)
    first.vae.save_pretrained(base / "vae")
    plain = UNet2DConditionModel(**REFINER.unet.arguments(4, 4))
    plain.load_state_dict({**first.unet.state_dict(), "conv_in.weight": first.unet.conv_in.weight[:, :4]})
    plain.save_pretrained(base / "unet")
    refiner = load_base(REFINER, base).eval()
    add_lora(refiner)
    torch.manual_seed(3)
    for name, parameter in refiner.named_parameters():
        if "lora_" in name or name.startswith(("prior.", "blocks.", "unet.conv_in")):
            parameter.add_(0.05 * torch.randn_like(parameter))
    state, layout = as_released(refiner)

    regressor = randomised(REGRESSOR).eval()
    theirs = {name: regressor.state_dict()[regressor_name(name)] for name in regressor_shapes(REGRESSOR)}
    weights.mkdir()
    out.mkdir()
    torch.save(state, weights / "gmodiff.pkl")
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in theirs.items()}}, weights / "dareg.pth")
    names = converter.convert(sorted(weights.iterdir()), out, layout)
    conversion.place_base(base, out, names)
    manifest = out / "pack.toml"
    manifest.write_text(manifest.read_text().replace('"released"\nrefine', '"tiny-released"\nrefine'))

    loaded = load_base(REFINER, out)
    load_refined(loaded, out)
    loaded.eval()
    pooled = torch.rand(1, REGRESSOR.feature_channels, 3, 4)
    gain, mask, under = torch.rand(1, 3, 24, 32), torch.rand(1, 1, 24, 32), torch.rand(1, 3, 24, 32)
    expected = refiner(gain, mask, under, refiner.prior(pooled))
    found = loaded(gain, mask, under, loaded.prior(pooled))
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    untrained = load_base(REFINER, out).eval()
    assert (untrained(gain, mask, under, untrained.prior(pooled)) - expected).abs().max() > 0.01

    manifest.write_bytes(finished_manifest(out))
    operator = create(read_pack(out), "cpu")
    scene = textured(72, 88)
    frames = [Frame(exposed(scene, ev), ("R", "G", "B"), SRGB_REC709_SCENE, ev=ev) for ev in (-2.0, 0.0, 2.0)]
    request = Request("hdrfuse", operator.descriptor.resolve({}), quality="final")
    (final,) = operator.run(request, frames, Quiet())
    (draft,) = operator.run(replace(request, quality="draft"), frames, Quiet())
    assert np.isfinite(final.pixels).all()
    assert final.pixels.shape == draft.pixels.shape == (72, 88, 3)
    assert not np.array_equal(final.pixels, draft.pixels)


@torch.no_grad()
def test_the_mask_survives_the_way_to_the_prior() -> None:
    """Folded into channels of the coarsest scale and back, as the public code sees it at full size."""
    prior = ReleasedPrior(features=8, cell=8, width=24).eval()
    mask, features = torch.rand(1, 1, 24, 40), torch.rand(1, 8, 3, 5)
    found = prior(torch.cat([features, F.pixel_unshuffle(mask, 8)], dim=1))
    joined = torch.cat([prior.mask_encoder(mask), features], dim=1).flatten(2).transpose(1, 2)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), prior.mlp(joined))


@torch.no_grad()
def test_the_released_regressor_hands_out_its_coarsest_features_and_its_mask() -> None:
    from hdrgen_server.systems.gmodiff.prepare import prepare, to_bracket

    scene = textured(36, 50)
    bracket = to_bracket([prepare([exposed(scene, ev) for ev in (-2, 0, 2)], (-2, 0, 2), 1)])
    found = randomised(REGRESSOR).eval()(bracket)
    coarsest, mask = found.features
    assert coarsest.shape == (1, 8, 5, 7)
    assert mask.shape == (1, 64, 5, 7)
    assert sum(f.shape[1] for f in found.features) == REGRESSOR.feature_channels
    torch.testing.assert_close(F.pixel_shuffle(mask, 8)[..., :36, :50], torch.sigmoid(found.mask_logits))
