"""How a sidecar is found, started and spoken to, over real sockets and processes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import tempfile
import threading
import unittest
from pathlib import Path

from nuke_hdrgen.client import address as a
from nuke_hdrgen.client.connection import Connection, connect
from nuke_hdrgen.client.installed import Installed, read_installed, user_file, write_installed
from nuke_hdrgen.client.job import run_job, write_result
from nuke_hdrgen.client.launch import PrivateSidecar, Start, clean_environment, connect_or_start, sidecar_command
from nuke_hdrgen.wire import errors
from nuke_hdrgen.wire import messages as m
from tests.fakes import fake_gateway
from tests.fakes.fake_gateway import FakeGateway, Side, echo

LINEAR = m.Colourspace("scene_linear", "lin_rec709_scene")
SIDE = 64
BODY = bytes(range(256)) * (SIDE * SIDE * 16 // 256)
INSTALLED = Installed(("/opt/my python/bin/python", "-m", "x"), "1.2.3")
COMMAND = (sys.executable, "-I", "-S", "-B", str(Path(fake_gateway.__file__)))


def opened(frames: int) -> m.Open:
    return m.Open("job", "echo", frames, LINEAR, "echo", encoding="raw")


def sent(count: int):
    for index in range(count):
        frame = m.Frame("any", index, 1001 + index, "f32", (SIDE, SIDE, 4), ("R", "G", "B", "A"), LINEAR)
        yield frame, BODY


class InAFolder(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="hdrgen-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.environment = {"XDG_RUNTIME_DIR": self.folder, "XDG_CONFIG_HOME": self.folder, "HOME": "/nowhere"}


class Addresses(InAFolder):
    def test_forms(self):
        for text, address in (
            ("unix:/run/x", a.Address("/run/x")), ("/run/x", a.Address("/run/x")),
            ("tcp:127.0.0.1:80", a.Address(port=80)), ("localhost:65535", a.Address(port=65535)),
        ):  # fmt: skip
            self.assertEqual(a.parse_address(text), address)
            self.assertEqual(a.parse_address(str(address)), address)
        for text in (
            "unix:x",
            "unix:/a\0b",
            "/" + "x" * 107,
            "tcp:0.0.0.0:80",
            "h:80",
            "127.0.0.1:0",
            "127.0.0.1:\u0661",
            "",
        ):
            with self.subTest(text), self.assertRaises(errors.BadParameter):
                a.parse_address(text)

    def test_the_endpoint_file(self):
        folder = a.runtime_folder(self.environment, create=True)
        self.assertEqual(Path(folder).stat().st_mode & 0o777, 0o700)
        with self.assertRaisesRegex(errors.NoServer, "hdrgen serve"):
            a.find_server(None, self.environment)
        path = Path(folder, a.ENDPOINT_NAME)
        path.write_text(json.dumps({"address": "unix:/run/x", "pid": os.getpid(), "version": "1", "token": "t"}))
        path.chmod(0o600)
        found = a.find_server(None, self.environment)
        self.assertEqual(found, a.Endpoint(a.Address("/run/x"), os.getpid(), "1", "t"))
        self.assertNotIn("'t'", repr(found))
        for text in ("", "[]", "{", "[" * 100000, '{"address": "unix:/x"}'):
            path.write_text(text)
            with self.subTest(text[:9]), self.assertRaisesRegex(errors.NoServer, "does not name a sidecar"):
                a.read_endpoint(folder)
        path.chmod(0o666)
        self.assertRaises(errors.PermissionRefused, a.read_endpoint, folder)


class InstalledFile(InAFolder):
    def test_what_was_written_is_read_and_used(self):
        self.assertIsNone(read_installed(self.environment))
        path = write_installed(INSTALLED, self.environment)
        self.assertEqual((path, Path(path).stat().st_mode & 0o777), (user_file(self.environment), 0o600))
        self.assertEqual(read_installed(self.environment), INSTALLED)
        self.assertEqual(sidecar_command(self.environment), INSTALLED.command)
        self.assertEqual(sidecar_command({**self.environment, "HDRGEN_SIDECAR": "a 'b c'"}), ("a", "b c"))
        self.assertEqual([found.name for found in Path(path).parent.iterdir()], ["sidecar.json"])

    def test_what_is_no_such_file(self):
        path = write_installed(INSTALLED, self.environment)
        for text in ("", "[]", '{"command": [], "package": "1"}', '{"command": "x", "package": "1"}', "[" * 100000):
            Path(path).write_text(text)
            with self.subTest(text[:30]), self.assertRaisesRegex(errors.NoServer, "doctor --install"):
                read_installed(self.environment)
        Path(path).chmod(0o622)
        self.assertRaises(errors.PermissionRefused, read_installed, self.environment)

    def test_the_place_by_platform(self):
        for environment, platform, place in (
            ({"HOME": "/h"}, "linux", "/h/.config/hdrgen/sidecar.json"),
            ({"XDG_CONFIG_HOME": "c", "HOME": "/h"}, "linux", "/h/.config/hdrgen/sidecar.json"),
            ({"HOME": "/h"}, "darwin", "/h/Library/Application Support/hdrgen/sidecar.json"),
            ({"HOME": "/h", "APPDATA": "/a"}, "win32", "/a/hdrgen/sidecar.json"),
        ):
            self.assertEqual(user_file(environment, platform), place)


class Jobs(InAFolder):
    def link(self, gateway: FakeGateway) -> Connection:
        return connect(a.Endpoint(a.parse_address(gateway.address)), "session")

    def gateway(self, *scripts) -> FakeGateway:
        return FakeGateway(Path(self.folder, "socket"), *scripts)

    def test_frames_go_up_and_results_come_down(self):
        progress = []
        with self.gateway() as gateway, self.link(gateway) as connection:
            for _ in range(2):
                found = [(r.index, bytes(body)) for r, body in run_job(connection, opened(4), sent(4), progress.append)]
                self.assertEqual(found, [(index, BODY) for index in range(4)])
        self.assertEqual([p.frame for p in progress], [0, 1, 2, 3] * 2)

    def test_a_frame_waits_until_it_is_ready_and_results_do_not(self):
        got, gone = [], []

        def frames():
            for frame in sent(3):
                gone.append(frame)
                yield frame

        with self.gateway() as gateway, self.link(gateway) as connection:
            for result, _ in run_job(connection, opened(3), frames(), ready=lambda: len(got) == len(gone)):
                got.append(result.index)
                self.assertEqual(len(gone), len(got))
        self.assertEqual(got, [0, 1, 2])

    def test_loopback_tcp(self):
        with FakeGateway(None) as gateway, self.link(gateway) as connection:
            self.assertEqual(len(list(run_job(connection, opened(1), sent(1)))), 1)
            self.assertIsInstance(connection.ask(m.Status(), m.Health), m.Health)

    def test_a_result_is_stored_whole_or_not_at_all(self):
        with self.gateway() as gateway, self.link(gateway) as connection:
            ((result, body),) = run_job(connection, opened(1), sent(1))
            path = f"{self.folder}/a.exr"
            write_result(result, body, path)
            self.assertEqual(Path(path).read_bytes(), BODY)
            with self.assertRaisesRegex(errors.InvalidMessage, "damaged"):
                write_result(result, bytes(len(BODY)), f"{self.folder}/b.exr")
            with self.assertRaisesRegex(errors.StorageError, "another folder"):
                write_result(result, body, f"{self.folder}/none/b.exr")
        self.assertEqual(sorted(found.name for found in Path(self.folder).iterdir()), ["a.exr", "socket"])

    def test_cancel_gets_through(self):
        stop = threading.Event()

        def work(side: Side) -> None:
            side.greet()
            side.take(m.Open)
            stop.set()
            assert side.gateway.cancelled.wait(10), "nobody cancelled"
            while not isinstance(side.receive().message, m.Cancel):
                pass  # an `end` may have been under way
            side.send(m.Error("cancelled", "the job was cancelled", id="job"))
            side.receive()

        with self.gateway(work, echo) as gateway, self.link(gateway) as connection, self.assertRaises(errors.Cancelled):
            list(run_job(connection, opened(0), (), cancel_event=stop))

    def test_a_cancel_that_is_heard_before_its_job_is_not_lost(self):
        heard = threading.Event()

        def late(side: Side) -> None:
            side.greet()
            assert heard.wait(10), "no cancel came over a second connection"
            side.take(m.Open)
            side.take(m.Cancel)
            side.send(m.Error("cancelled", "the job was cancelled", id="job"))
            side.receive()

        def first(side: Side) -> None:
            side.greet()
            side.take(m.Cancel)
            side.take(m.Status)
            heard.set()
            side.send(fake_gateway.HEALTH)
            side.receive()

        stop = threading.Event()
        stop.set()
        with self.gateway(late, first) as gateway, self.link(gateway) as connection:
            job = run_job(connection, opened(1), sent(1), cancel_event=stop)
            self.assertRaises(errors.Cancelled, list, job)

    def test_what_the_server_reports_is_raised(self):
        def full(side: Side) -> None:
            side.greet()
            side.take(m.Open)
            side.send(m.Error("out_of_memory", "needs 9 MiB", {"needed_mib": 9}, "job"))
            side.receive()

        with self.gateway(full) as gateway, self.link(gateway) as connection:
            job = run_job(connection, opened(0), ())
            self.assertRaises(errors.OutOfMemory, list, job)

    def test_a_server_that_goes_is_said_to_have_gone(self):
        def leave(side: Side) -> None:
            side.greet()
            side.take(m.Open)
            side.take(m.End)

        with self.gateway(leave) as gateway, self.link(gateway) as connection:
            job = run_job(connection, opened(0), ())
            self.assertRaisesRegex(errors.NoServer, "ended the connection", list, job)
        with self.assertRaisesRegex(errors.NoServer, "no sidecar answers at unix:/nobody"):
            connect(a.Endpoint(a.parse_address("/nobody")), "session")


class Launching(InAFolder):
    def start(self, *arguments: str, **changes: object) -> Start:
        environment = {**self.environment, "PATH": os.defpath, "PYTHONHOME": "/nowhere"}
        return Start((*COMMAND, *arguments), environment=environment, **changes)

    def test_a_private_sidecar_lives_as_long_as_it_is_held(self):
        with PrivateSidecar(self.start(package="0.1.0"), "session") as own:
            self.assertEqual(own.connection.welcome.pid, own.process.pid)
            with own.connection.again() as second:
                self.assertIsInstance(second.ask(m.Status(), m.Health), m.Health)
        self.assertEqual(own.process.returncode, 0)
        self.assertFalse(Path(own.folder).exists())

    def test_a_start_that_fails_says_the_last_line_of_its_log(self):
        with self.assertRaisesRegex(errors.NoServer, "ended at its start with status 5: the device is on fire"):
            connect_or_start(self.start("--fail"), "session")
        with self.assertRaisesRegex(errors.NoServer, "cannot be started"):
            connect_or_start(Start(("/nowhere/python",), environment=self.environment), "session")

    def test_a_running_sidecar_is_taken_unless_it_is_of_another_version(self):
        with PrivateSidecar(self.start(), "session") as own:
            environment = {**self.environment, "XDG_RUNTIME_DIR": own.folder}
            with connect_or_start(Start(("/nowhere",), "0.1.0", environment=environment), "other") as found:
                self.assertEqual(found.welcome.pid, own.process.pid)
            with self.assertRaisesRegex(errors.AlreadyRunning, r"version 0\.1\.0 is running"):
                connect_or_start(Start(("/nowhere",), "9.9.9", environment=environment), "other")

    def test_the_hosts_python_is_not_handed_on(self):
        kept = clean_environment({"A": "b", "PYTHONHOME": "/n", "PYTHONPATH": "/n", "LD_LIBRARY_PATH": "/n"})
        self.assertEqual(kept, {"A": "b"})
        self.assertEqual(sidecar_command({"HDRGEN_SIDECAR": shlex.join(COMMAND)}), COMMAND)
