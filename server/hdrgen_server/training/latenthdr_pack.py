"""Makes packs of LatentHDR from runs of its training: a head, with the VAE that it was trained on or on a base pack.

It owns the pack's files and manifest. It must not know the loop, data or how a pack is run.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import MANIFEST_NAME
from hdrgen_server.systems.latenthdr.config import EV_HIGH, EV_LOW
from hdrgen_server.systems.latenthdr.head import ExposureHead
from hdrgen_server.systems.latenthdr.loading import HEAD_FILE
from hdrgen_server.systems.qwenlog import lora
from hdrgen_server.systems.qwenlog.loading import LORA_FILE, VAE
from hdrgen_server.training.latenthdr import Backbone, best_head
from hdrgen_server.training.latenthdr_joint import Joint, best_joint
from hdrgen_server.training.recipe import Recipe
from nuke_hdrgen.wire.errors import BadParameter

SUMMARIES = {
    "sdr2hdr": "LatentHDR: opens an SDR plate by a stack of exposures made from one latent; it keeps its own detail.",
    "txt2hdr": "LatentHDR: one drawn latent becomes a stack of exposures and scene-linear light, panoramas too.",
}
MANIFEST = """format = 1
name = "{name}"
summary = "{summary}"
system = "latenthdr"
operation = "{operation}"
size = "{size}"
preview = {preview}
licence = "Apache-2.0"
{base}{defaults}
[options]
head = "{size}"
ev_low = {low}
ev_high = {high}
backbone = "{backbone}"
"""
DEFAULTS = "\n[defaults]\nwidth = {side}\nheight = {side}\n"


def write_pack(recipe: Recipe, run: Path, base: Path, folder: Path, base_pack: str = "") -> None:
    """Write the best head of a run as a pack, in half precision; the folder's name becomes the pack's.

    With `base_pack`, the name of an installed pack with the same VAE, the pack holds the head alone; without, the VAE
    of `base` too. One for Qwen-Image draws, and needs the pack that it draws with. A card, README.md, may lie in the
    folder already. Raises BadInput where the run has no weights, BadParameter for a generator that is not named.
    """
    backbone = Backbone(base)
    operation = "sdr2hdr" if backbone.plates else "txt2hdr"
    if operation == "txt2hdr" and not base_pack:
        raise BadParameter(f"a head on {base} draws with a pack of qwenlog; name it with --base-pack")
    head = best_head(recipe, run, backbone)
    folder.mkdir(parents=True, exist_ok=True)
    if not base_pack:
        copied_vae(base, folder / VAE)
    _finish(recipe, backbone, head, folder, base_pack)


def write_joint_pack(recipe: Recipe, data: Path, run: Path, base: Path, folder: Path, base_pack: str) -> None:
    """The same of a joint run: the head, and the adapter that the base pack's transformer then draws with.

    `data` is the training's folder. Raises BadInput, BadParameter.
    """
    if not base_pack:
        raise BadParameter(f"a head on {base} draws with a pack of qwenlog; name it with --base-pack")
    task = best_joint(recipe, data, run, base)
    assert isinstance(task.model, Joint)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(lora.saved(task.qwen.qwen.transformer), folder / LORA_FILE)
    _finish(recipe, Backbone(base), task.model.head, folder, base_pack)


def _finish(recipe: Recipe, backbone: Backbone, head: ExposureHead, folder: Path, base_pack: str) -> None:
    """Write the head and the manifest."""
    operation = "sdr2hdr" if backbone.plates else "txt2hdr"
    save_file({name: tensor.half().contiguous() for name, tensor in head.state_dict().items()}, folder / HEAD_FILE)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    small = recipe.config == "s"
    text = MANIFEST.format(
        name=folder.name, summary=SUMMARIES[operation], operation=operation, size=recipe.config,
        preview=str(small).lower(), base=f'base = "{base_pack}"\n' if base_pack else "",
        defaults=DEFAULTS.format(side=128) if small and operation == "txt2hdr" else "", low=EV_LOW, high=EV_HIGH,
        backbone=backbone.space.fingerprint(),
    )  # fmt: skip
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")
    (folder / MANIFEST_NAME).write_bytes(finished_manifest(folder))


def copied_vae(base: Path, target: Path) -> None:
    """Copies of a VAE's files: of `base` or of its vae/."""
    source = base / VAE if (base / VAE).is_dir() else base
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted([*source.glob("*.safetensors"), source / "config.json"]):
        (target / path.name).write_bytes(path.read_bytes())
