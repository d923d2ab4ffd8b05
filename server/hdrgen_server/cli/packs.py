"""`hdrgen packs`: list, show, add, verify and accept packs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from hdrgen_server.cli import console
from hdrgen_server.packs import add as adding
from hdrgen_server.packs import assemble, assemble_lumivid, conversion, licence
from hdrgen_server.packs.manifest import Pack
from hdrgen_server.packs.registry import load_registry, packs_folders
from hdrgen_server.packs.verify import verify as verify_pack
from hdrgen_server.settings import Settings, load_settings
from nuke_hdrgen.wire.errors import BadInput, BadParameter

Json = Annotated[bool, typer.Option("--json", help="Print one machine-readable object.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The pack's name, as `hdrgen packs list` shows it.")]

QWEN_LORA = (assemble.QWENLOG, "a LoRA of Qwen-Image")
OPTIONS = MappingProxyType({
    "--encoder": (assemble.LUMAFLUX, "LumaFlux's adapters"), "--scene": (assemble.LUMIVID, "LumiVid's IC-LoRA"),
    "--curve": QWEN_LORA, "--primaries": QWEN_LORA, "--licence": QWEN_LORA,
})  # fmt: skip
"""Options of `packs add` that one system's adapters need."""

app = typer.Typer(
    help="Weights: list, show, add, verify and accept packs.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("list")
def list_packs(as_json: Json = False) -> None:
    """List every pack, with its operations, size and licence."""
    settings = load_settings()
    registry = load_registry(settings)
    if as_json:
        console.emit_json(
            {
                "packs": [_summary(pack, settings) for pack in registry.all()],
                "problems": registry.problems,
                "folders": [str(folder) for folder in packs_folders(settings)],
            }
        )
        return
    rows: list[tuple[str, ...]] = [("pack", "operations", "quality", "size", "licence", "what")]
    for pack in registry.all():
        accepted = "" if licence.accepted(pack, settings) else " (not accepted)"
        quality = "preview" if pack.preview else "full"
        size = f"{pack.size_bytes / 1e6:.1f} MB" if pack.files else "-"
        what = pack.summary or pack.descriptor.summary
        rows.append((pack.name, ", ".join(pack.descriptor.operations), quality, size, pack.licence + accepted, what))
    console.table(rows)
    for problem in registry.problems.values():
        console.note(problem)


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """Show one pack: licence, files, and every parameter that --set reaches."""
    settings = load_settings()
    pack = load_registry(settings).get(name)
    if as_json:
        console.emit_json(_summary(pack, settings) | {"parameters": _parameters(pack), "files": _files(pack)})
        return
    for key, value in _summary(pack, settings).items():
        console.answer(f"{key + ':':<12} {', '.join(map(str, value)) if isinstance(value, list) else value}")
    for entry in pack.files:
        console.answer(f"file:        {entry.path} {entry.bytes} bytes sha256 {entry.sha256}")
    rows: list[tuple[str, ...]] = [("parameter", "kind", "default", "range", "what")]
    rows += [(p["name"], p["kind"], str(p["default"]), p["range"], p["summary"]) for p in _parameters(pack)]
    if len(rows) > 1:
        console.table(rows)


@app.command()
def add(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER|FILE",
            help="A pack's folder; or GMODiff's checkpoints, .pth and .pkl; or LumaFlux's adapters, a LoRA of "
            "Qwen-Image or LumiVid's IC-LoRA, .safetensors.",
        ),
    ],
    base: Annotated[
        Path | None, typer.Option(metavar="FOLDER|FILE", help="The base model that checkpoints or adapters build on.")
    ] = None,
    encoder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="SigLIP's folder, which LumaFlux's adapters look through.")
    ] = None,
    scene: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The scene embeddings that LumiVid's IC-LoRA comes with.")
    ] = None,
    curve: Annotated[
        str, typer.Option(metavar="CURVE", help=f"Codes that a LoRA draws: {', '.join(assemble.CURVES)}.")
    ] = "",
    primaries: Annotated[
        str, typer.Option(metavar="NAME", help=f"Their primaries: {', '.join(assemble.PRIMARIES)}.")
    ] = "",
    licensed: Annotated[str, typer.Option("--licence", metavar="NAME", help="The licence that a LoRA is under.")] = "",
    link: Annotated[bool, typer.Option("--link", help="Leave the weights where they are.")] = False,
    as_json: Json = False,
) -> None:
    """Add a pack: hash its files, record them in its manifest, and put it with yours.

    Weights are .safetensors. Checkpoints that GMODiff's authors publish are converted first, in a process of its own
    that reads tensors and nothing else; any other file that may hold a pickle is refused by name. Adapters that
    LumaFlux's authors publish are put together with FLUX.1 and SigLIP, a LoRA on log codes with Qwen-Image, LumiVid's
    IC-LoRA with LTX-2.3 and its scene embeddings, copied, or linked with --link.
    """
    settings = load_settings()
    system = assemble.system_of(path)
    checkpoints = () if system else conversion.checkpoints_in(path)
    if checkpoints and link:
        raise BadParameter(f"{path} must be converted, so there is nothing to link to; leave --link out")
    if base is not None and not checkpoints and not system:
        raise BadParameter(f"{path} needs no conversion, and holds its own base model; leave --base out")
    given = {"--encoder": encoder, "--scene": scene, "--curve": curve, "--primaries": primaries, "--licence": licensed}
    _check_options(path, system, [name for name, value in given.items() if value])
    with tempfile.TemporaryDirectory(prefix="hdrgen-convert-") as folder:
        made = Path(folder)
        if system == assemble.LUMIVID:
            assemble_lumivid.assemble(path, base, scene, made)
        elif system == assemble.QWENLOG:
            assemble.assemble_lora(path, base, assemble.LoraCodes(curve, primaries, licensed), made)
        elif system:
            assemble.assemble(path, base, encoder, made)
        elif checkpoints:
            conversion.place_base(base, made, conversion.convert(checkpoints, made))
        if system or checkpoints:
            pack = adding.add(made, settings, link_files=link)
        else:
            pack = adding.add(path, settings, link=link)
    if as_json:
        console.emit_json(_summary(pack, settings) | {"converted": [str(file) for file in checkpoints]})
        return
    console.answer(f"added {pack.name} at {pack.path}, digest {pack.digest[:12]}")


