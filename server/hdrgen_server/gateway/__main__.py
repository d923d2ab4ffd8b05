"""`python -m hdrgen_server.gateway`: reads the command line and runs one gateway.

It owns arguments, signals, logs and exit codes. Imports are kept few: a client waits for this process.
"""

from __future__ import annotations

import argparse
import asyncio
import grp
import logging
import os
import pwd
import signal
import socket
import sys
from pathlib import Path

from hdrgen_server.gateway.clock import SystemClock
from hdrgen_server.gateway.listen import Listener, listen_tcp, listen_unix
from hdrgen_server.gateway.logs import start_logging
from hdrgen_server.gateway.runtime import ServerLock, default_runtime_folder, private_folder
from hdrgen_server.gateway.server import Gateway, Plan, new_token
from hdrgen_server.settings import Settings, load_settings
from nuke_hdrgen.wire.errors import BadParameter, HDRGenError

log = logging.getLogger("hdrgen_server.gateway")

SOCKET_NAME = "hdrgen.sock"


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line as a namespace; argparse ends the process with status 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m hdrgen_server.gateway", description="The sidecar's socket process.", allow_abbrev=False
    )
    parser.add_argument("--socket", help="path of the Unix socket (default: hdrgen.sock in the runtime folder)")
    parser.add_argument("--tcp", action="store_true", help="loopback TCP with a token instead of a Unix socket")
    parser.add_argument("--device", help="auto, cpu, cuda, cuda:N, or several with commas")
    parser.add_argument("--runtime-dir", type=Path, help="folder of socket, endpoint file and frame data")
    parser.add_argument("--socket-group", help="Unix group whose members may connect")
    lifetime = parser.add_mutually_exclusive_group()
    lifetime.add_argument("--parent-fd", type=int, help="end when this pipe ends, because the parent did")
    lifetime.add_argument("--idle-exit", type=float, help="end after this many idle seconds, 0 never")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run a gateway to its end; the exit status is that of the command line's table."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        settings = load_settings(
            socket=options.socket,
            device=options.device,
            socket_group=options.socket_group,
            idle_exit_s=options.idle_exit,
        )
        return _serve(settings, options)
    except HDRGenError as error:
        sys.stderr.write(f"hdrgen: {error.message}\n")
        return error.exit_status


def _serve(settings: Settings, options: argparse.Namespace) -> int:
    group = _group(settings.socket_group)
    group_id = group.gr_gid if group else None
    runtime = private_folder(options.runtime_dir or default_runtime_folder(), group=group_id)
    lock = ServerLock.take(runtime)
    try:
        start_logging(runtime / "gateway.log", settings.log_level)
        use_tcp = options.tcp or not hasattr(socket, "AF_UNIX")
        listener = (
            listen_tcp()
            if use_tcp
            else listen_unix(Path(settings.socket) if settings.socket else runtime / SOCKET_NAME, group_id)
        )
        plan = Plan(
            runtime=runtime,
            devices=devices(settings.device),
            idle_exit_s=0.0 if options.parent_fd is not None else settings.idle_exit_s,
            members=_members(group),
            group=group_id,
            worker_log=runtime / "worker.log",
        )
        asyncio.run(_run(settings, plan, listener, new_token() if use_tcp else None, options.parent_fd))
    finally:
        lock.release()
    return 0


async def _run(settings: Settings, plan: Plan, listener: Listener, token: str | None, parent_fd: int | None) -> None:
    try:
        gateway = Gateway(settings, plan, listener, SystemClock(), token)
    except BaseException:
        listener.close()
        raise
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, gateway.stop)
    if parent_fd is not None:
        os.set_blocking(parent_fd, False)
        loop.add_reader(parent_fd, _parent_said, gateway, parent_fd)
    await gateway.run()


def _parent_said(gateway: Gateway, descriptor: int) -> None:
    try:
        alive = bool(os.read(descriptor, 64))
    except BlockingIOError:
        return
    except OSError:
        alive = False
    if not alive:
        asyncio.get_running_loop().remove_reader(descriptor)
        log.info("parent has ended")
        gateway.stop(hurry=True)


def devices(text: str) -> tuple[str, ...]:
    """The devices of the setting, one worker each; `auto` is the GPU when its driver is there, else the CPU."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names in {(), ("auto",)}:
        return ("cuda",) if Path("/dev/nvidiactl").exists() else ("cpu",)
    for name in names:
        if name not in {"cpu", "cuda"} and not (name.startswith("cuda:") and name[5:].isdigit()):
            raise BadParameter(f"device {name!r} is not known; use auto, cpu, cuda or cuda:N")
    return names


def _group(name: str) -> grp.struct_group | None:
    if not name:
        return None
    try:
        return grp.getgrnam(name)
    except KeyError as error:
        raise BadParameter(f"there is no group {name!r} on this machine; correct socket_group") from error


def _members(group: grp.struct_group | None) -> frozenset[int]:
    if group is None:
        return frozenset()
    named = {user.pw_uid for user in pwd.getpwall() if user.pw_name in group.gr_mem}
    return frozenset(named | {user.pw_uid for user in pwd.getpwall() if user.pw_gid == group.gr_gid})


if __name__ == "__main__":
    sys.exit(main())
