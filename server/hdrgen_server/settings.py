"""Every option of the sidecar and the command line, typed and documented, in one place.

It owns names, defaults, limits and where a value comes from: command-line flag, then environment (`HDRGEN_NAME`), then
`hdrgen.toml` in the current folder, then the user's file, then the site's file, then the default. It must not know
torch, sockets or packs. Nothing else in the sidecar reads `HDRGEN_*` or a settings file.

Built on msgspec, whose import costs a third of what pydantic-settings does: every start of the gateway waits for this.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
import platformdirs
from msgspec import Meta

from nuke_hdrgen.wire.errors import BadParameter
from nuke_hdrgen.wire.limits import Limits

FILE_NAME = "settings.toml"
PROJECT_FILE_NAME = "hdrgen.toml"
PREFIX = "HDRGEN_"

_WIRE = Limits()
# What a running server must share with whoever adopts it.
_SHARED = ("data_folder", "packs_folders", "accept_licences", "memory_budget_mib")
# How lists are written where only text can be.
_SEPARATORS = {"packs_folders": os.pathsep, "accept_licences": ","}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All options, frozen. Build it with `load_settings`, which turns a bad value into one line."""

    server: Annotated[str, Meta(description="Address of the sidecar: a socket path or HOST:PORT; empty finds it.")] = ""
    socket: Annotated[str, Meta(description="Socket path that `hdrgen serve` binds; empty is the runtime folder.")] = ""
    socket_group: Annotated[
        str, Meta(description="Unix group that may connect too, for a service shared on a machine.")
    ] = ""
    sidecar: Annotated[
        str, Meta(description="Command that starts the sidecar when none runs; empty is this Python's.")
    ] = ""
    device: Annotated[str, Meta(description="auto, cpu, cuda, cuda:N, or several with commas: one worker each.")] = (
        "auto"
    )
    threads: Annotated[int, Meta(ge=0, le=1024, description="Torch threads of a CPU worker; 0 leaves it to torch.")] = 0
    memory_budget_mib: Annotated[
        int, Meta(ge=0, description="Most memory a worker may plan for; 0 is what is free.")
    ] = 0
    pack_idle_s: Annotated[float, Meta(ge=0, description="A pack unused this long is unloaded from its device.")] = (
        300.0
    )
    idle_exit_s: Annotated[float, Meta(ge=0, description="A shared sidecar without work ends after this; 0 never.")] = (
        900.0
    )
    drain_s: Annotated[float, Meta(ge=0, description="Time that open jobs get when the sidecar is told to end.")] = 30.0
    cancel_grace_s: Annotated[
        float, Meta(gt=0, description="A worker that keeps a cancelled job this long is ended.")
    ] = 60.0
    data_folder: Annotated[Path, Meta(description="Added packs, accepted licences and training data.")] = msgspec.field(
        default_factory=lambda: platformdirs.user_data_path("hdrgen")
    )
    cache_folder: Annotated[Path, Meta(description="What can be made again.")] = msgspec.field(
        default_factory=lambda: platformdirs.user_cache_path("hdrgen")
    )
    packs_folders: Annotated[
        tuple[Path, ...],
        Meta(description="More folders of packs, such as a site's share; in the environment split by ':'."),
    ] = ()
    accept_licences: Annotated[
        tuple[str, ...],
        Meta(description="Licences, by id or by pack name, that the site has accepted for everyone here."),
    ] = ()
    ocio_config: Annotated[str, Meta(description="OCIO config when neither --config nor $OCIO names one.")] = ""
    nan_policy: Annotated[
        Literal["refuse", "replace"],
        Meta(description="What the command line does with NaN and Inf in an input; replaced ones are counted."),
    ] = "refuse"
    provenance: Annotated[
        Literal["full", "digest", "none"], Meta(description="How much of the request a result's header records.")
    ] = "full"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Meta(description="What the sidecar logs.")] = (
        "info"
    )
    limit_header_bytes: Annotated[int, Meta(ge=1, description="Largest JSON header of a message.")] = _WIRE.header_bytes
    limit_header_depth: Annotated[int, Meta(ge=1, description="Deepest nesting of a JSON header.")] = _WIRE.header_depth
    limit_header_keys: Annotated[int, Meta(ge=1, description="Most keys of one object in a header.")] = (
        _WIRE.header_keys
    )
    limit_header_items: Annotated[int, Meta(ge=1, description="Most items of one list in a header.")] = (
        _WIRE.header_items
    )
    limit_header_containers: Annotated[int, Meta(ge=1, description="Most objects and lists in a header.")] = (
        _WIRE.header_containers
    )
    limit_hello_bytes: Annotated[int, Meta(ge=1, description="Largest first message of a connection.")] = (
        _WIRE.hello_bytes
    )
    limit_frame_bytes: Annotated[int, Meta(ge=1, description="Largest body of one frame message.")] = _WIRE.frame_bytes
    limit_flight_bytes: Annotated[int, Meta(ge=1, description="Bodies held for all jobs together.")] = (
        _WIRE.flight_bytes
    )
    limit_connections: Annotated[int, Meta(ge=1, description="Open connections.")] = _WIRE.connections
    limit_session_frames: Annotated[int, Meta(ge=1, description="Frames of one session in flight.")] = (
        _WIRE.session_frames
    )
    limit_queue_jobs: Annotated[
        int, Meta(ge=1, description="Jobs waiting; beyond it a client is told to come back.")
    ] = _WIRE.queue_jobs
    limit_header_deadline_s: Annotated[
        float, Meta(gt=0, description="Time for a first message, and for the rest of a header.")
    ] = _WIRE.header_deadline_s
    limit_upload_floor_bytes_s: Annotated[
        int, Meta(ge=0, description="Slowest upload of a body that is waited for.")
    ] = _WIRE.upload_floor_bytes_s
    limit_upload_grace_s: Annotated[float, Meta(ge=0, description="Time before the slowest upload is enforced.")] = (
        _WIRE.upload_grace_s
    )
    limit_progress_s: Annotated[
        float, Meta(gt=0, description="Longest pause between progress messages of an open job.")
    ] = _WIRE.progress_s
    limit_silence_s: Annotated[float, Meta(gt=0, description="A client gives up on a server silent this long.")] = (
        _WIRE.silence_s
    )
    limit_beat_s: Annotated[float, Meta(gt=0, description="Pause between a worker's signs of life.")] = _WIRE.beat_s
    limit_worker_silence_s: Annotated[
        float, Meta(gt=0, description="A worker silent this long is hung and is ended.")
    ] = _WIRE.worker_silence_s
    limit_worker_loading_s: Annotated[float, Meta(gt=0, description="The same while it loads or compiles.")] = (
        _WIRE.worker_loading_s
    )

    @property
    def limits(self) -> Limits:
        """The wire's limits, from the `limit_` options."""
        return Limits(**{f.name: getattr(self, f"limit_{f.name}") for f in fields(Limits)})

    @property
    def digest(self) -> str:
        """Names the settings that a client and the server it adopts must share: 12 hex digits."""
        shared = {name: str(getattr(self, name)) for name in _SHARED}
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:12]


