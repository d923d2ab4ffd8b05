"""Adds a pack: hashes its files, writes the manifest that records them, and puts the folder with the user's
packs.

It owns the copying and the finished manifest. It must not know torch or sockets, and opens no weights: files
that may hold a pickle are refused by name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hdrgen_server.packs.manifest import (
    MANIFEST_NAME,
    Pack,
    PackFile,
    check_file_name,
    parse_pack,
    parse_table,
    read_manifest,
    read_pack,
)
from hdrgen_server.packs.registry import load_registry, user_packs_folder
from hdrgen_server.packs.verify import hash_file, verify
from hdrgen_server.settings import Settings
from nuke_hdrgen.wire.errors import BadInput, StorageError


def add(folder: Path, settings: Settings, link: bool = False, link_files: bool = False) -> Pack:
    """Copy the pack in `folder` to the user's packs, or only link to it, or to each of its files, and return it.

    A manifest without [[files]] gets them, with sizes and digests, from every file in the folder; one that
    has them is compared with the files. Raises BadInput (no manifest, a pickle, files that differ, a name
    already there, a base that is not) and StorageError.
    """
    source = folder.resolve()
    raw = finished_manifest(source)
    pack = parse_pack(raw, source)
    problems = verify(pack)
    if problems:
        raise BadInput(f"pack {pack.name} is not added: {problems[0]}")
    registry = load_registry(settings)
    registry.based(pack)
    here = registry.packs.get(pack.name)
    if here is not None:
        raise BadInput(f"a pack {pack.name} is already at {here.path}; remove it or rename the new one")
    target = user_packs_folder(settings) / pack.name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if link:
            _write_beside(source / MANIFEST_NAME, raw)
            target.symlink_to(source, target_is_directory=True)
        else:
            _copy(pack, raw, target, link_files=link_files)
    except OSError as error:
        raise StorageError(
            f"pack {pack.name} cannot be put at {target}: {error.strerror}; free space or permit it"
        ) from error
    return registry.based(read_pack(target))


def finished_manifest(folder: Path) -> bytes:
    """The manifest's bytes with every file recorded. Raises BadInput for a pickle or an unknown file type."""
    raw = read_manifest(folder)
    where = folder / MANIFEST_NAME
    table = parse_table(raw, where)
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != where)
    names = [p.relative_to(folder).as_posix() for p in paths]
    for name in names:
        check_file_name(name, where)
    if table.get("files"):
        missing = sorted(set(names) - {f.path for f in parse_pack(raw, folder).files})
        if missing:
            raise BadInput(f"{where} does not list {missing[0]}; remove the file, or [[files]] to record all anew")
        return raw
    entries = [PackFile(name, path.stat().st_size, hash_file(path)) for name, path in zip(names, paths, strict=True)]
    return raw.rstrip() + b"\n" + "".join(map(_entry_text, entries)).encode()


def _entry_text(entry: PackFile) -> str:
    quoted = entry.path.replace('"', '\\"')
    return f'\n[[files]]\npath = "{quoted}"\nbytes = {entry.bytes}\nsha256 = "{entry.sha256}"\n'


def _copy(pack: Pack, manifest: bytes, target: Path, *, link_files: bool) -> None:
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for entry in pack.files:
            copy = beside / entry.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            source = pack.path / entry.path
            if link_files:
                copy.symlink_to(source.resolve())
            else:
                shutil.copyfile(source, copy)
        (beside / MANIFEST_NAME).write_bytes(manifest)
        beside.chmod(0o755)
        beside.rename(target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_beside(path: Path, raw: bytes) -> None:
    if path.read_bytes() != raw:
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        beside.write_bytes(raw)
        beside.replace(path)
