"""Which message may come when: connections and jobs as tables of (state, event) -> state.

It owns the order of messages only. An event is a message's name. A pair that is not in a table is a peer's fault. It
must not know sockets, queues or what a message holds.
"""

from __future__ import annotations

from typing import Mapping, Tuple

from nuke_hdrgen.wire.errors import InvalidMessage

Table = Mapping[Tuple[str, str], str]

# A connection, seen from either side: `greeting` until the client's hello, `answering` until the gateway's welcome.
CONNECTION: Table = {
    ("greeting", "hello"): "answering",
    ("greeting", "error"): "closed",
    ("answering", "welcome"): "ready",
    ("answering", "error"): "closed",
    **{
        ("ready", name): "ready"
        for name in (
            "open", "frame", "end", "cancel", "status", "free", "progress", "result", "done", "error", "health",
        )
    },
}  # fmt: skip

_CLIENT_SAYS: Table = {
    ("new", "open"): "uploading",
    ("uploading", "frame"): "uploading",
    ("uploading", "end"): "working",
    ("cancelling", "frame"): "cancelling",
    ("cancelling", "end"): "cancelling",
    ("ended", "frame"): "ended",
    ("ended", "end"): "ended",
    ("new", "cancel"): "new",
    ("uploading", "cancel"): "cancelling",
    ("working", "cancel"): "cancelling",
    ("cancelling", "cancel"): "cancelling",
    ("ended", "cancel"): "ended",
}

_SERVER_SAYS: Table = {
    **{(state, name): state for state in ("uploading", "working", "cancelling") for name in ("progress", "result")},
    **{(state, "error"): "ended" for state in ("uploading", "working", "cancelling")},
    ("working", "done"): "ended",
    ("cancelling", "done"): "ended",
}

# A job on its connection: frames and `end` that were under way when it ended are dropped, so they are no fault.
JOB: Table = {**_CLIENT_SAYS, **_SERVER_SAYS}

# The same job between gateway and worker, with the names of their own messages.
WORKER_JOB: Table = {
    **{(state, f"w_{name}"): after for (state, name), after in JOB.items()},
    **{
        (state, name): state
        for state in ("uploading", "working", "cancelling")
        for name in ("w_taken", "w_need", "w_slot")
    },
    ("ended", "w_slot"): "ended",
}


def follow(table: Table, state: str, event: str) -> str:
    """The state after an event. Raises InvalidMessage when the event may not come in this state."""
    after = table.get((state, event))
    if after is None:
        raise InvalidMessage(f"{event} may not come while {state}")
    return after
