"""What `hdrgen doctor` does for Nuke: writes the user's file that names the sidecar, and looks at the one there.

It owns which command is written, and the words about it. It must not know the file's format (`client.installed`), nor
how a sidecar is started.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hdrgen_server import __version__
from hdrgen_server.cli.findings import Finding
from hdrgen_server.cli.nuke_path import nuke_folder
from hdrgen_server.cli.server import sidecar_command
from hdrgen_server.settings import Settings
from nuke_hdrgen.client.installed import Installed, read_installed, user_file, write_installed
from nuke_hdrgen.client.launch import COMMAND_VARIABLE
from nuke_hdrgen.wire.errors import BadParameter, HDRGenError

TOPIC = "nuke"
ADVICE = "run `hdrgen doctor --install`"


@dataclass(frozen=True)
class Written:
    """What an installation wrote where, and the folder that Nuke still has to be told."""

    file: str
    command: tuple[str, ...]
    nuke_path: str

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person: what was written, and the line for the shell that starts Nuke."""
        return [
            f"wrote {self.file}: Nuke starts the sidecar with {shlex.join(self.command)}",
            "add this to what starts Nuke, where HDRGen is not on its path yet:",
            f'  export NUKE_PATH={shlex.quote(self.nuke_path)}"${{NUKE_PATH:+:$NUKE_PATH}}"',
        ]


def install(settings: Settings, environment: Mapping[str, str]) -> Written:
    """Write the user's file with the command that this command line itself starts a sidecar with.

    Raises BadParameter when that command's program cannot be run, StorageError when the file cannot be written.
    """
    command = sidecar_command(settings)
    program = shutil.which(command[0])
    if program is None:
        raise BadParameter(f"the sidecar's program {command[0]} cannot be run; correct the setting `sidecar`")
    command = (str(Path(program).absolute()), *command[1:])
    folder = nuke_folder()
    return Written(write_installed(Installed(command, __version__), environment), command, str(folder))


def findings(environment: Mapping[str, str]) -> list[Finding]:
    """Whether a Nuke of this user's would find a sidecar to start: the file there, readable, its program runnable."""
    path = user_file(environment)
    found: list[Finding] = []
    if environment.get(COMMAND_VARIABLE, "").strip():
        found.append(Finding("ok", TOPIC, f"${COMMAND_VARIABLE} is set, and wins over {path}"))
    try:
        installed = read_installed(environment)
    except HDRGenError as error:
        return [*found, Finding("problem", TOPIC, error.message)]
    if installed is None:
        return found or [Finding("ok", TOPIC, f"Nuke is not told how to start the sidecar ({path} is missing)", ADVICE)]
    program = installed.command[0]
    if shutil.which(program) is None:
        what = f"{path} names {program}, which cannot be run"
        return [*found, Finding("problem", TOPIC, what, ADVICE)]
    if installed.package != __version__:
        what = f"{path} is from version {installed.package}, this is {__version__}"
        return [*found, Finding("warning", TOPIC, what, ADVICE)]
    return [*found, Finding("ok", TOPIC, f"Nuke starts the sidecar with {program}, by {path}")]
