"""A gateway in this process, on real sockets, with time moved by hand: deadlines, limits, tokens and the end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest

from hdrgen_server.gateway import connection
from hdrgen_server.gateway.listen import listen_tcp, listen_unix
from hdrgen_server.gateway.runtime import private_folder, write_endpoint
from hdrgen_server.gateway.server import Gateway, Plan
from hdrgen_server.gateway.stream import ConnectionLost, Reader
from hdrgen_server.settings import load_settings
from nuke_hdrgen.wire import codec
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import AlreadyRunning, StorageError

SPACE = m.Colourspace("lin_rec709_scene", "lin_rec709_scene")
SHAPE = (64, 128, 3)
LENGTH = 64 * 128 * 3 * 2
MIB = 1 << 20


class HandClock:
    """Time that stands still until it is moved; whoever sleeps wakes in order."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.time + seconds, waiting))
        await waiting

    def move(self, seconds: float) -> None:
        self.time += seconds
        due = [pair for pair in self.sleepers if pair[0] <= self.time]
        self.sleepers = [pair for pair in self.sleepers if pair[0] > self.time]
        for _, waiting in due:
            if not waiting.done():
                waiting.set_result(None)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, message: m.Message, body: bytes = b"", *, announced: int | None = None) -> None:
        self.writer.write(codec.encode(message, len(body) if announced is None else announced) + body)

    async def receive(self) -> m.Message:
        async with asyncio.timeout(20):
            prefix = codec.parse_prefix(await self.reader.readexactly(codec.PREFIX_BYTES))
            message = codec.parse_header(prefix, await self.reader.readexactly(prefix.header_length))
            await self.reader.readexactly(prefix.body_length)
            return message

    async def next(self, kind):
        while not isinstance(message := await self.receive(), kind):
            assert isinstance(message, m.Progress), message
        return message

    async def ended(self) -> bool:
        async with asyncio.timeout(20):
            with suppress(ConnectionResetError):
                return await self.reader.read(1) == b""
            return True


class Served:
    def __init__(self, gateway: Gateway, clock: HandClock) -> None:
        self.gateway, self.clock = gateway, clock
        self.clients: list[Client] = []

    async def connect(self, session: str | None = "test", token: str | None = None) -> Client:
        listener = self.gateway._listener
        if listener.path is not None:
            pair = await asyncio.open_unix_connection(listener.path)
        else:
            pair = await asyncio.open_connection(*listener.socket.getsockname())
        client = Client(*pair)
        self.clients.append(client)
        if session is not None:
            client.send(m.Hello(session=session, client="test", token=token))
        return client

    async def greeted(self, session: str = "test") -> Client:
        client = await self.connect(session)
        assert isinstance(await client.receive(), m.Welcome)
        return client

    async def until(self, condition) -> None:
        """Let the gateway run until the condition holds."""
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0)

    def gauge(self, name: str) -> float:
        return self.gateway.health().counters[name]

    def tick(self, seconds: float) -> None:
        self.clock.move(seconds)
        self.gateway.tick(self.clock.now())


@asynccontextmanager
async def served(tmp_path, *, tcp=False, token=None, devices=(), **settings):
    (tmp_path / "run").mkdir()
    clock = HandClock()
    listener = listen_tcp() if tcp else listen_unix(tmp_path / "s")
    gateway = Gateway(load_settings(**settings), Plan(tmp_path / "run", devices), listener, clock, token)
    running = asyncio.ensure_future(gateway.run())
    world = Served(gateway, clock)
    try:
        yield world
    finally:
        gateway.stop(hurry=True)
        for client in world.clients:
            client.writer.close()
        await asyncio.wait_for(running, 20)


def order(name: str, frames: int = 2) -> m.Open:
    return m.Open(id=name, operation="hdrfuse", frames=frames, output=SPACE, pack="merge")


def frame(name: str, index: int = 0) -> m.Frame:
    return m.Frame(
        id=name, index=index, number=index + 1, format="f16", shape=SHAPE, channels=("R", "G", "B"), colourspace=SPACE,
        ev=float(index),
    )  # fmt: skip


