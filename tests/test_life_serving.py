"""Daemons that have serve(): real processes, signals and clients."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from daemonkit.testing import NotifySocket
from lab.processes import Daemon
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.processes import LIVES, Live
from tests.kit.projects import Project

pytestmark = pytest.mark.one_python

SQLITE = "sqlite://:memory:"
KINDS = ["serving", "serving_async"]


def port_of(daemon: Daemon) -> int:
    line = daemon.wait_for(re.compile(r"^(serving.\d \| )?listening on .*\d+\)$"), 20)
    return int(re.findall(r"\d+", line)[-1])


def ask(port: int, line: str = "hello") -> str:
    """The answer to one line; "" if the server hung up without one."""
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.settimeout(20)
        client.sendall(f"{line}\n".encode())
        return client.makefile().readline().strip()


class Clients:
    """Threads that ask as fast as they can, a connection for each question, and count."""

    def __init__(self, port: int, number: int = 4) -> None:
        self.port, self.counts, self.ends = port, Counter[str](), False
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask) for _ in range(number)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ends = True
        for thread in self._threads:
            thread.join()

    @property
    def unanswered(self) -> dict[str, int]:
        return {what: count for what, count in self.counts.items() if what != "answered"}

    def _ask(self) -> None:
        while not self.ends:
            try:
                answer = ask(self.port)
                what = "answered" if answer.startswith("hello ") else f"wrong: {answer!r}"
            except OSError as error:
                what = type(error).__name__
            with self._lock:
                self.counts[what] += 1


def reload(daemon: Daemon, times: int, count: str = "started: until") -> None:
    for _ in range(times):
        begun = daemon.so_far.count(count)
        daemon.signal(signal.SIGHUP)
        eventually(lambda begun=begun: daemon.so_far.count(count) > begun, within=30)
        time.sleep(0.1)  # so that it serves some clients in between


@pytest.mark.parametrize("kind", KINDS)
def test_through_ten_reloads_under_load_no_client_is_refused_or_left_without_an_answer(
    live: Live, kind: str, server: Server
) -> None:
    daemon = live(kind, on=server)
    port = port_of(daemon)
    ask(port)
    with Clients(port) as clients:
        reload(daemon, 10)
        eventually(lambda: clients.counts["answered"] > 100, within=30)
    assert clients.unanswered == {}
    assert daemon.stop(within=20) == 0
    assert len(set(re.findall(r"listening on .*", daemon.stdout))) == 1


@pytest.mark.leaves_sessions
def test_idle_kills_a_restart_and_a_freeze_between_reloads_refuse_nobody(
    live: Live, server: Server
) -> None:
    daemon = live("serving", on=server)
    port = port_of(daemon)
    for trouble in ("kill", "restart", "freeze"):
        assert ask(port).startswith("hello ")
        if trouble == "kill":
            server.kill_sessions()
        elif trouble == "restart":
            server.stop()
            server.start()
        else:
            server.freeze()
            with ask_aside(port, "plain") as answers:
                reload(daemon, 1)
                server.thaw()
            assert answers[0].startswith("plain ")
        reload(daemon, 1)
        assert ask(port).startswith("hello ")
    assert daemon.stop(within=20) == 0


@contextlib.contextmanager
def ask_aside(port: int, line: str) -> Iterator[list[str]]:
    answers: list[str] = []
    thread = threading.Thread(target=lambda: answers.append(ask(port, line)))
    thread.start()
    yield answers
    thread.join(30)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_in_flight_is_answered_before_the_process_ends_or_reloads(
    live: Live, kind: str, signum: signal.Signals
) -> None:
    daemon = live(kind, on=SQLITE)
    port = port_of(daemon)
    with ask_aside(port, "sleep 1.5") as answers:
        eventually(lambda: connected_clients(daemon), what="it is accepted")
        daemon.signal(signum)
        daemon.wait_for(re.compile("stops: SIGTERM|reloads: SIGHUP"), 20)
        if signum is signal.SIGTERM:
            eventually(lambda: not lets_in(port), what="no more clients are accepted")
    assert answers == [f"sleep 1.5 {daemon.pid}"]
    if signum is signal.SIGHUP:
        assert ask(port) == f"hello {daemon.pid}"
        daemon.signal(signal.SIGTERM)
    assert daemon.wait(20) == 0


def connected_clients(daemon: Daemon) -> list[Any]:
    found = psutil.Process(daemon.pid).net_connections("tcp")
    return [each for each in found if each.status == "ESTABLISHED"]


def lets_in(port: int) -> bool:
    with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_a_sigterm_under_load_ends_it_and_leaves_no_accepted_client_without_an_answer(
    live: Live, kind: str
) -> None:
    daemon = live(kind, on=SQLITE)
    with Clients(port_of(daemon)) as clients:
        eventually(lambda: clients.counts["answered"] > 50, within=20)
        assert daemon.stop(within=20) == 0
    # Refused, or reset in the backlog; but hung up on without an answer would be "wrong: ''".
    assert clients.unanswered.keys() <= {"ConnectionRefusedError", "ConnectionResetError"}


def test_an_idle_client_is_hung_up_on_and_holds_nothing_up(live: Live) -> None:
    daemon = live("serving", on=SQLITE)
    with socket.create_connection(("127.0.0.1", port_of(daemon)), 10) as idle:
        idle.sendall(b"hello\n")
        assert idle.recv(100).startswith(b"hello")
        started = time.monotonic()
        assert daemon.stop(within=20) == 0
        assert time.monotonic() - started < 10
        assert idle.recv(100) == b""


def test_a_call_that_does_not_end_is_bounded_by_stop_timeout(live: Live) -> None:
    daemon = live("serving", "--stop-timeout", "500ms", on=SQLITE)
    with ask_aside_and_fail(port_of(daemon), "sleep 60"):
        eventually(lambda: connected_clients(daemon))
        assert daemon.stop(within=15) == 70


@contextlib.contextmanager
def ask_aside_and_fail(port: int, line: str) -> Iterator[None]:
    def ask_in_vain() -> None:
        with contextlib.suppress(OSError):
            ask(port, line)

    thread = threading.Thread(target=ask_in_vain)
    thread.start()
    yield
    thread.join(30)


def test_an_async_serve_is_cancelled_after_stop_timeout(live: Live) -> None:
    daemon = live("serving_async", "--kind", "for_ever", "--stop-timeout", "500ms", on=SQLITE)
    daemon.wait_for("serves", 20)
    assert daemon.stop(within=15) == 70
    assert "cancelled" in daemon.stdout


def test_a_sync_serve_that_does_not_stop_is_ended_after_stop_timeout(live: Live) -> None:
    daemon = live("serving", "--kind", "stuck", "--stop-timeout", "500ms", on=SQLITE)
    daemon.wait_for("stuck", 20)
    assert daemon.stop(within=15) == 70


@pytest.mark.parametrize(
    ("kind", "code", "sentence"),
    [
        ("returns", 70, "serve() returned although nobody asked it to stop"),
        ("fails", 1, "serve() failed with ValueError: out of paper"),
    ],
)
def test_a_serve_that_ends_by_itself_ends_the_process_so_that_it_is_started_again(
    live: Live, kind: str, code: int, sentence: str
) -> None:
    daemon = live("serving", "--kind", kind, on=SQLITE)
    assert daemon.wait(20) == code
    assert sentence in daemon.stderr


def test_a_limit_of_seconds_ends_it_cleanly(live: Live) -> None:
    daemon = live("serving", "--max-seconds", "1s", on=SQLITE)
    assert ask(port_of(daemon)).startswith("hello")
    assert daemon.wait(20) == 0
    assert "max_seconds of 1 reached" in daemon.stderr


# Sockets


def test_a_unix_socket_is_kept_over_a_reload_and_removed_at_the_end(
    live: Live, tmp_path: Path
) -> None:
    path = tmp_path / "lines"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))  # by a process that was killed
    daemon = live("serving", f"unix:{path}", on=SQLITE)
    daemon.wait_for("listening on", 20)
    made = path.stat().st_ino
    assert ask_unix(path).startswith("hello")
    reload(daemon, 2)
    assert ask_unix(path).startswith("hello")
    assert path.stat().st_ino == made
    assert daemon.stop(within=20) == 0
    assert not path.exists()


def ask_unix(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"hello\n")
        return client.makefile().readline().strip()


HANDED_OVER = """
import os, socket, sys
with socket.socket(socket.AF_UNIX) as giver:
    giver.connect(sys.argv[1])
    _, (descriptor,), _, _ = socket.recv_fds(giver, 1, 1)
