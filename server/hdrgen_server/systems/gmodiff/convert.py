"""Converts GMODiff's public checkpoints (`dareg*.pth`, `gmodiff*.pkl`) to the files of a pack, once, without torch.

It owns what is complained about and the pack that comes out. It must not know how a checkpoint is opened
(`packs/pickled.py`). It runs as a process of its own: `python -I -m hdrgen_server.systems.gmodiff.convert OUT FILE…`
answers with one line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from hdrgen_server.packs.confine import confine
from hdrgen_server.packs.pickled import read_checkpoint
from hdrgen_server.packs.verify import hash_file
from hdrgen_server.systems.gmodiff.released import (
    ALPHA,
    LISTS,
    LORA_FILES,
    NETWORKS,
    Array,
    Layout,
    Shape,
    folded,
    refined_name,
    refiner_shapes,
    regressor_name,
    regressor_shapes,
    released_layout,
)
from nuke_hdrgen.wire.errors import BadInput, HDRGenError

NAME = "gmodiff-released"
# Reading holds a checkpoint once, folding and writing a second time; the rest is room for the interpreter.
MEMORY_SHARE, MEMORY_ROOM = 4, 2 << 30
# Reading, hashing, folding and writing take a second for some hundred MiB.
SECONDS, BYTES_A_SECOND = 30, 10 << 20
MANIFEST = """format = 1
name = "{name}"
summary = "GMODiff by its authors' own weights: {what}."
system = "gmodiff"
size = "released"
licence = "none stated by its authors"
licence_url = "https://github.com/gbymat/GMODiff"
must_accept = true

[options]
config = "released"
"""
REFINE_OPTION = 'refine = "sd21-released"\n'


def convert(sources: Sequence[Path], out: Path, layout: Layout | None = None) -> list[str]:
    """Write a pack's folder of one regressor and at most one stage-two checkpoint; returns the names of its files.

    Raises BadInput naming the file and the key: not these checkpoints, a layer missing or left over, another shape
    (another base model), another rank.
    """
    layout = layout or released_layout()
    written: dict[str, dict[str, Array]] = {}
    notes: list[str] = []
    for source in sources:
        checkpoint = read_checkpoint(source)
        if not isinstance(checkpoint, dict):
            raise BadInput(f"{source} holds {type(checkpoint).__name__}, not GMODiff's weights")
        files = _stage_two(checkpoint, layout, source) if "state_dict_unet" in checkpoint else None
        files = files or {"regressor": _regressor(checkpoint, layout, source)}
        twice = sorted(set(files) & set(written))
        if twice:
            raise BadInput(f"{source} is the second checkpoint for {twice[0]}; give one of each")
        written |= files
        notes.append(f"- {source.name}, sha256 {hash_file(source)}")
    if "regressor" not in written:
        raise BadInput(f"{sources[0]} is stage two alone; give a folder that holds the regressor (dareg_mask.pth) too")
    names: list[str] = []
    for name, tensors in sorted(written.items()):
        path = out / f"{name}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: np.asarray(tensor, order="C") for key, tensor in tensors.items()}, path)
        names.append(f"{name}.safetensors")
    what = "regressor and refinement" if "refine" in written else "the regressor, draft quality"
    manifest = MANIFEST.format(name=NAME, what=what) + (REFINE_OPTION if "refine" in written else "")
    (out / "pack.toml").write_text(manifest, encoding="utf-8")
    (out / "README.md").write_text("\n".join([f"# {NAME}", "", "Converted from", "", *notes, ""]), encoding="utf-8")
    return names


def _regressor(checkpoint: Mapping[str, Any], layout: Layout, source: Path) -> dict[str, Array]:
    state = checkpoint.get("state_dict")
    if not isinstance(state, dict):
        keys = ", ".join(map(str, list(checkpoint)[:4])) or "nothing"
        raise BadInput(f"{source} has neither 'state_dict_unet' nor 'state_dict' (it has {keys}); it is not GMODiff's")
    state = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
    _check(state, regressor_shapes(layout.regressor), f"{source}: state_dict")
    return {regressor_name(name): tensor.astype(np.float32) for name, tensor in state.items()}


def _stage_two(checkpoint: Mapping[str, Any], layout: Layout, source: Path) -> dict[str, dict[str, Array]]:
    """Stage two's tensors by file: what is trained whole, folded, and one adapter a network."""
    shapes = refiner_shapes(layout)
    _check_entries(checkpoint, layout, source)
    for entry, wanted in shapes.items():
        _check(checkpoint[entry], wanted, f"{source}: {entry}")
    files: dict[str, dict[str, Array]] = {name: {} for name in ("refine", *LORA_FILES.values())}
    scale = ALPHA / layout.rank
    for layer in layout.layers:
        state = checkpoint[NETWORKS[layer.network][0]]
        down, up = (state[f"{layer.name}.lora_{factor}.default_{layer.adapter}.weight"] for factor in "AB")
        if not layer.whole:
            files[LORA_FILES[layer.network]] |= {f"{layer.name}.lora_A.weight": down, f"{layer.name}.lora_B.weight": up}
            continue
        weight = folded(state[f"{layer.name}.base_layer.weight"], down, up, scale)
        files["refine"][refined_name(layer.network, f"{layer.name}.weight")] = weight
        if layer.bias:
            bias = state[f"{layer.name}.base_layer.bias"]
            files["refine"][refined_name(layer.network, f"{layer.name}.bias")] = bias
    for name, tensor in checkpoint["proj"].items():
        files["refine"][refined_name("proj", name)] = tensor
    return files