def test_a_client_that_never_greets_is_told_after_the_deadline_and_not_before(tmp_path):
    async def go() -> None:
        async with served(tmp_path, limit_header_deadline_s=5) as world:
            silent = await world.connect(None)
            await world.until(lambda: world.gauge("connections") == 1)
            world.tick(5.0)
            assert world.gauge("connections") == 1
            world.tick(0.1)
            assert (await silent.receive()).code == "timeout"
            assert await silent.ended()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("pause", "part", "survives"), [(20.0, 1000, True), (31.0, 0, False), (31.0, 1000, False), (31.0, 40_000, True)]
)
def test_an_upload_has_a_grace_a_floor_and_may_not_stall(tmp_path, pause, part, survives):
    """1 000 bytes a second are asked for after 30 s: 31 s need 31 000 bytes, some of them lately."""

    async def go() -> None:
        async with served(tmp_path, limit_upload_floor_bytes_s=1000, limit_upload_grace_s=30) as world:
            client = await world.greeted()
            client.send(order("up"))
            client.send(frame("up"), bytes(100), announced=LENGTH)
            (transfer,) = [c._channel.reader for c in world.gateway._connections]
            await world.until(lambda: transfer.transfer is not None and transfer.transfer.moved == 100)
            world.tick(pause - 1.0)
            client.writer.write(bytes(part))
            await world.until(lambda: transfer.transfer.moved == 100 + part)
            world.tick(1.0)
            assert (world.gauge("connections") == 1) is survives
            if survives:
                client.writer.write(bytes(LENGTH - 100 - part))
                client.send(m.Status())
                assert (await client.next(m.Health)).queue.depth == 1
            else:
                assert (await client.next(m.Error)).code == "timeout"
                assert await client.ended()
            await world.until(lambda: world.gauge("slots_held") == survives)

    asyncio.run(go())


def test_a_client_that_does_not_read_its_results_is_closed(tmp_path):
    async def go() -> None:
        async with served(tmp_path, limit_upload_grace_s=30) as world:
            client = await world.greeted()
            client.writer.transport.pause_reading()
            client.send(m.Open(id="deaf", operation="echo", frames=1, output=SPACE, pack="echo"))
            big = replace(frame("deaf"), shape=(2048, 4096, 3))
            client.send(big, bytes(2048 * 4096 * 6))
            (connection_,) = world.gateway._connections
            writer = connection_._channel.writer
            await world.until(lambda: writer.transfer is not None and connection_._channel.reader.transfer is None)
            world.tick(31.0)
            assert world.gauge("connections") == 0
            assert world.gauge("slots_held") == 0

    asyncio.run(go())


def test_more_bytes_than_may_be_held_are_busy_and_the_connection_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(connection, "ROOM_S", 0.05)

    async def go() -> None:
        async with served(tmp_path, limit_flight_bytes=2 * MIB) as world:
            client = await world.greeted()
            client.send(order("full", 3))
            for index in range(3):
                client.send(frame("full", index), bytes(LENGTH))
            error = await client.next(m.Error)
            assert (error.code, error.id) == ("busy", "full")
            assert error.details["retry_after_s"] > 0
            client.send(m.Status())
            assert (await client.next(m.Health)).counters["slots_held"] == 0

    asyncio.run(go())


def test_a_frame_that_could_never_be_held_is_refused_at_once(tmp_path):
    async def go() -> None:
        async with served(tmp_path, limit_flight_bytes=LENGTH - 1) as world:
            client = await world.greeted()
            client.send(order("never"))
            client.send(frame("never"), bytes(LENGTH))
            error = await client.next(m.Error)
            assert error.code == "bad_input"
            assert "limit_flight_bytes" in error.message

    asyncio.run(go())


@pytest.mark.parametrize("how", ["cancel", "leave"])
def test_a_job_that_waits_for_room_can_be_cancelled_and_can_be_left(tmp_path, how):
    async def go() -> None:
        async with served(tmp_path, limit_flight_bytes=MIB) as world:
            client, other = await world.greeted(), await world.greeted()
            client.send(order("waits"))
            client.send(frame("waits"), bytes(LENGTH))
            await world.until(lambda: world.gauge("slots_held") == 1)
            client.send(frame("waits", 1), bytes(LENGTH))
            client.send(m.Cancel("waits"))  # read only once there is room: bodies come before it
            client.send(m.Status())
            (waiting,) = [c for c in world.gateway._connections if c.jobs]
            await world.until(lambda: waiting._channel.reader.transfer is None)
            if how == "cancel":
                other.send(m.Cancel("waits"))
                assert (await client.next(m.Error)).code == "cancelled"
                assert (await client.next(m.Health)).queue.depth == 0
            else:
                waiting.close()
            await world.until(lambda: world.gauge("slots_held") == 0)

    asyncio.run(go())


def test_a_connection_over_the_limit_is_told_and_closed(tmp_path):
    async def go() -> None:
        async with served(tmp_path, limit_connections=2) as world:
            first = await world.greeted()
            await world.greeted()
            third = await world.connect()
            error = await third.receive()
            assert error.code == "too_large"
            assert "limit_connections" in error.message
            assert await third.ended()
            first.writer.close()
            await world.until(lambda: world.gauge("connections") == 1)
            await world.greeted()

    asyncio.run(go())


