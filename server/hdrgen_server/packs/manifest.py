"""A pack: `pack.toml` beside its weights, parsed strictly.

It owns the manifest's fields, their checks and the pack's digest (sha256 of the manifest's bytes, which
record each file's own sha256, so that nothing re-hashes gigabytes at load). It must not know where packs are
kept, torch or sockets.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from hdrgen_server.contracts.descriptor import Descriptor, Memory
from hdrgen_server.packs.descriptors import has_parts, load_descriptor
from nuke_hdrgen.wire.errors import BadInput, BadParameter, UnknownPack

MANIFEST_NAME = "pack.toml"
MANIFEST_FORMAT = 1
MANIFEST_BYTES = 1 << 20
PICKLE_SUFFIXES = frozenset({".bin", ".ckpt", ".dill", ".joblib", ".npy", ".pickle", ".pkl", ".pt", ".pt2", ".pth"})
FILE_SUFFIXES = frozenset({".safetensors", ".json", ".toml", ".txt", ".md", ".model", ".png"})

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")

_FIELDS: Mapping[str, type] = {
    "format": int, "name": str, "system": str, "size": str, "summary": str, "preview": bool, "licence": str,
    "licence_url": str, "must_accept": bool, "files": list, "options": dict,
    "memory": dict, "defaults": dict, "operation": str, "base": str,
}  # fmt: skip
_REQUIRED = ("format", "name", "system", "licence")


@dataclass(frozen=True)
class PackFile:
    """One file of a pack: its path inside the folder, its length and its digest."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Pack:
    """Weights and manifest of one system at one size.

    `digest` is the sha256 of the manifest's bytes, in hex; `path` the pack's folder; `options` what the
    system's operator reads (the scale of a gain map, a configuration's name). A pack that needs other memory than its
    system states its own, and one that uses its parameters otherwise their defaults: both are then the descriptor's.
    `must_accept` says that `licence` has to be accepted before the first use. `revision` is the system's.
    `base_name` is the pack that this one builds on, "" for none, and `base` that pack once a registry found it.
    """

    name: str
    system: str
    size: str
    digest: str
    revision: int
    preview: bool
    licence: str
    path: Path
    descriptor: Descriptor
    files: tuple[PackFile, ...] = ()
    summary: str = ""
    licence_url: str = ""
    must_accept: bool = False
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    base_name: str = ""
    base: Pack | None = None

    def on(self, base: Pack) -> Pack:
        """The pack on its base: other weights there are another digest here. Raises BadInput for a base with a base."""
        if base.base_name:
            raise BadInput(
                f"pack {self.name} is on {base.name}, which is on {base.base_name}; name a whole pack as base"
            )
        digest = hashlib.sha256(f"{self.digest} {base.digest}".encode()).hexdigest()
        return replace(self, digest=digest, base=base)

    def holder(self, name: str) -> Pack:
        """The pack whose folder has a file or folder of that name: itself, or its base where it has none."""
        return self if self.base is None or (self.path / name).exists() else self.base

    def file(self, name: str) -> Path:
        """The full path of a file that the manifest lists. Raises BadInput when it does not or the file is
        gone.
        """
        if name not in {f.path for f in self.files}:
            raise BadInput(f"pack {self.name} lists no file {name!r}; add the pack again with `hdrgen packs add`")
        path = self.path / name
        if not path.is_file():
            raise BadInput(f"pack {self.name}: {path} is missing; add the pack again with `hdrgen packs add`")
        return path

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(f.bytes for f in self.files)


def read_pack(folder: Path) -> Pack:
    """The pack in a folder. Raises BadInput or UnknownPack, naming the manifest and what is wrong in it."""
    return parse_pack(read_manifest(folder), folder)


def read_manifest(folder: Path) -> bytes:
    """The manifest's bytes. Raises BadInput when there is none or it cannot be read."""
    path = folder / MANIFEST_NAME
    try:
        with path.open("rb") as stream:
            raw = stream.read(MANIFEST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}; a pack is a folder with a {MANIFEST_NAME}") from error
    if len(raw) > MANIFEST_BYTES:
        raise BadInput(f"{path} is over {MANIFEST_BYTES} bytes; it is no pack manifest")
    return raw


def parse_pack(raw: bytes, folder: Path) -> Pack:
    """A pack from its manifest's bytes; `folder` is where its files lie. Raises BadInput or UnknownPack."""
    where = folder / MANIFEST_NAME
    table = parse_table(raw, where)
    descriptor = _descriptor(table, where)
    if "memory" in table:
        descriptor = replace(descriptor, memory=_memory(table["memory"], where))
    if "defaults" in table:
        descriptor = _with_defaults(descriptor, table["defaults"], where)
    return Pack(
        name=table["name"],
        system=table["system"],
        size=table.get("size", ""),
        digest=hashlib.sha256(raw).hexdigest(),
        revision=descriptor.revision,
        preview=table.get("preview", False),
        licence=table["licence"],
        path=folder,
        descriptor=descriptor,
        files=tuple(_file(entry, where) for entry in table.get("files", [])),
        summary=table.get("summary", ""),
        licence_url=table.get("licence_url", ""),
        must_accept=table.get("must_accept", False),
        options=MappingProxyType(table.get("options", {})),
        base_name=table.get("base", ""),
    )