def _check_options(path: Path, system: str, given: list[str]) -> None:
    """Raises BadParameter for an option of another system than the one whose adapters `path` holds."""
    for name in given:
        wanted, whose = OPTIONS[name]
        if system != wanted:
            raise BadParameter(f"{name} is for {whose}, and {path} is something else; leave it out")


@app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME…]", help="Packs; all of them when none.")] = None,
    as_json: Json = False,
) -> None:
    """Hash the files of packs and compare them with their manifests."""
    registry = load_registry(load_settings())
    packs = [registry.get(name) for name in names] if names else list(registry.all())
    found = {pack.name: list(verify_pack(pack)) for pack in packs}
    found |= {} if names else {name: [problem] for name, problem in registry.problems.items()}
    bad = [problem for problems in found.values() for problem in problems]
    if as_json and not bad:
        console.emit_json({"packs": found})
    elif not as_json:
        for name, problems in found.items():
            console.answer(f"{name}: {'; '.join(problems) or 'as its manifest says'}")
    if bad:
        raise BadInput(f"{len(bad)} of the packs' files are not as recorded: {bad[0]}; add the pack again", packs=found)


@app.command()
def accept(name: Name, as_json: Json = False) -> None:
    """Accept a pack's licence, for this user. A site does it for everyone with `accept_licences` in its
    settings.
    """
    settings = load_settings()
    pack = load_registry(settings).get(name)
    licence.accept(pack, settings)
    if as_json:
        console.emit_json(_summary(pack, settings))
    else:
        console.answer(f"{name}: {pack.licence} accepted, recorded in {licence.record_path(settings)}")


def _summary(pack: Pack, settings: Settings) -> dict[str, Any]:
    return {
        "name": pack.name,
        "system": pack.system,
        "size": pack.size,
        "operations": list(pack.descriptor.operations),
        "revision": pack.revision,
        "preview": pack.preview,
        "licence": pack.licence,
        "licence_ok": licence.accepted(pack, settings),
        "digest": pack.digest,
        "path": str(pack.path),
        "bytes": pack.size_bytes,
        "summary": pack.summary or pack.descriptor.summary,
    }


def _parameters(pack: Pack) -> list[dict[str, Any]]:
    return [
        {
            "name": p.name,
            "kind": p.kind,
            "default": p.default,
            "range": _range(p.choices, p.minimum, p.maximum) + (f" {p.unit}" if p.unit else ""),
            "summary": p.summary,
        }
        for p in pack.descriptor.parameters
    ]


def _range(choices: tuple[str, ...], minimum: float | None, maximum: float | None) -> str:
    if choices:
        return "|".join(choices)
    if minimum is None and maximum is None:
        return ""
    low = "" if minimum is None else f"{minimum:g}"
    high = "" if maximum is None else f"{maximum:g}"
    return f"{low}..{high}"


def _files(pack: Pack) -> list[dict[str, Any]]:
    return [{"path": f.path, "bytes": f.bytes, "sha256": f.sha256} for f in pack.files]