def test_over_tcp_only_the_token_opens(tmp_path):
    async def go() -> None:
        async with served(tmp_path, tcp=True, token="right") as world:  # the test's own
            for token in (None, "wrong", "right "):
                client = await world.connect("tcp", token)
                assert (await client.receive()).code == "permission"
                assert await client.ended()
            client = await world.connect("tcp", "right")
            assert isinstance(await client.receive(), m.Welcome)
            said = json.loads((tmp_path / "run" / "endpoint.json").read_text())
            host, port = world.gateway._listener.socket.getsockname()
            assert (said["address"], said["token"]) == (f"tcp:{host}:{port}", "right")

    asyncio.run(go())


def test_a_taken_tcp_port_is_named():
    first = listen_tcp()
    port = first.socket.getsockname()[1]
    with pytest.raises(AlreadyRunning, match=str(port)):
        listen_tcp(port)
    first.close()


def test_a_socket_in_a_folder_that_is_not_there_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="--socket"):
        listen_unix(tmp_path / "missing" / "s")


def test_messages_that_only_the_server_sends_are_refused(tmp_path):
    async def go() -> None:
        async with served(tmp_path) as world:
            client = await world.greeted()
            client.send(m.Done("x", 1, 1.0))
            assert (await client.receive()).code == "invalid_message"
            assert await client.ended()

    asyncio.run(go())


def test_free_is_answered_with_health(tmp_path):
    async def go() -> None:
        async with served(tmp_path) as world:
            client = await world.greeted()
            client.send(m.Free())
            assert not (await client.next(m.Health)).ready

    asyncio.run(go())


def test_a_drain_lets_open_jobs_be_refuses_new_ones_and_has_an_end(tmp_path):
    async def go() -> None:
        async with served(tmp_path, drain_s=30) as world:
            client = await world.greeted()
            client.send(order("open"))
            await client.next(m.Progress)
            world.gateway.stop()
            await world.until(lambda: world.gateway._listener.socket.fileno() < 0)
            client.send(order("late"))
            late = await client.next(m.Error)
            assert (late.code, late.id) == ("busy", "late")
            world.tick(29.0)
            client.send(m.Status())
            assert (await client.next(m.Health)).queue.depth == 1
            world.tick(2.0)
            error = await client.next(m.Error)
            assert (error.code, error.id) == ("cancelled", "open")
            assert await client.ended()

    asyncio.run(go())


def test_a_second_stop_does_not_wait(tmp_path):
    async def go() -> None:
        async with served(tmp_path, drain_s=1000) as world:
            client = await world.greeted()
            client.send(order("open"))
            await client.next(m.Progress)
            world.gateway.stop()
            await world.until(lambda: world.gateway._listener.socket.fileno() < 0)
            world.gateway.stop()
            world.tick(1.0)
            assert (await client.next(m.Error)).code == "cancelled"

    asyncio.run(go())


def test_a_failure_that_nobody_expected_ends_the_gateway_and_is_raised(tmp_path):
    async def go() -> None:
        async with served(tmp_path) as world:

            async def broken() -> None:
                raise ZeroDivisionError("unexpected")

            task = world.gateway.tasks.keep(broken())
            await world.until(task.done)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(go())
    assert not list((tmp_path / "run").glob("hdrgen-slots*"))
    assert not (tmp_path / "s").exists()


def test_a_failure_of_one_connection_is_logged_and_the_others_go_on(tmp_path, caplog):
    async def go() -> None:
        async with served(tmp_path) as world:

            async def broken() -> None:
                raise ZeroDivisionError("unexpected")

            task = world.gateway.tasks.keep(broken(), fatal=False)
            await world.until(task.done)
            await world.greeted()

    asyncio.run(go())
    assert "a connection failed" in caplog.text


def test_a_peer_that_goes_inside_a_body_and_a_closed_reader(tmp_path):
    async def go() -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        reader = Reader(ours, HandClock())
        await reader.read_into(memoryview(bytearray()))  # nothing is asked for, nothing is waited for
        ours.close()
        with pytest.raises(ConnectionLost):
            await reader.read_into(memoryview(bytearray(1)))
        theirs.close()

    asyncio.run(go())


@pytest.mark.skipif(os.getuid() != 0, reason="only root may give a file to any group")
def test_a_shared_groups_members_can_reach_the_socket_and_read_the_endpoint(tmp_path):
    group = 54321
    folder = private_folder(tmp_path / "shared", group=group)
    endpoint = write_endpoint(folder, {"pid": os.getpid()}, group=group)
    listener = listen_unix(folder / "s", group)
    modes = {path.name: (path.stat().st_mode & 0o777, path.stat().st_gid) for path in (folder, endpoint, folder / "s")}
    listener.close()
    assert modes == {"shared": (0o750, group), "endpoint.json": (0o640, group), "s": (0o660, group)}
