"""One job over one connection: frames go up while results come down, in one thread, and cancel always gets through.

It owns the order of a job's messages on the client's side, and storing a result. It must not know how a server is
found or what pixels mean.
"""

from __future__ import annotations

import hashlib
import os
import threading
from dataclasses import replace
from typing import Callable, Iterable, Iterator, Optional, Tuple

from nuke_hdrgen.client.connection import Connection
from nuke_hdrgen.wire.codec import Buffer
from nuke_hdrgen.wire.errors import InvalidMessage, StorageError
from nuke_hdrgen.wire.messages import Cancel, Done, End, Error, Frame, Health, Message, Open, Progress, Result, Status
from nuke_hdrgen.wire.states import JOB, follow
from nuke_hdrgen.wire.stream import Received

POLL_S = 0.1
READY_POLL_S = 0.02

FrameBody = Tuple[Frame, Buffer]


def run_job(
    connection: Connection,
    request: Open,
    frames: Iterable[FrameBody],
    on_progress: Optional[Callable[[Progress], None]] = None,
    cancel_event: Optional[threading.Event] = None,
    ready: Optional[Callable[[], bool]] = None,
) -> Iterator[Tuple[Result, memoryview]]:
    """Run a job: yields (result, body) as each arrives, while later frames still go up.

    `frames` is pulled in this thread, one frame when the one before has gone, so it may render. A server cuts off who
    leaves a result half read (`upload_grace_s`); where the next frame may take that long, `ready` says when it can be
    pulled without waiting: until then results come in. A frame's `id` is replaced by the request's. When `cancel_event`
    is set, the job is cancelled over this and a second connection of the session, which frames under way do not hold
    up, and Cancelled is raised at the server's answer. Results that were yielded before an error stay valid.
    Leaving the iterator early, or any failure but the server's own `error`, closes the connection, and so ends the job.

    Raises what the server reports, and what `Connection.exchange` raises.
    """
    job = _Job(connection, request, iter(frames), on_progress, cancel_event, ready)
    try:
        while not job.over:
            received = job.turn()
            if received is not None:
                yield received
    finally:
        if not job.over or connection.sending:
            connection.close()


def cancel_job(connection: Connection, job_id: str) -> None:
    """Cancel a job of this connection's session from a second connection, and wait until the server has read it."""
    with connection.again() as second:
        second.post(Cancel(job_id))
        second.ask(Status(), Health)


def write_result(result: Result, body: Buffer, path: str) -> None:
    """Store a result's bytes, unmodified, at `path`: written beside it, then renamed.

    Raises InvalidMessage when the bytes are not those that the result's sha256 names, StorageError when they cannot
    be written; no partial file stays.
    """
    if result.sha256 and hashlib.sha256(body).hexdigest() != result.sha256:
        raise InvalidMessage(f"result {result.index} arrived damaged (its sha256 differs); run the job again")
    folder, name = os.path.split(os.path.abspath(path))
    beside = os.path.join(folder, f".{name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        with open(beside, "xb") as stream:
            stream.write(body)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except OSError as error:
        _remove(beside)
        raise StorageError(
            f"{path} cannot be written ({error.strerror}); free space or choose another folder"
        ) from error


class _Job:
    """Where a job stands on the client's side."""

    def __init__(
        self,
        connection: Connection,
        request: Open,
        frames: Iterator[FrameBody],
        on_progress: Optional[Callable[[Progress], None]],
        cancel_event: Optional[threading.Event],
        ready: Optional[Callable[[], bool]],
    ) -> None:
        self._connection = connection
        self._id = request.id
        self._frames = frames
        self._on_progress = on_progress
        self._cancel_event = cancel_event
        self._ready = ready
        self._state = follow(JOB, "new", request.NAME)
        self._results = 0
        connection.post(request)

    @property
    def over(self) -> bool:
        """Whether the server has said its last word on this job."""
        return self._state == "ended"

    def turn(self) -> Optional[Tuple[Result, memoryview]]:
        """One step: react to what came, else send the next frame, else wait a little."""
        if self._cancel_event is not None and self._cancel_event.is_set() and self._state != "cancelling":
            self._state = follow(JOB, self._state, "cancel")
            # Here too: the second connection may be heard before this one's `open`, and then cancels nothing.
            self._connection.post(Cancel(self._id))
            cancel_job(self._connection, self._id)
        uploading = self._state == "uploading" and not self._connection.sending
        may_upload = uploading and (self._ready is None or self._ready())
        received = self._connection.exchange(0.0 if may_upload else READY_POLL_S if uploading else POLL_S)
        if received is not None:
            return self._take(received)
        if may_upload:
            self._upload()
        return None

    def _upload(self) -> None:
        following = next(self._frames, None)
        if following is None:
            message: Message = End(self._id)
            self._connection.post(message)
        else:
            frame, body = following
            message = replace(frame, id=self._id)
            self._connection.post(message, body)
        self._state = follow(JOB, self._state, message.NAME)

    def _take(self, received: Received) -> Optional[Tuple[Result, memoryview]]:
        message = received.message
        if isinstance(message, Error) and message.id is None:
            raise message.exception()
        if isinstance(message, Error) and message.id == self._id:
            self._state = follow(JOB, self._state, message.NAME)
            raise message.exception()
        if not isinstance(message, (Progress, Result, Done)) or message.id != self._id:
            raise InvalidMessage(f"the server sent {message.NAME} for something else than job {self._id!r}")
        self._state = follow(JOB, self._state, message.NAME)
        if isinstance(message, Result):
            self._results += 1
            return message, received.body
        if isinstance(message, Progress):
            if self._on_progress is not None:
                self._on_progress(message)
        elif message.frames != self._results:
            raise InvalidMessage(f"the server announced {message.frames} results and sent {self._results}")
        return None


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
