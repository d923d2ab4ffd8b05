"""Looks at the sidecar again and again in a thread of its own, over its own connection of the session.

It owns the pace, the connection's renewal and what is asked on request: start, free, look now. It must not know Qt or
what is made of an answer.
"""

from __future__ import annotations

import atexit
import os
import queue
import threading
import weakref
from dataclasses import dataclass, field
from typing import Callable, Mapping, Optional

from nuke_hdrgen import __version__
from nuke_hdrgen.client.address import SERVER_VARIABLE, find_server
from nuke_hdrgen.client.connection import Connection, connect
from nuke_hdrgen.client.launch import Start, connect_or_start, sidecar_command
from nuke_hdrgen.ui.model import Seen
from nuke_hdrgen.wire.errors import HDRGenError, InvalidMessage, NoServer
from nuke_hdrgen.wire.messages import Error, Free, Health, Message, Status

START, FREE, LOOK = "start", "free", "look"
_AGAIN = "again"
_WAIT_S = 0.1
_EXIT_S = 2.0
_LIVE: weakref.WeakSet[Watch] = weakref.WeakSet()


@dataclass(frozen=True)
class Target:
    """Whom to look at and how often: every `every_s` seconds, up to `absent_s` where nobody answers.

    The connection is made anew after `renew` looks, because only a welcome tells which licences are accepted.
    """

    session: str
    server: Optional[str] = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    every_s: float = 1.0
    absent_s: float = 5.0
    renew: int = 10

    @property
    def named(self) -> bool:
        """Whether the user named the server, so that none is started."""
        return bool(self.server or self.environment.get(SERVER_VARIABLE))


class Watch:
    """One thread that looks until it is told to stop; `tell` gets each look, in that thread."""

    def __init__(self, target: Target, tell: Callable[[Seen], None]) -> None:
        self._target, self._tell = target, tell
        self._wishes: queue.Queue[str] = queue.Queue()
        self._stopped = threading.Event()
        self._link: Optional[Connection] = None
        self._looks = self._absent = 0
        self._not_started: Optional[HDRGenError] = None
        self._thread = threading.Thread(target=self._run, name="hdrgen-panel", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        _LIVE.add(self)
        atexit.unregister(_end_all)  # once in the list of what is done at exit, however often this runs
        atexit.register(_end_all)
        self._thread.start()

    def wish(self, what: str) -> None:
        """Do one of START, FREE or LOOK (afresh) now; never blocks."""
        self._wishes.put(what)

    def stop(self) -> None:
        """Look no more; never blocks. The thread closes its connection and ends."""
        self._stopped.set()
        self._wishes.put(_AGAIN)

    def join(self, timeout_s: float) -> bool:
        """Wait until the thread has ended; False when it has not."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        wish = LOOK
        try:
            while not self._stopped.is_set():
                seen = self._look(wish)
                if not self._stopped.is_set():
                    self._tell(seen)
                wish = self._next_wish()
        finally:
            self._drop()

    def _next_wish(self) -> str:
        """What is asked for, or what is due after the pause, which doubles where nobody answers."""
        pause = min(self._target.absent_s, self._target.every_s * 2.0 ** min(self._absent, 10))
        try:
            return self._wishes.get(timeout=pause)
        except queue.Empty:
            return _AGAIN if self._looks < self._target.renew else LOOK

    def _look(self, wish: str) -> Seen:
        if wish in (START, LOOK):
            self._drop()
        try:
            seen = self._started() if wish == START else self._asked(Free() if wish == FREE else Status())
        except HDRGenError as error:
            return self._failed(error)
        except OSError as error:
            return self._failed(NoServer(f"the sidecar cannot be reached ({error.strerror}); see `hdrgen doctor`"))
        self._absent = 0
        self._not_started = None
        return seen

    def _failed(self, error: HDRGenError) -> Seen:
        """Nobody answers: why the last start failed says more than that nothing runs."""
        self._drop()
        self._absent += 1
        unstarted = self._not_started is not None and (isinstance(error, NoServer) or error is self._not_started)
        return Seen(error=self._not_started if unstarted else error, named=self._target.named, unstarted=unstarted)

    def _started(self) -> Seen:
        """Start a sidecar, or find the one that runs."""
        target = self._target
        self._not_started = None
        self._tell(Seen(starting=True))
        try:
            start = Start(sidecar_command(target.environment), environment=target.environment)
            self._link = connect_or_start(start, target.session, target.server)
        except HDRGenError as error:
            self._not_started = error
            raise
        return self._asked(Status())

    def _asked(self, question: Message) -> Seen:
        """The answer, over the connection that there is or a new one."""
        target = self._target
        link = self._link
        if link is None:
            endpoint = find_server(target.server, target.environment)
            link = self._link = connect(endpoint, target.session, f"nuke-hdrgen {__version__} panel")
            self._looks = 0
        self._looks += 1
        link.send(question)
        health = self._health(link)
        return Seen(link.welcome, health, str(link.peer.endpoint.address), named=target.named)

    def _health(self, link: Connection) -> Optional[Health]:
        """What comes back, or None when the watch stops first."""
        while not self._stopped.is_set():
            received = link.exchange(_WAIT_S)
            if received is None:
                continue
            message = received.message
            if isinstance(message, Error):
                raise message.exception()
            if not isinstance(message, Health):
                raise InvalidMessage(f"the sidecar answered with {message.NAME} where health was asked for")
            return message
        return None

    def _drop(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None
        self._looks = 0


def _end_all() -> None:
    """Before the interpreter goes: no thread of ours may wake in what is left of it."""
    live = list(_LIVE)
    for watch in live:
        watch.stop()
    for watch in live:
        watch.join(_EXIT_S)
