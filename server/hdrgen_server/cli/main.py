"""The entry point: puts the commands together and turns every failure into one line and an exit status.

It owns exit codes (0 done, 2 usage or bad input, 3 already running, 4 refused, 5 worker failed, 130
cancelled) and `-v`. It must not know what a command does.
"""

from __future__ import annotations

import sys
import traceback
from dataclasses import dataclass, field
from typing import Annotated

import typer

from hdrgen_server import __version__
from hdrgen_server.cli import (
    bench,
    cache,
    config,
    console,
    demo,
    doctor,
    evaluate,
    hdrfuse,
    nuke_path,
    packs,
    preview,
    sdr2hdr,
    serve,
    status,
    submit,
    train,
    train_latenthdr,
    train_lumivid,
    train_qwen,
    txt2hdr,
)
from nuke_hdrgen.wire.errors import Cancelled, HDRGenError

VERBOSE = ("-v", "--verbose")


@dataclass(frozen=True)
class _Failure:
    """A failure that is no HDRGenError, in the same terms."""

    code: str
    message: str
    exit_status: int
    details: dict[str, object] = field(default_factory=dict[str, object])


app = typer.Typer(
    name="hdrgen",
    help="Scene-linear HDR from brackets, plates and prompts, through a local sidecar.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("hdrfuse", short_help="Fuse a bracket into one scene-linear EXR.")(hdrfuse.command)
app.command("sdr2hdr", short_help="Expand an SDR still, sequence or movie.")(sdr2hdr.command)
app.command("txt2hdr", short_help="Draw a prompt in scene-linear light.")(txt2hdr.command)
app.command("serve", short_help="Run the sidecar in the foreground.")(serve.command)
app.command("status", short_help="Say what the sidecar is doing.")(status.command)
app.command("doctor", short_help="Say what is wrong here, and what to do.")(doctor.command)
app.command("preview", short_help="Picture a scene-linear file.")(preview.command)
app.command("evaluate", short_help="Score packs on held-out scenes.")(evaluate.command)
train.app.command("latenthdr")(train_latenthdr.latenthdr)
train.app.command("lumivid")(train_lumivid.lumivid)
train.app.command("qwenlog")(train_qwen.qwenlog)
train.app.command("qwenlinear")(train_qwen.qwenlinear)
app.add_typer(train.app, name="train")
app.add_typer(packs.app, name="packs")
app.add_typer(cache.app, name="cache")
app.command("bench", short_help="Measure the wire, EXR or a pack.")(bench.command)
app.command("config", short_help="Print the settings and their origins.")(config.command)
app.command("submit", short_help="Write a bake as a job for a farm.")(submit.command)
app.command("nuke-path", short_help="Print the folder for NUKE_PATH.")(nuke_path.command)
app.command("demo", short_help="Run the examples through a sidecar.")(demo.command)


@app.callback()
def options(
    verbose: Annotated[bool, typer.Option(*VERBOSE, help="Show the traceback of a failure; works anywhere.")] = False,
) -> None:
    """Scene-linear HDR from brackets, plates and prompts, through a local sidecar."""
    del verbose  # `run` takes it out of the arguments, so that it works after the command's name too


def main() -> None:
    """Run the command line with this process's arguments and exit with its status."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status; a failure is one line on stderr."""
    verbose = any(argument in VERBOSE for argument in arguments)
    given = [argument for argument in arguments if argument not in VERBOSE]
    if given == ["--version"]:
        console.answer(f"hdrgen {__version__}")
        return 0
    try:
        status_code = app(given, standalone_mode=False, prog_name="hdrgen")
    except typer.TyperException as error:
        what = error.format_message().rstrip(".")
        return _failed(_Failure("usage", f"{what}; --help lists what there is", 2), given, verbose=verbose)
    except HDRGenError as error:
        return _failed(error, given, verbose=verbose)
    except (KeyboardInterrupt, typer.Abort):
        return _failed(_Failure("cancelled", "cancelled", Cancelled.exit_status), given, verbose=verbose)
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001 the one broad except of this process: a defect is one line too
        what = " ".join(f"{type(error).__name__}: {error}".split())
        advice = "this is a defect: run again with -v and report it"
        return _failed(_Failure("internal", f"{what}; {advice}", 5), given, verbose=verbose)
    if status_code == Cancelled.exit_status:  # typer's own answer to an interrupt
        return _failed(_Failure("cancelled", "cancelled", Cancelled.exit_status), given, verbose=verbose)
    return status_code if isinstance(status_code, int) else 0


def _failed(failure: HDRGenError | _Failure, arguments: list[str], *, verbose: bool) -> int:
    if verbose and sys.exc_info()[0] is not None:
        traceback.print_exc()
    message = " ".join(failure.message.split())
    console.note(message)
    if "--json" in arguments:
        details = console.plain(failure.details)
        console.emit_json({"error": {"code": failure.code, "message": message, "details": details}})
    return failure.exit_status