os.dup2(descriptor, 3)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Does what systemd does before it executes a service."""


def test_systemd_hands_its_socket_over_and_keeps_it_over_reloads_and_the_end(
    tmp_path: Path,
) -> None:
    giver = str(tmp_path / "giver")
    with (
        socket.create_server(("127.0.0.1", 0)) as handed,
        socket.create_server(giver, family=socket.AF_UNIX) as giving,
    ):
        port = handed.getsockname()[1]
        command = [sys.executable, "-c", HANDED_OVER, giver]
        command += [str(LIVES), "run_daemon", "serving", f"127.0.0.1:{port}"]
        daemon = Daemon(command, env={"DATABASE_URL": SQLITE})
        try:
            with giving.accept()[0] as taker:
                socket.send_fds(taker, [b"."], [handed.fileno()])
            assert ask(port) == f"hello {daemon.pid}"  # it may have waited in the backlog
            reload(daemon, 2)
            assert ask(port) == f"hello {daemon.pid}"
            assert daemon.stop(within=20) == 0
            with socket.create_connection(("127.0.0.1", port), 5):
                handed.accept()[0].close()  # it is still systemd's
        finally:
            daemon.end()


def test_children_inherit_no_listening_socket(live: Live) -> None:
    daemon = live("serving", on=SQLITE)
    port_of(daemon)
    reload(daemon, 1)
    eventually(lambda: daemon.so_far.count("listening on") == 2, within=20)
    inheritable = [
        each.name
        for each in Path(f"/proc/{daemon.pid}/fdinfo").iterdir()
        if int(each.name) > 2
        and os.readlink(f"/proc/{daemon.pid}/fd/{each.name}").startswith("socket:")  # noqa: PTH115
        and not int(re.findall(r"flags:\s+(\d+)", each.read_text())[0], 8) & os.O_CLOEXEC
    ]
    assert inheritable == []


# Workers


def test_workers_share_the_supervisors_socket_and_no_reload_or_death_refuses_a_client(
    live: Live,
) -> None:
    daemon = live("serving", "--workers", "2", on=SQLITE)
    port = port_of(daemon)
    daemon.wait_for("supervisor is ready: serving 2 of 2", 20)
    with Clients(port) as clients:
        reload(daemon, 3, "supervisor is ready")
        eventually(lambda: clients.counts["answered"] > 100, within=30)
    assert clients.unanswered == {}
    for worker in psutil.Process(daemon.pid).children():
        worker.kill()
    assert ask(port).startswith("hello")
    assert daemon.stop(within=20) == 0


def test_several_workers_that_open_the_port_themselves_are_refused(live: Live) -> None:
    daemon = live("serving", "--kind", "own", "--workers", "2", on=SQLITE)
    assert daemon.wait(30) == 78
    assert "take the socket from self.listen(), or set SO_REUSEPORT" in daemon.output


# The pulse


@pytest.fixture
def channel() -> Iterator[NotifySocket]:
    with NotifySocket() as channel:
        yield channel


def pulsing(live: Live, command: str, kind: str, channel: NotifySocket) -> Daemon:
    arguments = ["--kind", kind, "--pulse", "300ms"]
    return live(command, *arguments, on=SQLITE, NOTIFY_SOCKET=channel.address)


@pytest.mark.parametrize(
    ("command", "kind"), [("serving", "lines"), ("serving_async", "lines"), ("serving", "beats")]
)
def test_a_server_that_lives_sends_its_pulse(
    live: Live, command: str, kind: str, channel: NotifySocket
) -> None:
    daemon = pulsing(live, command, kind, channel)
    channel.wait_for("WATCHDOG=1", count=4)
    assert "no sign of life" not in daemon.so_far
    assert daemon.stop(within=20) == 0


@pytest.mark.parametrize(
    ("command", "kind", "why"),
    [
        ("serving", "deaf", "it takes no connection on its own port"),
        ("serving", "stuck", "it listens on no port, and does not call self.beat()"),
        ("serving_async", "blocks", "its event loop does not run"),
    ],
)
def test_a_server_that_does_not_answer_sends_no_pulse(
    live: Live, command: str, kind: str, why: str, channel: NotifySocket
) -> None:
    daemon = pulsing(live, command, kind, channel)
    daemon.wait_for(f"{command} gives no sign of life: {why}", 20)
    before = channel.lines().count("WATCHDOG=1")
    time.sleep(1.5)  # five pulses
    assert channel.lines().count("WATCHDOG=1") == before
    daemon.signal(signal.SIGKILL)


# Bad input


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("def tick(self): ...", "has a tick() and a serve(): write one or the other"),
        ("schedule = Every(1)", "has a schedule and a serve(): a server has none"),
        (
            "from daemonkit import job\n    j = job(Every(1))(lambda self: 0)",
            "has jobs and a serve()",
        ),
        ("leader = True", "leader is for a daemon with a tick()"),
        ("max_ticks = 3", "max_ticks is for a daemon with a tick()"),
        ("def serve(self): yield", "serve() is a generator"),
        ("def serve(self, port): ...", "serve() is called with no arguments besides self"),
    ],
)
def test_a_class_that_makes_no_sense_is_refused_in_one_sentence(
    project: Project, source: str, sentence: str
) -> None:
    project.command(
        "wrong",
        f"class Command(BaseDaemonCommand):\n    def serve(self): ...\n    {source}",
    )
    daemon = project.manage("run_daemon", "wrong")
    assert daemon.wait(20) == 2
    assert sentence in daemon.stderr
    assert "Traceback" not in daemon.stderr


@pytest.mark.parametrize("option", [["--once"], ["--every", "1s"], ["--max-ticks", "2"]])
def test_an_option_for_ticks_is_refused(live: Live, option: list[str]) -> None:
    daemon = live("serving", *option, on=SQLITE)
    assert daemon.wait(20) == 2
    assert f"runs until it is told to stop: no {option[0]}" in daemon.stderr


@pytest.mark.parametrize(
    ("address", "code", "sentence"),
    [
        ("9090", 2, 'listen() takes "host:port"'),
        ("localhost:99999", 2, 'listen() takes "host:port"'),
        ("localhost:http", 2, 'listen() takes "host:port"'),
        ("unix:relative", 2, "listen() takes an absolute path"),
        (f"unix:/{'x' * 120}", 2, "has at most 107 bytes"),
        ("unix:/no/such/folder", 1, "cannot listen on unix:/no/such/folder: No such file"),
        ("unix:FILE", 2, "exists and is no socket: remove it"),
        ("unix:TAKEN", 1, "Address already in use; stop what listens there"),
        ("127.0.0.1:TAKEN", 1, "Address already in use; stop what listens there"),
        ("192.0.2.1:80", 1, "cannot listen on 192.0.2.1:80: Cannot assign"),
    ],
)
def test_a_bad_address_is_one_sentence(
    live: Live, tmp_path: Path, address: str, code: int, sentence: str
) -> None:
    (tmp_path / "file").touch()
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        socket.create_server(str(tmp_path / "taken"), family=socket.AF_UNIX),
    ):
        address = address.replace("FILE", str(tmp_path / "file"))
        is_unix = address.startswith("unix")
        other = str(tmp_path / "taken") if is_unix else str(taken.getsockname()[1])
        daemon = live("serving", address.replace("TAKEN", other), on=SQLITE)
        assert daemon.wait(20) == code
    assert sentence in daemon.stderr
    assert "Traceback" not in daemon.stderr


@pytest.mark.parametrize(
    ("address", "code"), [("127.0.0.1:TAKEN", 1), ("192.0.2.1:80", 1), ("9090", 2)]
)
def test_a_bad_address_ends_the_supervisor_of_several_workers_in_one_sentence(
    live: Live, address: str, code: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = address.replace("TAKEN", str(taken.getsockname()[1]))
        daemon = live("serving", address, "--workers", "2", on=SQLITE)
        assert daemon.wait(20) == code
    assert len(re.findall("CommandError: .*listen", daemon.stderr)) == 1
    assert "Traceback" not in daemon.stderr
    assert "the next one starts" not in daemon.stderr


def test_listen_and_on_stop_outside_of_a_server_say_where_they_belong() -> None:
    from daemonkit import BaseDaemonCommand

    for call in (
        lambda: BaseDaemonCommand().listen("127.0.0.1:0"),
        lambda: BaseDaemonCommand().on_stop(print),
    ):
        with pytest.raises(RuntimeError, match=r"is for a daemon that serves"):
            call()
