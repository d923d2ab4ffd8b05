"""Runs a planned bake: two lanes of jobs, each exporting through Nuke's main thread and talking to the sidecar itself.

It owns the order of a bake: is it there already, has it a free name, export, send, keep. Sockets and files are touched
in its own threads only. It must not know buttons, command lines or how progress is shown.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import uuid
from concurrent import futures
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterator, List, Protocol, Sequence

from nuke_hdrgen.bake.exr_header import exr_shape
from nuke_hdrgen.client.connection import Connection
from nuke_hdrgen.client.job import FrameBody, run_job, write_result
from nuke_hdrgen.host import results
from nuke_hdrgen.host.export import export_frame
from nuke_hdrgen.host.main_thread import MainThread, ask
from nuke_hdrgen.host.nodes import write_of
from nuke_hdrgen.host.orders import Order, Piece
from nuke_hdrgen.wire.errors import (
    BadInput,
    BadParameter,
    Busy,
    Cancelled,
    InvalidMessage,
    LicenceNotAccepted,
    UnknownPack,
)
from nuke_hdrgen.wire.identity import input_identity, result_key
from nuke_hdrgen.wire.messages import Frame, Open, PackInfo, Progress, Result, Welcome

LANES = 2  # one frame computes while the next is rendered and sent
BUSY_RETRIES = 240
BUSY_WAIT_S = 0.25
POLL_S = 0.1
PIXELS_PER_MEGAPIXEL = 1e6

Connect = Callable[[], Connection]


class Report(Protocol):
    """Who follows a bake; called from its threads, one at a time."""

    def begin(self, pieces: int, pack: str, device: str) -> None:
        """Work starts."""
        ...

    def step(self, piece: Piece, progress: Progress) -> None:
        """The sidecar says what it does for a piece."""
        ...

    def ready(self, piece: Piece, pattern: str, done: int, sent: bool) -> None:
        """A piece is in its place, as the `done`th; `sent` when it was made now."""
        ...

    def cancelled(self) -> bool:
        """Whether the user wants the bake to end; asked about ten times a second."""
        ...

    def end(self) -> None:
        """Nothing more comes."""
        ...


@dataclass
class Summary:
    """What a bake did: pieces made and found, its take, what the sidecar warned of; seconds in all, megapixels made."""

    sent: int = 0
    found: int = 0
    take: int = 0
    pack: str = ""
    device: str = ""
    warnings: List[str] = field(default_factory=list[str])
    counts: Dict[str, int] = field(default_factory=dict[str, int])
    seconds: float = 0.0
    megapixels: float = 0.0


@dataclass(frozen=True)
class Exported:
    """One input on local disk: its frame message and its identity."""

    path: str
    frame: Frame
    identity: str


class Bake:
    """One bake under way. `run` blocks its thread; `cancel` may come from any."""

    def __init__(self, order: Order, main: MainThread, connect: Connect, report: Report) -> None:
        self.order = order
        self.done = threading.Event()
        self._main, self._connect, self._report = main, connect, report
        self._stop = threading.Event()
        self._cancelled = False
        self._lock = threading.RLock()
        self._waiting = list(reversed(order.pieces))
        self._unfinished = set(range(len(order.pieces)))
        self._summary = Summary(take=order.take)

    def cancel(self) -> None:
        """End the bake soon; finished frames stay."""
        self._cancelled = True
        self._stop.set()

    def run(self) -> Summary:
        """Make every piece that is not there. Raises the first failure; what was finished before it stays."""
        with self._connect() as connection:
            welcome = connection.welcome
            assert welcome is not None
            pack = choose_pack(self.order, welcome)
            results.check_writable(os.path.dirname(self.order.path(self.order.pieces[0], self.order.take)))
            self._summary.pack = pack.name
            self._summary.device = welcome.workers[0].device if welcome.workers else "device"
            self._report.begin(len(self.order.pieces), pack.name, self._summary.device)
            started = time.monotonic()
            try:
                self._run_lanes(connection, pack)
            finally:
                self._report.end()
            self._summary.seconds = time.monotonic() - started
        return self._summary

    def _run_lanes(self, connection: Connection, pack: PackInfo) -> None:
        """Run the lanes to their end; daemons, so that a Nuke that quits in mid bake does not wait for them."""
        own = [connection, *(connection.again() for _ in self.order.pieces[1:LANES])]
        failures: List[Exception] = []
        lanes = [
            threading.Thread(target=self._lane, args=(one, pack, failures), name="hdrgen lane", daemon=True)
            for one in own
        ]
        for lane in lanes:
            lane.start()
        while any(lane.is_alive() for lane in lanes):
            lanes[-1].join(POLL_S)
            lanes[0].join(0.0 if lanes[-1].is_alive() else POLL_S)
            if not self._stop.is_set() and self._report.cancelled():
                self.cancel()
        for one in own[1:]:
            one.close()
        if self._cancelled:
            raise Cancelled(f"the bake of {self.order.name} was cancelled; finished frames are kept")
        if failures:
            raise failures[0]

    def _lane(self, connection: Connection, pack: PackInfo, failures: List[Exception]) -> None:
        """The top of a lane's thread: pieces one after another until none waits; the first failure stops all lanes."""
        try:
            while not self._stop.is_set():
                with self._lock:
                    if not self._waiting:
                        return
                    piece = self._waiting.pop()
                self._bake(connection, pack, piece)
        except Exception as error:  # noqa: BLE001  # not swallowed: the bake raises the first
            failures.append(error)
            self._stop.set()

    def _bake(self, connection: Connection, pack: PackInfo, piece: Piece) -> None:
        folder = tempfile.mkdtemp(prefix="hdrgen-")
        try:
            inputs = [self._export(piece, index, folder) for index in range(len(piece.task.sources))]
            request = open_request(self.order, piece, pack)
            key = result_key(request, pack.digest, pack.revision, request.output, [one.identity for one in inputs], 0)
            if self._there(piece, key):
                self._settle(piece, sent=False)
                return
            for result, body in run_job(
                connection, request, _bodies(inputs), lambda progress: self._report_step(piece, progress), self._stop
            ):
                self._keep(piece, result, body, key)
            self._settle(piece, sent=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _export(self, piece: Piece, index: int, folder: str) -> Exported:
        """Have Nuke's main thread render an input; waits while Nuke renders something else."""
        source, view, order = piece.task.sources[index], piece.task.view, self.order
        path = f"{folder}/in{index}.{source.frame:04d}.exr".replace("\\", "/")
        for _ in range(BUSY_RETRIES):
            try:
                ask(self._main, lambda: export_frame(write_of(order.node, source.number), source.frame, view, path),
                    self._stop)  # fmt: skip
                break
            except Busy:
                if self._stop.wait(BUSY_WAIT_S):
                    raise
            except ValueError as error:
                raise BadInput(f"{order.name} was deleted while it was baked; finished frames are kept") from error
            except futures.CancelledError as error:
                raise Cancelled("the bake was stopped") from error
        else:
            raise Busy(f"Nuke has been rendering something else for {BUSY_RETRIES * BUSY_WAIT_S:.0f} s; bake again")
        body = _read(path)
        shape, channels = exr_shape(body, f"input {source.number} of {order.name}")
        frame = Frame("", index, source.frame, "exr", shape, channels, order.space, source.ev)
        return Exported(path, frame, input_identity(frame, body))

    def _report_step(self, piece: Piece, progress: Progress) -> None:
        with self._lock:
            self._report.step(piece, progress)

    def _there(self, piece: Piece, key: str) -> bool:
        """Whether the result is in its place, now if it lay elsewhere; else its name is free in the current take."""
        with self._lock:
            while True:
                path = self.order.path(piece, self._summary.take)
                found = results.read_key(path)
                if found == key:
                    return True
                if found is None:
                    same = results.same_elsewhere(path, key)
                    return same is not None and (results.adopt(same, path) or results.read_key(path) == key)
                self._next_take()

    def _keep(self, piece: Piece, result: Result, body: memoryview, key: str) -> None:
        if result.key != key:
            raise InvalidMessage("the sidecar made a frame with other packs or versions than it announced; bake again")
        path = self.order.path(piece, self._summary.take)
        folder, name = os.path.split(path)
        results.check_writable(folder)
        part = f"{folder}/.{name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.part"
        write_result(result, body, part)
        try:
            if results.read_key(part) != key:
                raise BadParameter(
                    "the sidecar's setting provenance=none leaves a bake without the key that tells it is still right; "
                    "set it to digest"
                )
            with self._lock:
                while not results.adopt(part, path) and results.read_key(path) != key:
                    self._next_take()
                    path = self.order.path(piece, self._summary.take)
                self._summary.warnings += [text for text in result.warnings if text not in self._summary.warnings]
                self._summary.megapixels += result.shape[0] * result.shape[1] / PIXELS_PER_MEGAPIXEL
                for count, value in result.counts.items():
                    self._summary.counts[count] = self._summary.counts.get(count, 0) + value
        finally:
            results.remove(part)

    def _next_take(self) -> None:
        """Go to a new take: other results hold the names. What is not baked anew is carried over. Under the lock."""
        order, take = self.order, self._summary.take
        if not order.may_change_take:
            raise BadInput(
                f"{order.name} was baked from other pixels or by another pack, and that bake may be in use; bake it in "
                "Nuke and save, or add --save-as NEW.nk or --then-render=WRITE"
            )
        anew = {os.path.basename(order.path(order.pieces[index], take)) for index in self._unfinished}
        moves = {order.pattern(piece, take): order.pattern(piece, take + 1) for piece in order.pieces}
        for old, new in moves.items():
            results.carry(old, new, anew)
        self._summary.take = take + 1

    def _settle(self, piece: Piece, *, sent: bool) -> None:
        with self._lock:
            self._unfinished.discard(self.order.pieces.index(piece))
            self._summary.sent += sent
            self._summary.found += not sent
            done = self._summary.sent + self._summary.found
            self._report.ready(piece, self.order.pattern(piece, self._summary.take), done, sent)


def choose_pack(order: Order, welcome: Welcome) -> PackInfo:
    """The pack that will run: the node's, else the sidecar's default.

    Raises UnknownPack, BadParameter when it cannot do this, LicenceNotAccepted.
    """
    operation = order.gizmo.operation
    able = ", ".join(pack.name for pack in welcome.packs if operation in pack.operations) or "none"
    name = order.pack or welcome.defaults.get(f"{operation}/{order.quality}", "")
    if not name:
        raise UnknownPack(f"the sidecar has no default pack for {operation}; name one in `pack`: {able}")
    pack = next((pack for pack in welcome.packs if pack.name == name), None)
    if pack is None:
        raise UnknownPack(f"the sidecar has no pack {name!r}; for {operation} it has: {able}")
    if operation not in pack.operations:
        raise BadParameter(f"pack {name} does not do {operation}; packs that do: {able}")
    if not pack.licence_ok:
        raise LicenceNotAccepted(
            f"the licence of {name} ({pack.licence}) is not accepted on this machine; read and accept it with "
            f"`hdrgen packs accept {name}`"
        )
    if order.whole_shot and pack.window > 1:
        raise BadParameter(
            f"{name} looks at {pack.window} frames together, which a bake cannot do yet; choose frame by frame"
        )
    return pack


def open_request(order: Order, piece: Piece, pack: PackInfo) -> Open:
    """The wire's request for one piece."""
    return Open(
        id=uuid.uuid4().hex,
        operation=order.gizmo.operation,
        frames=len(piece.task.sources),
        output=order.space,
        pack=pack.name,
        parameters=piece.task.parameters,
        seed=piece.task.seed,
        quality=order.quality,
        aovs=True,
        provenance=order.provenance,
        attributes={"gizmo": order.gizmo.name, "frame": piece.task.frame, "view": piece.task.view},
    )


def _bodies(inputs: Sequence[Exported]) -> Iterator[FrameBody]:
    for one in inputs:
        yield one.frame, _read(one.path)


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError as error:
        raise BadInput(
            f"Nuke left no file for an input ({error.strerror}); check that the local disk is not full and bake again"
        ) from error
