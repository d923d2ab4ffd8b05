"""Reads weights from safetensors, and says in one line what is wrong with a file or folder.

It owns the reading. It must not know systems, modules or what tensors are for; nothing here opens a pickle.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from nuke_hdrgen.wire.errors import BadInput


def read(path: Path) -> dict[str, Tensor]:
    """A safetensors file in its own precision. Raises BadInput when it is missing, cut short or something else."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{path} cannot be read as safetensors ({first_line(error)}); fetch or add it again") from error


def from_folder(network: Any, folder: Path, **given: Any) -> Any:
    """A network of this class of diffusers or transformers that was saved into a folder; `given` goes to its
    `from_pretrained`. Raises BadInput where it is not whole.
    """
    try:
        module, notes = network.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, **given
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadInput(f"{folder} cannot be loaded: {first_line(error)}; fetch or add it again") from error
    lacking = [*notes["missing_keys"], *(str(key[0]) for key in notes["mismatched_keys"])]
    if lacking:
        raise BadInput(f"{folder} has no tensor {min(lacking)} of the right shape; fetch or add it again")
    return module


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