def parse_table(raw: bytes, where: Path) -> dict[str, Any]:
    """The manifest's top level, its names and types checked. Raises BadInput."""
    try:
        table = tomllib.loads(raw.decode("utf-8"))
    except ValueError as error:
        raise BadInput(f"{where} is not TOML: {error}") from error
    for name in _REQUIRED:
        if name not in table:
            raise BadInput(f"{where} has no {name!r}; a manifest needs {', '.join(_REQUIRED)}")
    for name, value in table.items():
        kind = _FIELDS.get(name)
        if kind is None:
            raise BadInput(f"{where} has unknown field {name!r}; known are {', '.join(_FIELDS)}")
        if type(value) is not kind:
            raise BadInput(f"{where}: {name} must be {kind.__name__}, got {value!r}")
    if table["format"] != MANIFEST_FORMAT:
        raise BadInput(
            f"{where} has format {table['format']}, this version reads {MANIFEST_FORMAT}; update nuke-hdrgen"
        )
    _check_names(table, where)
    return table


def _check_names(table: Mapping[str, Any], where: Path) -> None:
    for name in ("name", "base"):
        if name in table and not _NAME.match(table[name]):
            raise BadInput(
                f"{where}: {name} {table[name]!r} must be 1 to 64 of a-z 0-9 . _ - and start with a-z or 0-9"
            )
    if table.get("base") == table["name"]:
        raise BadInput(f"{where}: a pack cannot be its own base; name another pack or leave base out")


def check_file_name(name: str, where: Path) -> None:
    """Refuse a path that leaves the pack's folder, a pickle, or a file type that no pack holds. Raises
    BadInput.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or "\\" in name or any(part in {"..", "."} for part in name.split("/")):
        raise BadInput(f"{where}: file {name!r} must be a plain path inside the pack's folder")
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise BadInput(f"{where}: {name} may hold a pickle, which can run code; convert it to .safetensors first")
    if path.suffix.lower() not in FILE_SUFFIXES:
        raise BadInput(f"{where}: {name} has no place in a pack; allowed are {', '.join(sorted(FILE_SUFFIXES))}")


def _descriptor(table: dict[str, Any], where: Path) -> Descriptor:
    """The system's descriptor, for the operation that the pack names. Raises BadInput, UnknownPack."""
    system, operation = table["system"], table.get("operation", "")
    try:
        if not operation and has_parts(system):
            does = ", ".join(load_descriptor(system).operations)
            raise BadInput(f"a pack of {system} does one of {does}; say which as operation")
        return load_descriptor(system, operation) if operation else load_descriptor(system)
    except (UnknownPack, BadInput) as error:
        raise type(error)(f"{where}: {error.message}") from error


def _with_defaults(descriptor: Descriptor, given: dict[str, Any], where: Path) -> Descriptor:
    """The descriptor with the pack's own defaults of its parameters. Raises BadInput."""
    try:
        resolved = descriptor.resolve(given)
    except BadParameter as error:
        raise BadInput(f"{where}: [defaults] {error.message}") from error
    own = tuple(replace(p, default=resolved[p.name]) for p in descriptor.parameters)
    return replace(descriptor, parameters=own)


def _memory(table: dict[str, Any], where: Path) -> Memory:
    """What the pack says that it needs. Raises BadInput."""
    known = {field.name for field in fields(Memory)}
    wrong = [k for k, v in table.items() if k not in known or isinstance(v, bool) or not isinstance(v, (int, float))]
    if wrong or any(value < 0 for value in table.values()):
        raise BadInput(f"{where}: [memory] takes {' and '.join(sorted(known))} in MiB, 0 or more; got {table}")
    return Memory(**table)


def _file(entry: object, where: Path) -> PackFile:
    if not isinstance(entry, dict) or set(entry) != {"path", "bytes", "sha256"}:
        raise BadInput(f"{where}: each [[files]] needs path, bytes and sha256, nothing else; got {entry!r}")
    path, size, digest = entry["path"], entry["bytes"], entry["sha256"]
    if not isinstance(path, str) or type(size) is not int or size < 0:
        raise BadInput(f"{where}: [[files]] path must be text and bytes a whole number, got {entry!r}")
    if not isinstance(digest, str) or not _SHA256.match(digest):
        raise BadInput(f"{where}: sha256 of {path} must be 64 lower-case hex digits, got {digest!r}")
    check_file_name(path, where)
    return PackFile(path, size, digest)
