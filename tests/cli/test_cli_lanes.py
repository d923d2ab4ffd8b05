"""The lanes beside the sidecar: order, bounds, failures and ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator

import pytest

from hdrgen_server.cli.lanes import Ahead, Behind, Watch
from nuke_hdrgen.wire.errors import BadInput


def test_ahead_keeps_order_and_its_bound() -> None:
    made: list[int] = []
    full = threading.Event()

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            if number == 3:
                full.set()
            yield number

    with Ahead(items(), depth=3) as lane:
        assert full.wait(5)
        assert len(made) <= 4  # three wait, one is held
        assert list(lane) == list(range(20))
    assert lane.watch.seconds >= 0


def test_ahead_raises_after_what_came_before() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise BadInput("the third is bad")

    seen: list[int] = []
    with pytest.raises(BadInput, match=r"the third"), Ahead(items()) as lane:
        seen.extend(lane)
    assert seen == [1, 2]

    def defect() -> Iterator[int]:
        yield 1
        raise KeyError("a defect is no silence either")

    with pytest.raises(KeyError), Ahead(defect()) as lane:
        list(lane)


def test_ahead_says_when_nothing_has_to_be_waited_for() -> None:
    go = threading.Event()

    def items() -> Iterator[int]:
        assert go.wait(10)
        yield 1
        assert again.wait(10)

    again = threading.Event()
    with Ahead(items()) as lane:
        assert not lane.ready()
        go.set()
        until(lane.ready)
        taken = iter(lane)
        assert next(taken) == 1
        assert not lane.ready()
        again.set()
        until(lane.ready)
        assert list(taken) == []


def test_ahead_can_be_left() -> None:
    with Ahead(iter(range(10**9)), depth=2) as lane:
        for item in lane:
            if item == 5:
                break
    assert threading.active_count() < 50


def until(said: Callable[[], bool]) -> None:
    """Ask again until it is so."""
    pause = threading.Event()
    while not said():
        pause.wait(0.001)


def feed(lane: Behind[int], items: Iterable[int]) -> None:
    with lane:
        for item in items:
            until(lane.has_room)
            lane.put(item)


def test_behind_finishes_what_was_put() -> None:
    def items() -> Iterator[int]:
        yield from range(10)
        raise BadInput("something failed elsewhere")

    done: list[int] = []
    with pytest.raises(BadInput, match=r"elsewhere"):
        feed(Behind(done.append), items())
    assert done == list(range(10))


def test_behind_raises_where_it_is_fed() -> None:
    def consume(item: int) -> None:
        if item == 2:
            raise BadInput("cannot write the second")

    with pytest.raises(BadInput, match=r"the second"):
        feed(Behind(consume, depth=1), range(100))
    with pytest.raises(BadInput, match=r"the second"):
        feed(Behind(consume), [2])


def test_behind_says_when_there_is_room_and_never_holds_up_a_put() -> None:
    go, most = threading.Event(), [0]
    waiting: list[int] = []

    def consume(item: int) -> None:
        assert go.wait(10)
        waiting.remove(item)

    with Behind(consume, depth=2) as lane:
        for item in range(6):  # nothing is consumed yet, and nothing blocks
            waiting.append(item)
            lane.put(item)
        go.set()
        for item in range(6, 40):
            until(lane.has_room)
            most[0] = max(most[0], len(waiting))
            waiting.append(item)
            lane.put(item)
    assert waiting == []
    assert most[0] <= 6


def test_a_watch_adds_up() -> None:
    watch = Watch()
    watch.stop()
    assert watch.seconds == 0
    watch.start()
    watch.start()
    watch.stop()
    first = watch.seconds
    with watch:
        pass
    assert watch.seconds >= first >= 0
