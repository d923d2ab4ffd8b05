"""Puts a pack together from published adapters and the models that they build on, by links.

It owns which system a file's adapters are for, which files a pack of LumaFlux or of Qwen-Image takes from where, and
the licence that they are under. It must not know torch, and reads no more of a weights file than its header.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hdrgen_server.packs.headers import read_header
from hdrgen_server.packs.manifest import MANIFEST_NAME
from nuke_hdrgen.wire.errors import BadInput

LUMAFLUX, QWENLOG, LUMIVID = "lumaflux", "qwenlog", "lumivid"
LORA_MARKS = (".lora_", "lora_unet", ".hada_")
LTX_BLOCK = re.compile(r"(?:diffusion_model\.|transformer\.)?transformer_blocks\.\d+\.(?:audio_)?attn[12]\.")
NAMES = frozenset({"physical.conv.weight", "null_context", "rqs.chroma.weight"})
WEIGHTS, CONFIG, INDEX = "*.safetensors", "config.json", "*.safetensors.index.json"
SINGLE = {"transformer": "flux1-*.safetensors", "vae": "ae.safetensors"}
MANIFEST = """format = 1
name = "{name}"
summary = "LumaFlux at full size on FLUX.1, by its authors' own adapters."
system = "lumaflux"
size = "published"
licence = "FLUX.1-dev-NC"
licence_url = "https://huggingface.co/black-forest-labs/FLUX.1-dev/blob/main/LICENSE.md"
must_accept = true

[options]
config = "published"

# Published: 27 GB for a 1080p frame in bfloat16. What is beyond the weights grows with the frame up to one tile.
[memory]
fixed_mib = 26500
per_megapixel_mib = 600
"""


LORA_PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
LORA_FILES = (CONFIG, WEIGHTS, INDEX, "*.json", "*.txt")
CURVES, PRIMARIES = ("logc4", "logc3", "pq", "acescct"), ("rec709", "rec2020", "awg4", "awg3", "ap1", "ap0", "p3d65")
LORA_MANIFEST = """format = 1
name = "{name}"
summary = "Qwen-Image on {curve} codes, by a LoRA."
system = "qwenlog"
size = "published"
licence = "{licence}"

[options]
config = "published"
curve = "{curve}"
primaries = "{primaries}"

# 20.4 billion parameters of the transformer and 8.3 of the text encoder, in bfloat16.
[memory]
fixed_mib = 57000
per_megapixel_mib = 3000
"""


@dataclass(frozen=True)
class LoraCodes:
    """What a LoRA of Qwen-Image was trained on, which its file does not say, and the licence it is under."""

    curve: str
    primaries: str
    licence: str


def system_of(path: Path) -> str:
    """The system whose adapters a single .safetensors file holds: `lumivid` for a LoRA of LTX's blocks, `qwenlog` for
    any other LoRA, else `lumaflux`; "" for whatever is no such file.
    """
    if not path.is_file() or path.suffix.lower() != ".safetensors":
        return ""
    names = read_header(path).shapes
    if not any(mark in name for name in names for mark in LORA_MARKS):
        return LUMAFLUX
    return LUMIVID if any(LTX_BLOCK.match(name) for name in names) else QWENLOG


def assemble_lora(lora: Path, base: Path | None, codes: LoraCodes, out: Path) -> None:
    """Make the empty folder `out` a pack of `qwenlog`: links to the LoRA and to Qwen-Image's folder `base`.

    Raises BadInput naming what is missing, or a curve or primaries that no pack can have.
    """
    if base is None:
        raise BadInput("a LoRA builds on Qwen-Image, which it does not hold; name its folder with --base")
    for name, value, known in (("--curve", codes.curve, CURVES), ("--primaries", codes.primaries, PRIMARIES)):
        if value not in known:
            raise BadInput(f"{lora} does not say what codes it draws; give {name}, one of {', '.join(known)}")
    if not re.fullmatch(r"[A-Za-z0-9 .,;:()+/-]{1,80}", codes.licence):
        raise BadInput(f"{lora} does not say whose it is; name its licence with --licence")
    for part in LORA_PARTS:
        if not (base / part).is_dir():
            raise BadInput(f"{base} has no folder {part}/; --base is Qwen-Image as it was published")
        for path in sorted({path for pattern in LORA_FILES for path in (base / part).glob(pattern)}):
            link(path, out / part / path.name)
    link(lora, out / "lora.safetensors")
    text = LORA_MANIFEST.format(name=pack_name(lora, "qwenlog"), **asdict(codes))
    (out / MANIFEST_NAME).write_text(text, encoding="utf-8")


def assemble(adapters: Path, base: Path | None, encoder: Path | None, out: Path) -> None:
    """Make the empty folder `out` a pack of LumaFlux: links to every file, and a manifest.

    `base` holds FLUX.1: `transformer/` and `vae/` as diffusers saves them, or flux1-*.safetensors and ae.safetensors.
    `encoder` is SigLIP's folder. Raises BadInput naming what is missing or is something else.
    """
    missing = sorted(NAMES - read_header(adapters).shapes.keys())
    if missing:
        raise BadInput(f"{adapters} has no tensor {missing[0]}; a single .safetensors file must be LumaFlux's adapters")
    if base is None:
        raise BadInput("LumaFlux's adapters steer FLUX.1, which they do not hold; name its folder with --base")
    if encoder is None:
        raise BadInput("LumaFlux looks through SigLIP (siglip-so400m-patch14-384); name its folder with --encoder")
    link(adapters, out / "adapters.safetensors")
    for part, pattern in SINGLE.items():
        single = sorted(base.glob(pattern))
        if (base / part).is_dir():
            link_folder(base / part, out / part)
        elif len(single) == 1:
            link(single[0], out / f"{part}.safetensors")
        else:
            raise BadInput(f"{base} has no folder {part}/ and not one {pattern}; --base is a folder with FLUX.1 in it")
    link_folder(encoder, out / "siglip")
    (out / MANIFEST_NAME).write_text(MANIFEST.format(name=pack_name(adapters, "lumaflux")), encoding="utf-8")


def pack_name(path: Path, otherwise: str) -> str:
    """A pack's name after a file's."""
    return (re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._") or otherwise)[:64]


def link_folder(source: Path, target: Path) -> None:
    """Links to a network's folder as diffusers saves it. Raises BadInput naming what is missing."""
    found = [path for pattern in (CONFIG, WEIGHTS, INDEX) for path in sorted(source.glob(pattern))]
    if not (source / CONFIG).is_file() or len(found) < 2:
        raise BadInput(f"{source} has no {CONFIG} with {WEIGHTS} beside it; give the folder as it was published")
    for index in source.glob(INDEX):
        listed = set(_table(index).get("weight_map", {}).values())
        missing = sorted(listed - {path.name for path in found})
        if missing:
            raise BadInput(f"{source} has no {missing[0]}, which {index.name} lists; fetch it again")
    for path in found:
        link(path, target / path.name)


def read_config(folder: Path) -> dict[str, Any]:
    """What a network's folder says it is built from. Raises BadInput where it does not say."""
    return _table(folder / CONFIG)


def _table(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read; give the folder as it was published") from error
    if not isinstance(found, dict):
        raise BadInput(f"{path} is no table of settings; fetch it again")
    return found


def link(source: Path, target: Path) -> None:
    """One link, in a folder that is made for it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())
