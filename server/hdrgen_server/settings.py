"""Every option of the sidecar and the command line, typed and documented, in one place.

It owns names, defaults, limits and where a value comes from: command-line flag, then environment
(`HDRGEN_NAME`), then `hdrgen.toml` in the current folder, then the user's file, then the site's file, then
the default. It must not know torch, sockets or packs. Nothing else in the sidecar reads `HDRGEN_*` or a
settings file.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import platformdirs
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from nuke_hdrgen.wire.errors import BadParameter
from nuke_hdrgen.wire.limits import Limits

FILE_NAME = "settings.toml"
PROJECT_FILE_NAME = "hdrgen.toml"

_WIRE = Limits()
# What a running server must share with whoever adopts it.
_SHARED = ("data_folder", "packs_folders", "accept_licences", "memory_budget_mib")


def settings_files() -> tuple[tuple[str, Path], ...]:
    """The settings files in order of precedence, as (layer, path); none of them needs to exist."""
    return (
        ("project", Path.cwd() / PROJECT_FILE_NAME),
        ("user", platformdirs.user_config_path("hdrgen") / FILE_NAME),
        ("site", platformdirs.site_config_path("hdrgen") / FILE_NAME),
    )


class _FileSource(InitSettingsSource):
    """One TOML file as a pydantic-settings source; a missing file is empty."""

    def __init__(self, settings_cls: type[BaseSettings], path: Path) -> None:
        super().__init__(settings_cls, init_kwargs=_read_toml(settings_cls, path))


class Settings(BaseSettings):
    """All options, frozen. Build it with `load_settings`, which turns a bad value into one line."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="HDRGEN_", env_ignore_empty=True, extra="forbid", frozen=True, validate_default=False
    )

    server: str = Field("", description="Address of the sidecar: a socket path or HOST:PORT; empty finds it.")
    socket: str = Field("", description="Socket path that `hdrgen serve` binds; empty is the runtime folder.")
    socket_group: str = Field("", description="Unix group that may connect too, for a service shared on a machine.")
    sidecar: str = Field("", description="Command that starts the sidecar when none runs; empty is this Python's.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N, or several with commas: one worker each.")
    threads: int = Field(0, ge=0, le=1024, description="Torch threads of a CPU worker; 0 leaves it to torch.")
    memory_budget_mib: int = Field(0, ge=0, description="Most memory a worker may plan for; 0 is what is free.")
    pack_idle_s: float = Field(300.0, ge=0, description="A pack unused this long is unloaded from its device.")
    idle_exit_s: float = Field(900.0, ge=0, description="A shared sidecar without work ends after this; 0 never.")

    data_folder: Path = Field(
        default_factory=lambda: platformdirs.user_data_path("hdrgen"),
        description="Added packs, accepted licences and training data.",
    )
    cache_folder: Path = Field(
        default_factory=lambda: platformdirs.user_cache_path("hdrgen"), description="What can be made again."
    )
    packs_folders: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description="More folders of packs, such as a site's share; in the environment split by ':'."
    )
    accept_licences: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Licences, by id or by pack name, that the site has accepted for everyone here."
    )
    ocio_config: str = Field("", description="OCIO config when neither --config nor $OCIO names one.")
    nan_policy: Literal["refuse", "replace"] = Field(
        "refuse",
        description="What the command line does with NaN and Inf in an input; replaced ones are counted.",
    )
    provenance: Literal["full", "digest", "none"] = Field(
        "full", description="How much of the request a result's header records."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="What the sidecar logs.")

    limit_header_bytes: int = Field(_WIRE.header_bytes, ge=1, description="Largest JSON header of a message.")
    limit_header_depth: int = Field(_WIRE.header_depth, ge=1, description="Deepest nesting of a JSON header.")
    limit_header_keys: int = Field(_WIRE.header_keys, ge=1, description="Most keys of one object in a header.")
    limit_header_items: int = Field(_WIRE.header_items, ge=1, description="Most items of one list in a header.")
    limit_header_containers: int = Field(
        _WIRE.header_containers, ge=1, description="Most objects and lists in a header."
    )
    limit_hello_bytes: int = Field(_WIRE.hello_bytes, ge=1, description="Largest first message of a connection.")
    limit_frame_bytes: int = Field(_WIRE.frame_bytes, ge=1, description="Largest body of one frame message.")
    limit_flight_bytes: int = Field(_WIRE.flight_bytes, ge=1, description="Bodies held for all jobs together.")
    limit_connections: int = Field(_WIRE.connections, ge=1, description="Open connections.")
    limit_session_frames: int = Field(_WIRE.session_frames, ge=1, description="Frames of one session in flight.")
    limit_queue_jobs: int = Field(
        _WIRE.queue_jobs, ge=1, description="Jobs waiting; beyond it a client is told to come back."
    )
    limit_header_deadline_s: float = Field(
        _WIRE.header_deadline_s, gt=0, description="Time for a first message, and for the rest of a header."
    )
    limit_upload_floor_bytes_s: int = Field(
        _WIRE.upload_floor_bytes_s, ge=0, description="Slowest upload of a body that is waited for."
    )
    limit_upload_grace_s: float = Field(
        _WIRE.upload_grace_s, ge=0, description="Time before the slowest upload is enforced."
    )
    limit_progress_s: float = Field(
        _WIRE.progress_s, gt=0, description="Longest pause between progress messages of an open job."
    )
    limit_silence_s: float = Field(_WIRE.silence_s, gt=0, description="A client gives up on a server silent this long.")
    limit_beat_s: float = Field(_WIRE.beat_s, gt=0, description="Pause between a worker's signs of life.")
    limit_worker_silence_s: float = Field(
        _WIRE.worker_silence_s, gt=0, description="A worker silent this long is hung and is ended."
    )
    limit_worker_loading_s: float = Field(
        _WIRE.worker_loading_s, gt=0, description="The same while it loads or compiles."
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

    @field_validator("packs_folders", mode="before")
    @classmethod
    def _split_folders(cls, value: object) -> object:
        return [p for p in value.split(os.pathsep) if p] if isinstance(value, str) else value

    @field_validator("accept_licences", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return [n.strip() for n in value.split(",") if n.strip()] if isinstance(value, str) else value

    @field_validator("data_folder", "cache_folder", "packs_folders", mode="after")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        return tuple(p.expanduser() for p in value) if isinstance(value, tuple) else value.expanduser()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, then the three files; no dotenv and no secrets folder."""
        return (
            init_settings,
            env_settings,
            *(_FileSource(settings_cls, path) for _, path in settings_files()),
        )


def load_settings(**overrides: Any) -> Settings:
    """The effective settings; an override of None counts as not given.

    Raises BadParameter, one line, naming the option, the value and where it came from.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    _refuse_unknown(Settings, given, "the call")
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"][:1])
        where = origins(**given).get(name, "default")
        raise BadParameter(
            f"setting {name} from {where}: {first['msg'].lower()}, got {first['input']!r}; correct it there"
        ) from error


def origins(**overrides: Any) -> dict[str, str]:
    """Where each option's value comes from: `flag`, the variable's name, the file's path, or `default`."""
    found = dict.fromkeys(Settings.model_fields, "default")
    for _, path in reversed(settings_files()):
        found.update(dict.fromkeys(_read_toml(Settings, path), str(path)))
    found.update({name: f"HDRGEN_{name.upper()}" for name in EnvSettingsSource(Settings)()})
    found.update({name: "flag" for name, value in overrides.items() if value is not None})
    return found


def unknown_variables() -> tuple[str, ...]:
    """HDRGEN_* variables in the environment that no option reads, usually misspelt."""
    known = {f"HDRGEN_{name.upper()}" for name in Settings.model_fields}
    return tuple(sorted(n for n in os.environ if n.upper().startswith("HDRGEN_") and n.upper() not in known))


def _read_toml(settings_cls: type[BaseSettings], path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadParameter(f"settings file {path} cannot be read: {error}; correct or remove it") from error
    _refuse_unknown(settings_cls, values, str(path))
    return values


def _refuse_unknown(settings_cls: type[BaseSettings], values: dict[str, Any], where: str) -> None:
    for name in values:
        if name not in settings_cls.model_fields:
            near = difflib.get_close_matches(name, settings_cls.model_fields, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "`hdrgen config` lists the options"
            raise BadParameter(f"{where} sets {name!r}, which is no option; {hint}")