def settings_files() -> tuple[tuple[str, Path], ...]:
    """The settings files in order of precedence, as (layer, path); none of them needs to exist."""
    return (
        ("project", Path.cwd() / PROJECT_FILE_NAME),
        ("user", platformdirs.user_config_path("hdrgen") / FILE_NAME),
        ("site", platformdirs.site_config_path("hdrgen") / FILE_NAME),
    )


def load_settings(**overrides: Any) -> Settings:
    """The effective settings; an override of None counts as not given.

    Raises BadParameter, one line, naming the option, the value and where it came from.
    """
    values: dict[str, Any] = {}
    for where, layer in _layers(overrides):
        for name, value in layer.items():
            values[name] = _checked(name, value, where)
    return Settings(**values)


def origins(**overrides: Any) -> dict[str, str]:
    """Where each option's value comes from: `flag`, the variable's name, the file's path, or `default`."""
    found = dict.fromkeys(Settings.__struct_fields__, "default")
    for where, layer in _layers(overrides):
        found.update({name: _variable(name) if where == "environment" else where for name in layer})
    return found


@cache
def descriptions() -> Mapping[str, str]:
    """What each option does, by name."""
    return {name: str(hint.__metadata__[0].description) for name, hint in _hints().items()}


def unknown_variables() -> tuple[str, ...]:
    """HDRGEN_* variables in the environment that no option reads, usually misspelt."""
    known = {_variable(name) for name in Settings.__struct_fields__}
    return tuple(sorted(n for n in os.environ if n.startswith(PREFIX) and n not in known))


def _layers(overrides: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Where values come from and the values, the weakest first."""
    flags = {name: value for name, value in overrides.items() if value is not None}
    _refuse_unknown(flags, "the call")
    variables = {name: os.environ.get(_variable(name), "") for name in Settings.__struct_fields__}
    return [
        *((str(path), _read_toml(path)) for _, path in reversed(settings_files())),
        ("environment", {name: text for name, text in variables.items() if text}),
        ("flag", flags),
    ]


def _variable(name: str) -> str:
    return PREFIX + name.upper()


@cache
def _hints() -> dict[str, Any]:
    hints = get_type_hints(Settings, include_extras=True)
    return {name: hints[name] for name in Settings.__struct_fields__}


def _checked(name: str, value: object, where: str) -> Any:
    if name in _SEPARATORS and isinstance(value, str):
        value = [part.strip() for part in value.split(_SEPARATORS[name]) if part.strip()]
    try:
        return msgspec.convert(value, _hints()[name], strict=False, dec_hook=_path)
    except msgspec.ValidationError as error:
        place = _variable(name) if where == "environment" else where
        expected = str(error).split(" - at ")[0].replace("`", "").lower()
        raise BadParameter(f"setting {name} from {place}: {expected}, got {value!r}; correct it there") from error


def _path(kind: type[Any], value: object) -> Any:
    if kind is Path and isinstance(value, str | Path) and str(value):
        return Path(value).expanduser()
    raise msgspec.ValidationError("Expected a path")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadParameter(f"settings file {path} cannot be read: {error}; correct or remove it") from error
    _refuse_unknown(values, str(path))
    return values


def _refuse_unknown(values: Mapping[str, Any], where: str) -> None:
    known = Settings.__struct_fields__
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`hdrgen config` lists the options"
            raise BadParameter(f"{where} sets {name!r}, which is no option; {hint}")
