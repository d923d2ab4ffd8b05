"""Makes packs of both Qwen systems from runs of their training, each stage's the base of the next.

It owns the packs' files and manifests. It must not know the loop or how a pack is run.
"""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from hdrgen_server.packs.add import finished_manifest
from hdrgen_server.packs.manifest import MANIFEST_NAME
from hdrgen_server.systems.qwenlinear.loading import NORM_FILE, WIDENED_FILE
from hdrgen_server.systems.qwenlog import lora
from hdrgen_server.systems.qwenlog.loading import LORA_FILE, TRANSFORMER, VAE
from hdrgen_server.training.captioned import CaptionSource
from hdrgen_server.training.qwen import PROJECTIONS, best_task
from hdrgen_server.training.qwen_vae import best_vae, curve_of, export
from hdrgen_server.training.recipe import Recipe
from nuke_hdrgen.wire.errors import BadInput

SUMMARIES = {
    "qwenlog": "Qwen-Image on log codes: a prompt becomes a scene-linear picture or panorama.",
    "qwenlinear": "Qwen-Image in linear light: a prompt becomes a scene-linear picture and a tone-mapped one.",
}
SMALL = """preview = true

[defaults]
width = {side}
height = {side}
"""
PARTS = (TRANSFORMER, VAE, "text_encoder", "tokenizer", "scheduler", NORM_FILE)


def write_vae(
    system: str, recipe: Recipe, run: Path, base: Path | None, curve: str, source: CaptionSource, folder: Path
) -> None:
    """Write the best VAE of a run into a folder that the next stage starts from, with links to the rest of `base`.

    Raises BadInput where the run has no weights.
    """
    network = best_vae(system, recipe, run, curve)
    folder.mkdir(parents=True, exist_ok=True)
    export(network, source, folder)
    if base is not None:
        link(base, folder)


def write_pack(
    system: str,
    recipe: Recipe,
    stage: str,
    run: Path,
    base: Path,
    source: CaptionSource,
    folder: Path,
    curve: str = "",
) -> None:
    """Write the best weights of a run with what they were trained on as a pack; the folder's name becomes the pack's.

    A backbone is written whole in half precision; an adapter as diffusers spells it, beside links to its base. A card,
    README.md, may lie in the folder already. Raises BadInput where the run has no weights.
    """
    task = best_task(system, recipe, stage, run, base, source)
    transformer = task.qwen.transformer
    folder.mkdir(parents=True, exist_ok=True)
    if stage == "backbone":
        transformer.half().save_pretrained(folder / TRANSFORMER)
        copied(base, folder)
    else:
        save_file(lora.saved(transformer), folder / LORA_FILE)
        if system == "qwenlinear":
            state = {k: v.contiguous() for k, v in transformer.state_dict().items() if k.startswith(PROJECTIONS)}
            save_file(state, folder / WIDENED_FILE)
        link(base, folder)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    (folder / MANIFEST_NAME).write_text(
        manifest(system, recipe, curve or curve_of(base), folder.name), encoding="utf-8"
    )
    (folder / MANIFEST_NAME).write_bytes(finished_manifest(folder))


def manifest(system: str, recipe: Recipe, curve: str, name: str) -> str:
    """A pack's manifest, its files not yet named."""
    options = f'config = "{recipe.config}"\n'
    if system == "qwenlog":
        options += f'curve = "{curve}"\nprimaries = "rec709"\n'
    small = SMALL.format(side=recipe.crop) if recipe.config == "s" else ""
    head = (
        f'format = 1\nname = "{name}"\nsummary = "{SUMMARIES[system]}"\nsystem = "{system}"\nsize = "{recipe.config}"\n'
    )
    return f'{head}licence = "Apache-2.0"\n{small}\n[options]\n{options}'


def link(base: Path, folder: Path) -> None:
    """Links in `folder` to the files of a base that are not there already. Raises BadInput for no such folder."""
    if not base.is_dir():
        raise BadInput(f"{base} is no folder; --base names the one that the run was trained from")
    has_own_vae = (folder / VAE).is_dir()
    for path in _files(base):
        target = folder / path.relative_to(base)
        if not target.exists() and not (has_own_vae and path.parent == base / VAE):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(path.resolve())


def copied(base: Path, folder: Path) -> None:
    """Copies of the VAE and the normalisation of a base."""
    for path in _files(base):
        if path.relative_to(base).parts[0] in {VAE, NORM_FILE}:
            target = folder / path.relative_to(base)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def _files(base: Path) -> list[Path]:
    wanted = [base / part for part in PARTS]
    found = [path for part in wanted for path in (sorted(part.rglob("*")) if part.is_dir() else [part])]
    return [path for path in found if path.is_file()]
