"""One client's connection: hello, then jobs; frames received into slots, results sent from them.

It owns the order of messages on the connection and the jobs that it opened. It must not know workers or processes.
"""

from __future__ import annotations

import hmac
import logging
import socket
from collections import OrderedDict
from typing import TYPE_CHECKING, cast

from hdrgen_server.gateway.admission import ECHO, admit, check_frame, with_site_provenance
from hdrgen_server.gateway.channel import Channel
from hdrgen_server.gateway.job import Job
from hdrgen_server.gateway.listen import Peer
from hdrgen_server.gateway.slots import Slot
from hdrgen_server.gateway.stream import ConnectionLost, Transfer
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import (
    BadInput,
    Busy,
    HDRGenError,
    InvalidMessage,
    PermissionRefused,
    ProtocolError,
    ServerTimeout,
    Truncated,
)

if TYPE_CHECKING:
    from hdrgen_server.gateway.server import Gateway

log = logging.getLogger(__name__)

CROWDED = 2
REMEMBERED = 256
AHEAD_FRAMES = 4
AHEAD_BYTES = 256 << 20
GOODBYE_S = 1.0
ROOM_S = 30.0
HELLO_ONLY = {m.Hello.TYPE: m.Hello}
AFTER_HELLO = {number: kind for number, kind in m.TYPES.items() if kind is not m.Hello}


