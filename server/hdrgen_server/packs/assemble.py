"""Puts a pack together from published adapters and the models that they build on, by links.

It owns which files a pack of LumaFlux or of Qwen-Image takes from where, and the licence that they are under. It must
not know torch, and reads no more of a weights file than its list of names.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from hdrgen_server.packs.manifest import MANIFEST_NAME
from nuke_hdrgen.wire.errors import BadInput

HEADER_BYTES = 100 << 20
"""The most that safetensors' own reader takes."""
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


def is_adapter_file(path: Path) -> bool:
    """Whether this is one .safetensors file: LumaFlux's adapters, or a LoRA of Qwen-Image."""
    return path.is_file() and path.suffix.lower() == ".safetensors"


def is_lora(names: frozenset[str]) -> bool:
    """Whether tensors of these names are a LoRA's, in any spelling."""
    return any(".lora_" in name or "lora_unet" in name or ".hada_" in name for name in names)


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
            _link(path, out / part / path.name)
    _link(lora, out / "lora.safetensors")
    text = LORA_MANIFEST.format(name=_name(lora, "qwenlog"), **asdict(codes))
    (out / MANIFEST_NAME).write_text(text, encoding="utf-8")


def assemble(adapters: Path, base: Path | None, encoder: Path | None, out: Path) -> None:
    """Make the empty folder `out` a pack of LumaFlux: links to every file, and a manifest.

    `base` holds FLUX.1: `transformer/` and `vae/` as diffusers saves them, or flux1-*.safetensors and ae.safetensors.
    `encoder` is SigLIP's folder. Raises BadInput naming what is missing or is something else.
    """
    missing = sorted(NAMES - tensor_names(adapters))
    if missing:
        raise BadInput(f"{adapters} has no tensor {missing[0]}; a single .safetensors file must be LumaFlux's adapters")
    if base is None:
        raise BadInput("LumaFlux's adapters steer FLUX.1, which they do not hold; name its folder with --base")
    if encoder is None:
        raise BadInput("LumaFlux looks through SigLIP (siglip-so400m-patch14-384); name its folder with --encoder")
    _link(adapters, out / "adapters.safetensors")
    for part, pattern in SINGLE.items():
        single = sorted(base.glob(pattern))
        if (base / part).is_dir():
            _link_folder(base / part, out / part)
        elif len(single) == 1:
            _link(single[0], out / f"{part}.safetensors")
        else:
            raise BadInput(f"{base} has no folder {part}/ and not one {pattern}; --base is a folder with FLUX.1 in it")
    _link_folder(encoder, out / "siglip")
    (out / MANIFEST_NAME).write_text(MANIFEST.format(name=_name(adapters, "lumaflux")), encoding="utf-8")


def _name(path: Path, otherwise: str) -> str:
    return (re.sub(r"[^a-z0-9._-]+", "-", path.stem.lower()).strip("-._") or otherwise)[:64]


def tensor_names(path: Path) -> frozenset[str]:
    """The names in a safetensors file's header. Raises BadInput when it has none."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if 0 < length <= HEADER_BYTES else None
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read as safetensors; fetch it again") from error
    if not isinstance(header, dict):
        raise BadInput(f"{path} cannot be read as safetensors; fetch it again")
    return frozenset(map(str, header))


def _link_folder(source: Path, target: Path) -> None:
    found = [path for pattern in (CONFIG, WEIGHTS, INDEX) for path in sorted(source.glob(pattern))]
    if not (source / CONFIG).is_file() or len(found) < 2:
        raise BadInput(f"{source} has no {CONFIG} with {WEIGHTS} beside it; give the folder as it was published")
    for path in found:
        _link(path, target / path.name)


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(source.resolve())
