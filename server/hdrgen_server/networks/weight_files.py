"""Reads weights from safetensors, and says in one line what is wrong with a file.

It owns the reading. It must not know systems, modules or what tensors are for; nothing here opens a pickle.
"""

from __future__ import annotations

from pathlib import Path

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


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