class Connection:
    """A client that is connected. Its jobs end when it goes."""

    def __init__(self, gateway: Gateway, sock: socket.socket, peer: Peer) -> None:
        self.gateway, self.peer = gateway, peer
        self.opened_at = gateway.clock.now()
        self.session: tuple[int, str] | None = None
        self.jobs: dict[str, Job] = {}
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._bodies = 0
        self._channel = Channel(sock, gateway.clock, HELLO_ONLY, self.close)

    async def serve(self) -> None:
        """Run the connection to its end; a peer's fault ends it with one line in the log."""
        try:
            await self._hello()
            while True:
                prefix, message = await self._channel.receive(self.gateway.limits)
                await self._handle(message, prefix.body_length)
        except ConnectionLost:
            pass
        except Truncated as error:
            log.info("connection lost", extra={"why": error.message})
        except HDRGenError as error:
            log.info("connection refused", extra={"code": error.code, "why": error.message})
            self._channel.send(m.Error.of(error))
            await self._channel.flush(GOODBYE_S)
        finally:
            self.close()

    async def refuse(self, error: HDRGenError) -> None:
        """Say why this peer may not connect, and close."""
        self._channel.send(m.Error.of(error))
        await self._channel.flush(GOODBYE_S)
        self._channel.close()

    async def finish(self) -> None:
        """Send what waits, for a moment, then close."""
        await self._channel.flush(GOODBYE_S)
        self.close()

    def close(self) -> None:
        """End the connection: its jobs are cancelled, its slots come back."""
        self._channel.close()
        self.gateway.disconnected(self)
        for job in list(self.jobs.values()):
            self.gateway.dispatcher.cancel(job)

    def check(self, now: float) -> None:
        """Close the connection when its hello, a header or a body is too slow."""
        limits = self.gateway.limits
        reading, writing = self._channel.reader.transfer, self._channel.writer.transfer
        late = self.session is None and now - self.opened_at > limits.header_deadline_s
        in_header = reading is not None and not self._in_body and now - reading.started > limits.header_deadline_s
        slow = (reading is not None and self._in_body and self._too_slow(reading, now)) or (
            writing is not None and self._too_slow(writing, now)
        )
        if late or in_header or slow:
            self._channel.send(
                m.Error.of(ServerTimeout("the connection was too slow and has been closed; connect again"))
            )
            log.info("connection too slow", extra={"hello": self.session is not None})
            self.close()

    # Client, as jobs see it

    def tell(self, message: m.Message) -> None:
        """Send a message without a body; progress is left out while much waits."""
        if not (isinstance(message, m.Progress) and len(self._channel.writer) > 2 * CROWDED):
            self._channel.send(message)

    def deliver(self, message: m.Result, slot: Slot) -> None:
        """Send a result from its slot."""
        self._bodies += 1
        self.gateway.metrics.add("bytes_out", slot.length)
        self._channel.send(message, slot.body, sent=lambda: self._delivered(slot))

    @property
    def crowded(self) -> bool:
        """Whether results wait for the client to read them."""
        return self._bodies >= CROWDED

    def forget(self, job: Job) -> None:
        """The job has had its last message."""
        self.jobs.pop(job.id, None)
        self._remember(job.id)

    def _delivered(self, slot: Slot) -> None:
        self._bodies -= 1
        self.gateway.pool.release(slot, self.gateway.clock.now())
        for job in self.jobs.values():
            self.gateway.dispatcher.grant(job)

    _in_body = False

    def _too_slow(self, transfer: Transfer, now: float) -> bool:
        limits = self.gateway.limits
        elapsed = now - transfer.started
        if elapsed <= limits.upload_grace_s:
            return False
        return now - transfer.last > limits.upload_grace_s or transfer.moved < limits.upload_floor_bytes_s * elapsed

    def _remember(self, name: str) -> None:
        self._ended[name] = None
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)

    async def _hello(self) -> None:
        _, message = await self._channel.receive(self.gateway.limits)
        hello = cast(m.Hello, message)
        token = self.gateway.token
        if token is not None and not hmac.compare_digest(token.encode(), (hello.token or "").encode()):
            raise PermissionRefused("the token is missing or wrong; read it from the endpoint file")
        self.session = (self.peer.uid, hello.session)
        self._channel.types = AFTER_HELLO
        self._channel.send(self.gateway.welcome())

    async def _handle(self, message: m.Message, body_length: int) -> None:
        match message:
            case m.Open():
                self._open(message)
            case m.Frame():
                await self._frame(message, body_length)
            case m.End():
                self._end(message)
            case m.Cancel():
                self.gateway.cancel(cast(tuple[int, str], self.session), message.id)
            case m.Status():
                self._channel.send(self.gateway.health())
            case m.Free():
                self.gateway.dispatcher.free(message.pack)
                self._channel.send(self.gateway.health())
            case _:
                raise InvalidMessage(f"a client does not send {message.NAME!r}")

    def _open(self, request: m.Open) -> None:
        if request.id in self.jobs or request.id in self._ended:
            raise InvalidMessage(f"job id {request.id!r} was used before on this connection; choose another")
        try:
            self.gateway.refuse_when_stopping()
            pack = admit(request, self.gateway.registry, self.gateway.require_licence)
            request = with_site_provenance(request, self.gateway.settings.provenance)
            job = self.gateway.new_job(self, request, pack)
            if request.operation != ECHO:
                self.gateway.dispatcher.submit(job)
        except ProtocolError:
            raise
        except HDRGenError as error:
            self.gateway.metrics.job_ended(error.code, 0.0)
            self._remember(request.id)
            self._channel.send(m.Error.of(error, request.id))
            return
        self.jobs[request.id] = job
        if request.operation != ECHO:
            self.gateway.dispatcher.tell_progress(job)

    async def _frame(self, frame: m.Frame, length: int) -> None:
        job = self.jobs.get(frame.id)
        if job is None:
            if frame.id not in self._ended:
                raise InvalidMessage(f"a frame came for job {frame.id!r}, which was not opened")
            await self._skip(length)
            return
        try:
            check_frame(frame, job.received, job.request, job.pack)
            slot = await self._slot_for(job, length)
        except ProtocolError:
            raise
        except HDRGenError as error:
            self.gateway.dispatcher.fail(job, error)
            await self._skip(length)
            return
        if job.request.operation == ECHO:
            await self._echo(job, frame, slot)
            return
        try:
            await self._receive_body(slot.body)
        except BaseException:
            self.gateway.pool.release(slot, self.gateway.clock.now())
            raise
        if job.over:
            self.gateway.pool.release(slot, self.gateway.clock.now())
        else:
            self.gateway.dispatcher.add_frame(job, frame, slot)

    async def _slot_for(self, job: Job, length: int) -> Slot:
        """A slot, once the job is not too far ahead and all bodies together are within the limit."""
        gateway = self.gateway
        if length > gateway.limits.flight_bytes:
            raise BadInput(
                f"the frame has {length} bytes, this sidecar holds {gateway.limits.flight_bytes} in all; send a "
                "smaller frame, or raise limit_flight_bytes"
            )

        def fits() -> bool:
            enough = job.ahead is not None and len(job.inputs) >= max(AHEAD_FRAMES, job.ahead)
            return job.over or not (enough and job.held_bytes >= AHEAD_BYTES)

        def room() -> bool:
            return job.over or gateway.pool.held_bytes + length <= gateway.limits.flight_bytes

        while not fits():  # the client is only ahead of the worker: it waits as long as the job lives
            await gateway.pool.wait_for(fits, ROOM_S)
        if not await gateway.pool.wait_for(room, ROOM_S):
            retry = gateway.dispatcher.retry_after_s()
            raise Busy(f"the sidecar holds as many frames as it may; try again in {retry:.0f} s", retry_after_s=retry)
        return await gateway.pool.acquire(length)

    async def _receive_body(self, body: memoryview) -> None:
        self._in_body = True
        try:
            await self._channel.reader.read_into(body)
        finally:
            self._in_body = False
        self.gateway.metrics.add("bytes_in", len(body))

    async def _skip(self, length: int) -> None:
        """Receive a body that nobody wants any more."""
        scratch = memoryview(bytearray(min(length, 1 << 20)))
        while length:
            part = scratch[: min(length, len(scratch))]
            await self._receive_body(part)
            length -= len(part)

    async def _echo(self, job: Job, frame: m.Frame, slot: Slot) -> None:
        """Send a frame back from its slot while it still arrives."""
        result = m.Result(**{name: getattr(frame, name) for name in ECHOED}, key="", sha256="")
        holders = 2

        def let_go() -> None:
            nonlocal holders
            holders -= 1
            if holders == 0:
                self._delivered(slot)

        self._bodies += 1
        outgoing = self._channel.send_growing(result, slot.body, let_go)

        def grew(count: int) -> None:
            outgoing.ready = count
            self._channel.writer.kick()

        self._in_body = True
        try:
            await self._channel.reader.read_into(slot.body, grew)
        finally:
            self._in_body = False
            let_go()
        self.gateway.metrics.add("bytes_in", slot.length)
        job.received += 1
        job.delivered += 1

    def _end(self, message: m.End) -> None:
        job = self.jobs.get(message.id)
        if job is None:
            if message.id not in self._ended:
                raise InvalidMessage(f"an end came for job {message.id!r}, which was not opened")
            return
        if job.received != job.request.frames or job.ended:
            raise InvalidMessage(f"job {message.id!r} announced {job.request.frames} frames and sent {job.received}")
        if job.request.operation != ECHO:
            self.gateway.dispatcher.end_input(job)
            return
        seconds = self.gateway.clock.now() - job.opened_at
        job.over = True
        self.gateway.metrics.job_ended("done", seconds)
        self._channel.send(m.Done(job.id, job.delivered, seconds))
        self.forget(job)


ECHOED = ("id", "index", "number", "format", "shape", "channels", "colourspace", "ev")
