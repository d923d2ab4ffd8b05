"""Puts a pack of LumiVid together from what is published: LTX-2.3, the IC-LoRA HDR and its scene embeddings, by links.

It owns where each file comes from, the licence they are under, and what their headers must say for them to belong
together. It must not know torch, and reads no more of a weights file than its header.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from hdrgen_server.packs.assemble import LUMIVID, WEIGHTS, link, link_folder, pack_name, read_config
from hdrgen_server.packs.headers import read_header
from hdrgen_server.packs.manifest import MANIFEST_NAME
from nuke_hdrgen.wire.errors import BadInput

Shapes = Mapping[str, tuple[int, ...]]

TRANSFORMER = "transformer"
PARTS = MappingProxyType({
    TRANSFORMER: "LTX2VideoTransformer3DModel",
    "vae": "AutoencoderKLLTX2Video",
    "latent_upsampler": "LTX2LatentUpsamplerModel",
})  # fmt: skip
"""Folders of the base, and the class that diffusers builds each by."""
CONTEXTS = MappingProxyType({
    "video_context": "transformer_blocks.0.attn2.to_k.weight",
    "audio_context": "transformer_blocks.0.audio_attn2.to_k.weight",
})  # fmt: skip
"""Scene embeddings, and the weight that takes each one's channels."""
TRANSFORM, FLAG = "hdr_transform", "use_hdr_transform"
LOGC3 = frozenset({"logc3", "true"})
"""What the LoRA's metadata call LogC3; older files only say that there is a curve."""
ADAPTER = re.compile(r"(?:diffusion_model\.|transformer\.)?(transformer_blocks\..+)\.lora_([AB])\.weight")
MANIFEST = """format = 1
name = "{name}"
summary = "LumiVid at full size on LTX-2.3, by its authors' own IC-LoRA."
system = "lumivid"
size = "published"
licence = "LTX-2-Community"
licence_url = "https://huggingface.co/Lightricks/LTX-2.3/blob/main/LICENSE"
must_accept = true

[options]
config = "published"
transform = "logc3"

# Counted, not measured: 19.0 billion parameters of the transformer in bfloat16, 0.73 of the VAE and 0.50 of the
# upsampler in float32, and activations of one tile. What is beyond grows with the frame and a window's frames.
[memory]
fixed_mib = 50000
per_megapixel_mib = 120
"""


def assemble(lora: Path, base: Path | None, scene: Path | None, out: Path) -> None:
    """Make the empty folder `out` a pack of `lumivid`: links to the IC-LoRA, to LTX-2.3's folders in `base`, and to the
    scene embeddings. Raises BadInput naming what is missing, or is another model's.
    """
    _check_codes(lora)
    if base is None:
        raise BadInput("the IC-LoRA adapts LTX-2.3, which it does not hold; name its diffusers folder with --base")
    if scene is None:
        raise BadInput(
            "LumiVid takes no prompt but the scene embeddings that are published beside the IC-LoRA; name their file, "
            "…-scene-emb.safetensors, with --scene"
        )
    for part, network in PARTS.items():
        _check_part(base, part, network)
        link_folder(base / part, out / part)
    weights: dict[str, tuple[int, ...]] = {}
    for path in sorted((base / TRANSFORMER).glob(WEIGHTS)):
        weights |= read_header(path).shapes
    _check_fit(lora, weights, base / TRANSFORMER)
    _check_scene(scene, weights, base / TRANSFORMER)
    link(lora, out / "lora.safetensors")
    link(scene, out / "scene.safetensors")
    (out / MANIFEST_NAME).write_text(MANIFEST.format(name=pack_name(lora, LUMIVID)), encoding="utf-8")


def _check_codes(lora: Path) -> None:
    """Other IC-LoRAs of LTX-2.3 have the same tensors; only the metadata tell that this one makes HDR codes."""
    said = read_header(lora).metadata
    transform = said.get(TRANSFORM) or said.get(FLAG)
    if not transform:
        raise BadInput(
            f"{lora} does not say in its metadata ({TRANSFORM}) that it makes HDR codes; "
            "give ltx-2.3-22b-ic-lora-hdr-….safetensors, as it was published"
        )
    if transform not in LOGC3:
        raise BadInput(f"{lora} makes {transform} codes; LumiVid decodes logc3 alone")


def _check_part(base: Path, part: str, network: str) -> None:
    if not (base / part).is_dir():
        raise BadInput(
            f"{base} has no folder {part}/; --base is LTX-2.3 as diffusers saves it, with {', '.join(PARTS)} in it"
        )
    config = read_config(base / part)
    if config.get("_class_name") != network:
        raise BadInput(f"{base / part} holds {config.get('_class_name')}, not {network}; give LTX-2.3's")
    if part == TRANSFORMER and not config.get("gated_attn"):
        raise BadInput(f"{base / part} is LTX-2's; the IC-LoRA is for LTX-2.3, whose attention is gated")


def _check_fit(lora: Path, weights: Shapes, folder: Path) -> None:
    for name, shape in read_header(lora).shapes.items():
        adapter = ADAPTER.fullmatch(name)
        if adapter is None:
            continue  # loading it says what it thinks of these
        place, half = adapter.groups()
        weight = weights.get(f"{place}.weight", ())
        side = 1 if half == "A" else 0
        if len(weight) != 2 or len(shape) != 2 or shape[side] != weight[side]:
            what = f"is {weight} there" if weight else "is not there"
            raise BadInput(f"{lora} is for another base than {folder}: it adapts {place} by {shape}, which {what}")


def _check_scene(scene: Path, weights: Shapes, folder: Path) -> None:
    shapes = read_header(scene).shapes
    for name, taker in CONTEXTS.items():
        if name not in shapes:
            raise BadInput(f"{scene} has no tensor {name}; give the scene embeddings that are published with the LoRA")
        width = weights.get(taker, (0, 0))[-1]
        if shapes[name][-1:] != (width,):
            raise BadInput(f"{scene}: {name} is {shapes[name]}, and {folder} takes {width} channels; it is another's")