def _check_entries(checkpoint: Mapping[str, Any], layout: Layout, source: Path) -> None:
    wanted = {*LISTS, "proj", *(key for pair in NETWORKS.values() for key in pair)}
    odd = sorted(wanted ^ set(checkpoint))
    if odd:
        problem = "has no entry" if odd[0] in wanted else "has an unknown entry"
        raise BadInput(f"{source} {problem} {odd[0]!r}; it is not of the layout that GMODiff released")
    for _, rank in NETWORKS.values():
        if checkpoint[rank] != layout.rank:
            raise BadInput(f"{source}: {rank} is {checkpoint[rank]!r}; weights of rank {layout.rank} can be converted")


def _check(state: object, wanted: Mapping[str, Shape], where: str) -> None:
    """Raises BadInput naming the first tensor that is missing, of another shape, not finite or left over."""
    if not isinstance(state, dict):
        raise BadInput(f"{where} holds {type(state).__name__}, not named tensors; it is damaged")
    for name, shape in wanted.items():
        tensor = state.get(name)
        if not isinstance(tensor, np.ndarray):
            kind = "LoRA weights" if ".lora_" in name else "tensor"
            raise BadInput(f"{where} has no {kind} {name}; the checkpoint is cut short or of another model")
        if tensor.shape != shape:
            raise BadInput(
                f"{where}: {name} has shape {tensor.shape}, not {shape}; it was trained on another base model than "
                "Stable Diffusion 2.1, or with other channels"
            )
        if not np.isfinite(tensor).all():
            raise BadInput(f"{where}: {name} holds NaN or Inf; fetch the checkpoint again")
    extra = sorted(set(map(str, state)) - set(wanted))
    if extra:
        raise BadInput(f"{where} has {len(extra)} tensors that do not belong there, such as {extra[0]}")


def main(arguments: Sequence[str]) -> int:
    """`OUT FILE…`: convert and answer with {"files": […]} or {"error": code, "message": …} on stdout."""
    out, *sources = map(Path, arguments)
    try:
        total = sum(source.stat().st_size for source in sources)
        seconds = SECONDS + total // BYTES_A_SECOND
        confine(memory=MEMORY_SHARE * total + MEMORY_ROOM, largest_file=2 * total + (1 << 20), seconds=seconds)
        answer: dict[str, Any] = {"files": convert(sources, out)}
    except HDRGenError as error:
        answer = {"error": error.code, "message": error.message}
    except OSError as error:
        answer = {"error": "storage", "message": f"{error.filename or out}: {error.strerror}; free space or permit it"}
    except MemoryError:
        answer = {"error": "bad_input", "message": f"{sources[0]} asks for more memory than its size allows"}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
