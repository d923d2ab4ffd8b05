"""Reads a torch checkpoint (a zip with a pickle in it) as plain containers of numpy arrays, without torch.

It owns an unpickler that knows tensors, OrderedDict and plain containers and nothing else, and the bounds of what it
reads. It must not know systems or key names. It runs in a process of its own (`packs/confine.py`), never in the
sidecar. Format: PyTorch's zip-based serialization, storages uncompressed; pickle names tensors by
`torch._utils._rebuild_tensor_v2` and storages by persistent ids.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuke_hdrgen.wire.errors import BadInput, TooLarge

Array = npt.NDArray[Any]

LARGEST_FILE = 8 << 30
LARGEST_PICKLE = 16 << 20
MOST_ENTRIES = 20_000
MOST_AXES = 8
# Tensors may share a part, and bfloat16 grows to twice its size; together they stay within this many sizes of the file.
MOST_GROWTH = 4
# Storage class of torch, and the dtype of its elements; bfloat16 becomes float32 when it is read.
STORAGES: Mapping[str, str] = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "<i1", "ByteStorage": "<u1",
    "BoolStorage": "<b1",
}  # fmt: skip
BROKEN = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError,
    MemoryError, RecursionError, struct.error,
)  # fmt: skip


class _Storage(tuple[str, str, int]):
    """(key, dtype, elements) of a storage that a tensor lies in; immutable, so that no pickle can change it."""

    __slots__ = ()


class _Named(dict[Any, Any]):
    """An OrderedDict of the checkpoint; attributes that a pickle wants to set on it (versions of modules) are left out,
    so that none can hide a method.
    """

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        """Take nothing."""


class _Call(tuple[Callable[..., Any]]):
    """A function that a pickle may call and cannot change, as it could a function's own attributes."""

    __slots__ = ()

    def __call__(self, *arguments: Any) -> Any:
        return self[0](*arguments)


def read_checkpoint(path: Path) -> Any:
    """What the checkpoint holds: dicts, lists, tuples, texts, numbers, None and numpy arrays (bfloat16 as float32).

    Raises BadInput naming the file and what in it is not allowed, missing or damaged; TooLarge over 8 GiB.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_FILE:
            raise TooLarge(f"{path} is over {LARGEST_FILE >> 30} GiB; it is no checkpoint that this program converts")
        with zipfile.ZipFile(path) as archive:
            return _read(archive, size, path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, *BROKEN) as error:
        raise BadInput(
            f"{path} is truncated, or no checkpoint in torch's zip format ({_one_line(error)}); fetch it again"
        ) from error


def _read(archive: zipfile.ZipFile, size: int, path: Path) -> Any:
    entries = archive.infolist()
    total = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_ENTRIES or total > size or any(e.compress_type != zipfile.ZIP_STORED for e in entries):
        raise BadInput(
            f"{path} claims {total} bytes in {len(entries)} parts out of a file of {size}; "
            "torch stores its parts uncompressed: fetch it again"
        )
    names = [entry.filename for entry in entries]
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1 or len(set(names)) != len(names):
        raise BadInput(f"{path} holds {len(pickles)} pickles where one is due; it is no torch checkpoint")
    root = pickles[0].removesuffix("data.pkl")
    if archive.getinfo(pickles[0]).file_size > LARGEST_PICKLE:
        raise TooLarge(f"{path}: its pickle is over {LARGEST_PICKLE >> 20} MiB; it holds more than tensors")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder").strip() != b"little":
        raise BadInput(f"{path} was saved on a big-endian machine; save it again on another")
    stream = archive.read(pickles[0])
    unpickler = _TensorUnpickler(stream, lambda key: archive.read(f"{root}data/{key}"), path, MOST_GROWTH * size)
    try:
        return unpickler.load()
    except BROKEN as error:
        raise BadInput(f"{path}: its pickle is damaged ({_one_line(error)}); fetch it again") from error


class _TensorUnpickler(pickle.Unpickler):
    """Builds what `read_checkpoint` returns; any other name in the stream is refused before it is looked up."""

    def __init__(self, stream: bytes, part: Callable[[str], bytes], path: Path, room: int) -> None:
        super().__init__(io.BytesIO(stream))
        self._part, self._path, self._room = part, path, room
        self._arrays: dict[_Storage, Array] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        """The few names that a checkpoint of tensors needs. Raises BadInput for any other, by name."""
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _Named,
            ("torch._utils", "_rebuild_tensor_v2"): _Call((self._tensor,)),
            ("torch._utils", "_rebuild_parameter"): _Call((_parameter,)),
        }
        if module_name == "torch" and global_name in STORAGES:
            return STORAGES[global_name]
        if (module_name, global_name) not in known:
            raise BadInput(
                f"{self._path} names {module_name}.{global_name}, which is no tensor: it could run code and is not "
                "opened; ask its authors for safetensors"
            )
        return known[module_name, global_name]

    def persistent_load(self, pid: Any, /) -> _Storage:
        """A storage by its persistent id: ("storage", class, key, device, elements)."""
        match pid:
            case ("storage", str(dtype), str(key), str(), int(elements)) if dtype in STORAGES.values():
                return _Storage((key, dtype, elements))
            case _:
                raise BadInput(f"{self._path} refers to something that is no storage of a tensor; fetch it again")

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Array:
        if not isinstance(storage, _Storage):
            raise BadInput(f"{self._path} builds a tensor out of something else; fetch it again")
        flat = self._flat(storage)
        numbers = (offset, *size, *stride)
        if not all(type(number) is int and number >= 0 for number in numbers) or len(size) > MOST_AXES:
            raise BadInput(f"{self._path}: a tensor in part {storage[0]} has sizes that are none; fetch it again")
        count = math.prod(size)
        last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
        if count > len(flat) or (count and last >= len(flat)):
            raise BadInput(
                f"{self._path}: a tensor of {count} elements reaches beyond part {storage[0]}, which has {len(flat)}; "
                "fetch it again"
            )
        self._room -= count * flat.itemsize
        if self._room < 0:
            raise BadInput(f"{self._path}: its tensors unfold to over {MOST_GROWTH} times its size; do not use it")
        if not count:
            return np.zeros(size, flat.dtype)
        steps = tuple(step * flat.itemsize for step in stride)
        view = np.lib.stride_tricks.as_strided(flat[offset:], tuple(size), steps, writeable=False)
        return np.asarray(view, order="C")  # ascontiguousarray would give a scalar an axis

    def _flat(self, storage: _Storage) -> Array:
        if storage in self._arrays:
            return self._arrays[storage]
        key, dtype, elements = storage
        try:
            raw = self._part(key)
        except KeyError as error:
            raise BadInput(f"{self._path} has no part {key!r} that a tensor lies in; fetch it again") from error
        width = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
        if elements * width != len(raw):
            raise BadInput(
                f"{self._path}: part {key} claims {elements} elements and has {len(raw)} bytes; fetch it again"
            )
        if dtype == "bfloat16":
            flat: Array = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            flat = np.frombuffer(raw, dtype)
        self._arrays[storage] = flat
        return flat


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _one_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
