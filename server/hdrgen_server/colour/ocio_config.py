"""OCIO configs: finding one, looking spaces up in it by name, and applying its conversions to arrays.

It owns loading and the errors that name the nearest names. It must not know interop ids' meaning or frames.
No path leads to the raw config: OCIO falls back to it silently when its variable is unset or empty, so it is
never asked to.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PyOpenColorIO

from nuke_hdrgen.wire.errors import BadInput, UnknownColourspace

OCIO: Any = PyOpenColorIO
# The second is not a subclass of the first.
OCIO_ERRORS: tuple[type[Exception], ...] = (OCIO.Exception, OCIO.ExceptionMissingFile)

PINNED_CONFIG = "studio-config-v5.0.0_aces-v2.1_ocio-v2.6"
AP0_ROLE: str = OCIO.ROLE_INTERCHANGE_SCENE

_SCHEME = "ocio://"
_MOVING_NAMES = ("default", "cg-config-latest", "studio-config-latest")
_FILE_ENDINGS = (".ocio", ".ocioz")


@dataclass(frozen=True)
class ConfigView:
    """A loaded config and where it came from (a built-in's name or a path), for messages."""

    config: Any
    source: str

    def spaces(self) -> tuple[str, ...]:
        """Names of all colourspaces, inactive ones included."""
        everything = self.config.getColorSpaces(OCIO.SEARCH_REFERENCE_SPACE_ALL, OCIO.COLORSPACE_ALL)
        return tuple(space.getName() for space in everything)

    def roles(self) -> tuple[str, ...]:
        """Names of the roles."""
        return tuple(self.config.getRoleNames())


def load_config(name_or_path: str | Path | None = None, environment: Mapping[str, str] | None = None) -> ConfigView:
    """The config to use: the argument, else $OCIO, else the pinned built-in studio config.

    A name is that of a built-in (`studio-config-v5...`, with or without `ocio://`) or a path of an .ocio or
    .ocioz file. An empty argument or variable counts as unset. Raises UnknownColourspace when there is no
    such built-in or file, naming the nearest; BadInput when the file is no config that this OCIO can read.
    """
    environment = os.environ if environment is None else environment
    wanted = str(name_or_path or "") or environment.get("OCIO", "") or _SCHEME + PINNED_CONFIG
    builtin = wanted.removeprefix(_SCHEME)
    is_file = not wanted.startswith(_SCHEME) and Path(wanted).is_file()
    builtins = [row[0] for row in OCIO.BuiltinConfigRegistry().getBuiltinConfigs()]
    if builtin in (*builtins, *_MOVING_NAMES) and not is_file:
        return ConfigView(_load(_SCHEME + builtin), builtin)
    if is_file:
        return ConfigView(_load(wanted), wanted)
    looks_like_path = os.sep in builtin or builtin.endswith(_FILE_ENDINGS)
    if wanted.startswith(_SCHEME) or not looks_like_path:
        raise UnknownColourspace(f"there is no built-in OCIO config {builtin!r}; {nearest(builtin, builtins)}")
    folder = Path(wanted).parent
    beside = [path.name for path in folder.iterdir() if path.suffix in _FILE_ENDINGS] if folder.is_dir() else []
    raise UnknownColourspace(
        f"the OCIO config {wanted} is not a file; set --config or $OCIO to one; " + nearest(Path(wanted).name, beside)
    )


def find_space(view: ConfigView, name: str) -> Any | None:
    """The OCIO ColorSpace of a name, alias, role or interop id, or None."""
    space = view.config.getColorSpace(name) if name else None
    if space is None and name:
        for candidate in view.spaces():
            if view.config.getColorSpace(candidate).getInteropID() == name:
                return view.config.getColorSpace(candidate)
    return space


def apply(view: ConfigView, rgb: npt.NDArray[np.float32], source: str, target: str) -> None:
    """Convert C-contiguous float32 (..., 3) in place between two spaces of the config, without lossy
    optimisation.

    Raises BadInput with OCIO's first line when it has no way from one to the other.
    """
    try:
        processor = view.config.getProcessor(source, target)
        processor.getOptimizedCPUProcessor(OCIO.OPTIMIZATION_LOSSLESS).applyRGB(rgb)
    except OCIO_ERRORS as error:
        raise BadInput(f"{view.source} cannot convert {source!r} to {target!r}: {_first_line(error)}") from error


def nearest(name: str, candidates: Iterable[str]) -> str:
    """`nearest: …` with up to three close candidates, else `known: …` with the first eight."""
    by_fold = {candidate.casefold(): candidate for candidate in candidates}
    near = difflib.get_close_matches(name.casefold(), by_fold, n=3, cutoff=0.5)
    if near:
        return "nearest: " + ", ".join(by_fold[key] for key in near)
    some = sorted(by_fold.values())
    return "known: " + (", ".join(some[:8]) + (", …" if len(some) > 8 else "") or "none")


def _load(name: str) -> Any:
    try:
        return OCIO.Config.CreateFromFile(name)
    except OCIO_ERRORS as error:
        raise BadInput(
            f"the OCIO config {name} cannot be read: {_first_line(error)}; repair it or choose another with --config"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0]
