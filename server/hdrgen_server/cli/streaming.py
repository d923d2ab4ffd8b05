"""A job whose plates come one by one, each making one result.

It owns which plates were answered, so that those before a failure of the input are not lost. It must not know options,
result files or the terminal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from hdrgen_server.cli.console import Update
from hdrgen_server.cli.jobs import Job, Link, Plate, message_of, request_of
from hdrgen_server.cli.lanes import Watch
from nuke_hdrgen.client.job import run_job
from nuke_hdrgen.wire import messages as wire
from nuke_hdrgen.wire.errors import BadInput, HDRGenError

Sent = tuple[wire.Frame, bytes | memoryview]


@dataclass(frozen=True, eq=False)
class Answer:
    """The result of one plate: an EXR's bytes, or little-endian float32 of `shape` for `raw`."""

    plate: Plate
    body: memoryview
    shape: tuple[int, ...]
    key: str
    counts: Mapping[str, int]
    warnings: tuple[str, ...]


class Stream:
    """Iterates over the answers to `count` plates, in their order.

    `ready` says when the next plate comes without waiting: until then answers are received. `busy` runs while the
    sidecar holds a plate. When the plates fail, or are fewer, the answers to those before come first where each is made
    from its plate `alone`: windows that are not whole make other results. Raises then what the plates raised or
    BadInput, and what the sidecar reports.
    """

    def __init__(
        self,
        link: Link,
        job: Job,
        plates: Iterable[Plate],
        count: int,
        encoding: str,
        update: Update,
        ready: Callable[[], bool],
        *,
        alone: bool = True,
    ) -> None:
        self.busy = Watch()
        self._alone = alone
        self._link, self._job, self._plates, self._count = link, job, plates, count
        self._encoding, self._update, self._ready = encoding, update, ready
        self._sent: deque[tuple[Sent, Plate]] = deque()
        self._failure: HDRGenError | None = None

    def __iter__(self) -> Iterator[Answer]:
        try:
            yield from self._run(self._link, self._messages(), self._count, self._ready)
        except HDRGenError:
            if self._failure is None:
                raise
        if self._failure is None:
            return
        if self._sent and self._alone:
            rest = [(replace(sent[0], index=index), sent[1]) for index, (sent, _) in enumerate(self._sent)]
            with self._link.again() as second:
                yield from self._run(second, iter(rest), len(rest))
        raise self._failure

    def _run(
        self, link: Link, messages: Iterator[Sent], count: int, ready: Callable[[], bool] | None = None
    ) -> Iterator[Answer]:
        request = request_of(self._job, count, self._encoding)
        for result, body in run_job(link, request, messages, self._step, ready=ready):
            _, plate = self._sent.popleft()
            if not self._sent:
                self.busy.stop()
            yield Answer(plate, body, tuple(result.shape), result.key, result.counts, tuple(result.warnings))

    def _messages(self) -> Iterator[Sent]:
        index = 0
        try:
            for index, plate in enumerate(self._plates, 1):
                sent = message_of(self._job, plate, index - 1)
                self._sent.append((sent, plate))
                self.busy.start()
                yield sent
            if index < self._count:
                raise BadInput(f"the input ended after {index} of {self._count} frames; what is done stays")
        except HDRGenError as error:
            self._failure = error
            raise

    def _step(self, progress: wire.Progress) -> None:
        self._update(progress.phase, progress.done, progress.total)
