"""The supervisor: its commands, its refusals, its signals, and labelled output."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import threading
from collections.abc import Callable

import psutil
import pytest
from django.core.management import CommandError, call_command

from daemonkit import Backoff, Exit, Poll
from daemonkit.command import BaseDaemonCommand
from daemonkit.process.memory import parse_size, resident, size_text
from daemonkit.settings.settings import Settings
from daemonkit.signals import daemon_pulse
from daemonkit.workers.announcing import Announcements
from daemonkit.workers.labels import LONGEST_LINE, Labelled
from daemonkit.workers.places import EARLY_DEATH, Fate, Place, Team
from daemonkit.workers.supervisor import Supervisor
from daemonkit.workers.worker import GRACE, Worker
from lab.processes import Daemon
from tests.kit.processes import Manage
from tests.kit.projects import Project


def refused(daemon: Daemon, code: Exit = Exit.USAGE) -> str:
    """Return the one sentence with which a process was refused. No process is left."""
    assert daemon.wait(20) == code, daemon.output
    (line,) = daemon.stderr.splitlines()
    assert not daemon.stdout
    return line.removeprefix("CommandError: ")


# Refusals


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        (
            "import_prices --workers 0",
            "workers (--workers) takes a whole number above zero, not '0'",
        ),
        (
            "import_prices --workers two",
            "workers (--workers) takes a whole number above zero, not 'two'",
        ),
        (
            "import_prices --workers none",
            "workers (--workers) needs a number; it cannot be none",
        ),
        (
            "expire_baskets --workers 2",
            "expire_baskets: each of 2 workers would do the same work, every 30s; "
            "if that is what you want, write per_worker = True in its class",
        ),
        (
            "import_prices --workers 2 --every 5s",
            "import_prices: each of 2 workers would do the same work, every 5s; "
            "if that is what you want, write per_worker = True in its class",
        ),
        (
            "import_prices --workers 2 --once",
            "--once is for one process: say it without --workers",
        ),
        (
            "import_prices --workers 2 --reload",
            "--reload is for one process: say it without --workers",
        ),
        (
            "import_prices expire_baskets import_prices",
            "import_prices is named twice; several processes of it are --workers 2",
        ),
        (
            "import_prices expire_basket",
            "there is no daemon 'expire_basket'; did you mean expire_baskets? "
            "`manage.py daemons` lists them",
        ),
        (
            "import_prices clearsessions",
            "clearsessions is not a daemon: say how often, "
            "with --every 1h or --cron '0 3 * * *'",
        ),
        (
            "import_prices expire_baskets --older-than 5",
            "--older-than 5: several daemons share the same options; run a daemon that has its "
            "own arguments alone",
        ),
        (
            "import_prices expire_baskets --workers 2",
            "expire_baskets: each of 2 workers would do the same work, every 30s; "
            "if that is what you want, write per_worker = True in its class",
        ),
        ("import_prices expire_baskets --once", "--once is for one daemon, in one process"),
        ("import_prices expire_baskets --reload", "--reload is for one daemon, in one process"),
        (
            "clearsessions cleanup --every 1h -- --verbosity 0",
            "arguments after -- are for a single command; run it alone",
        ),
        ("--all import_prices", "use --all or names, not both"),
        ("--all --nope", "--nope: several daemons share the same options; run a daemon that "
         "has its own arguments alone"),
        (
            "import_prices --max-memory 0",
            "max_memory (--max-memory) must be above zero, not 0",
        ),
        (
            "import_prices --max-memory lots",
            "max_memory (--max-memory) takes a size such as 300m or 1g, not 'lots'",
        ),
    ],
    ids=lambda value: value if "--" in value or "_" in value else "",
)  # fmt: skip
def test_bad_arguments_are_refused_in_one_sentence_before_any_fork(
    manage: Manage, typed: str, sentence: str
) -> None:
    assert refused(manage("run_daemon", *typed.split())) == sentence


def test_all_is_refused_in_a_project_without_daemons(project: Project) -> None:
    project.module("bare_settings.py", "INSTALLED_APPS = ['daemonkit']\nSECRET_KEY = 'x'")
    daemon = project.manage("run_daemon", "--all", DJANGO_SETTINGS_MODULE="bare_settings")
    assert refused(daemon) == (
        "--all: this project has no daemons; write one, or name a command or callable"
    )


def test_several_workers_of_a_leader_are_refused(project: Project) -> None:
    project.command("led", poller("leader = True\n        workers = 3"))
    assert refused(project.manage("run_daemon", "led")) == (
        "led: one of 3 workers would lead and the others never tick; say leader or workers, "
        "not both"
    )


def test_only_the_main_thread_can_fork_workers(project: Project) -> None:
    raised: list[BaseException] = []

    def call() -> None:
        try:
            call_command("import_prices", workers=2)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(20)
    (error,) = raised
    assert isinstance(error, CommandError)
    assert error.returncode == Exit.USAGE


# What runs


def poller(settings: str = "workers = 2", tick: str = "pass") -> str:
    return f"""
    import os, sys, time

    class Command(BaseDaemonCommand):
        schedule = Poll(idle=0.1)
        {settings}

        def add_arguments(self, parser):
            parser.add_argument("words", nargs="*")

        def tick(self):
            print("tick of", self.worker_number, "with", self.options["words"], flush=True)
            {tick}
    """


@pytest.mark.parametrize("door", [["run_daemon", "polling"], ["polling"]])
def test_workers_can_be_set_in_the_class_for_both_commands(
    project: Project, door: list[str]
) -> None:
    project.command("polling", poller("workers = 3"))
    daemon = project.manage(*door, "a", "b")
    for number in (1, 2, 3):
        daemon.wait_for(f"polling.{number} | tick of {number} with ['a', 'b']", within=20)
    assert daemon.stop() == 0


def test_a_daemon_of_several_workers_ticks_once_in_this_process(project: Project) -> None:
    project.command("polling", poller("workers = 3"))
    daemon = project.manage("run_daemon", "polling", "--once")
    assert daemon.wait(20) == 0
    assert daemon.stdout == "tick of 1 with []"


def test_one_worker_needs_no_supervisor(project: Project) -> None:
    project.command("polling", poller("workers = 3"))
    daemon = project.manage("run_daemon", "polling", "--workers", "1", "--max-ticks", "2")
    assert daemon.wait(20) == 0
    assert daemon.stdout.splitlines() == ["tick of 1 with []"] * 2


def test_workers_run_with_any_schedule_if_the_class_sets_per_worker(
    project: Project,
) -> None:
    source = poller("workers = 2\n        per_worker = True").replace(
        "Poll(idle=0.1)", "Every(seconds=0.1)"
    )
    project.command("each", source)
    daemon = project.manage("run_daemon", "each")
    daemon.wait_for("each.1 | tick", within=20, count=2)
    daemon.wait_for("each.2 | tick", within=20, count=2)
    assert daemon.stop() == 0


def test_all_runs_every_daemon_of_the_project_with_its_own_workers(project: Project) -> None:
    settings = "INSTALLED_APPS = ['daemonkit', 'depot']\nROOT_URLCONF = 'depot.urls'"
    project.module("depot_settings.py", f"from config.settings import *\n{settings}")
    project.module("depot/urls.py", "urlpatterns = []")
    project.command("broken", "import nothing_of_that_name")
    project.command("first", plain("workers = 2"))
    project.command("second", plain("workers = 1"))
    daemon = project.manage("run_daemon", "-v", "1", "--all", "--pulse", "1s")
    for line in ("first.1 | tick", "first.2 | tick", "second | tick"):
        daemon.wait_for(line, within=20)
    assert daemon.stop() == 0
    assert "broken of depot does not import" in daemon.stderr
    assert "supervisor of first (2 workers), second started" in daemon.stderr


def plain(settings: str) -> str:
    return f"""
    class Command(BaseDaemonCommand):
        schedule = Poll(idle=0.1)
        {settings}

        def tick(self):
            print("tick", self.options["pulse"], flush=True)
    """


def test_commands_and_callables_run_side_by_side(manage: Manage) -> None:
    daemon = manage("run_daemon", "time.time", "gc.collect", "--every", "100ms", "-v", "2")
    daemon.wait_for("time.time | ", within=20)
    daemon.wait_for(re.compile("^time.time .* tick 3 took"), within=20)
    daemon.wait_for(re.compile("^gc.collect .* tick 3 took"), within=20)
    assert daemon.stop() == 0


# Signals


LISTENER = """
import os
from django.apps import AppConfig

class Config(AppConfig):
    name = "listening"

    def ready(self):
        from daemonkit import signals
        from daemonkit.workers.supervisor import Supervisor
        for name in dir(signals):
            if name.startswith(("daemon_", "reload_")) or name == "database_awaited":
                self.connect(name, getattr(signals, name), Supervisor)

    def connect(self, name, moment, sender):
        def hear(daemon, **details):
            assert daemon.life.stop_timeout > 0
            text = details.get("text", details.get("reason", ""))
            print("HEARD", name, daemon.name, os.getpid(), text, flush=True)
        moment.connect(hear, sender=sender, weak=False)
"""


@pytest.fixture
def listened(project: Project) -> Project:
    """A project that prints the signals of the supervisor."""
    settings = "from config.settings import *\nINSTALLED_APPS += ['depot', 'listening.Config']\n"
    (project.folder / "depot_settings.py").write_text(settings)
    project.module("listening/__init__.py", LISTENER)
    return project


def heard(daemon: Daemon) -> list[str]:
    """Return the signals that the supervisor sent, all of them in its own process."""
    found = [line.split(" ")[1:] for line in daemon.lines if "HEARD" in line]
    assert {int(words[2]) for words in found} <= {daemon.pid}
    return [words[0].removeprefix("daemon_") for words in found]


def test_the_supervisor_is_ready_once_all_workers_are(listened: Project) -> None:
    listened.command(
        "polling",
        """
        import contextlib, os, time

        class Command(BaseDaemonCommand):
            schedule = Poll(idle=0.05)
            workers = 3
            max_ticks = 20

            @contextlib.contextmanager
            def lifespan(self):
                time.sleep(0.5 * (self.worker_number - 1))
                print("opened", os.environ.get("NOTIFY_SOCKET"), flush=True)
                yield

            def tick(self):
                pass
        """,
    )
    daemon = listened.manage("run_daemon", "polling", NOTIFY_SOCKET="@nobody")
    daemon.wait_for("HEARD daemon_ready", within=20)
    daemon.wait_for("(max_ticks of 20 reached)", within=20, count=3)
    os.kill(workers_of(daemon)[-1], signal.SIGKILL)
    daemon.wait_for("SIGKILL", within=20)
    daemon.wait_for("HEARD daemon_status polling", within=20, count=2)
    assert daemon.stop(within=20) == 0
    before = daemon.stdout.partition("HEARD daemon_ready")[0]
    assert before.count("| opened None") == 3
    moments = heard(daemon)
    assert moments.count("ready") == moments.count("started") == 1
    assert moments[0] == "started"
    assert moments[-1] == "stopped"
    assert moments.count("stopping") == moments.count("stopped") == 1
    assert re.search(r"polling \d of 3 ready, \d+ ticks", daemon.stdout)


def workers_of(daemon: Daemon) -> list[int]:
    return [child.pid for child in psutil.Process(daemon.pid).children()]


def test_the_supervisors_pulse_stops_when_a_workers_pulse_stops(listened: Project) -> None:
    listened.command(
        "polling", poller("workers = 2\n        pulse = 0.2\n        tick_timeout = 2")
    )
    daemon = listened.manage("run_daemon", "polling")
    daemon.wait_for("HEARD daemon_ready", within=20)
    daemon.wait_for("HEARD daemon_pulse", within=20, count=5)
    os.kill(workers_of(daemon)[0], signal.SIGSTOP)
    daemon.wait_for("no sign of life", within=30)
    at_sigabrt = heard(daemon).count("pulse")
    # By SIGABRT, or by faulthandler's timer, which ran out while the worker was stopped.
    daemon.wait_for("polling.1 (pid", within=20)
    assert heard(daemon).count("pulse") <= at_sigabrt + 1
    daemon.wait_for("HEARD daemon_pulse", within=20, count=at_sigabrt + 5)
    assert daemon.stop(within=20) == 0


def test_the_supervisor_announces_a_reload_and_is_ready_again(listened: Project) -> None:
    listened.command("polling", poller())
    daemon = listened.manage("run_daemon", "polling")
    daemon.wait_for("HEARD daemon_ready", within=20)
    listened.command("polling", poller(tick="print('new code', flush=True)"))
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("HEARD daemon_reloading polling", within=20)
    daemon.wait_for("HEARD daemon_ready", within=20, count=2)
    daemon.wait_for("polling.2 | new code", within=20)
    assert daemon.stop(within=20) == 0
    moments = [moment for moment in heard(daemon) if moment not in ("pulse", "status")]
    first = ["started", "ready", "reload_requested", "reloading", "stopped"]
    assert moments == [*first, "started", "ready", "stopping", "stopped"]


def test_new_code_that_does_not_compile_is_not_loaded(listened: Project) -> None:
    listened.command("polling", poller())
    daemon = listened.manage("run_daemon", "polling")
    daemon.wait_for("supervisor is ready", within=20)
    listened.command("polling", "class Command(BaseDaemonCommand:")
    daemon.signal_group(signal.SIGHUP)
    daemon.wait_for("HEARD reload_failed polling", within=20)
    ticks = daemon.so_far.count("polling.1 | tick of 1")
    daemon.wait_for("polling.1 | tick of 1", within=20, count=ticks + 3)
    assert daemon.stop(within=20) == 0
    assert "SyntaxError" in daemon.stderr
    assert "reloading" not in heard(daemon)


# A worker ends like a daemon without a supervisor


@pytest.mark.parametrize(
    ("settings", "tick", "code"),
    [
        ("max_failures = 1", "raise ValueError", 75),
        ("", "sys.exit(3)", 3),
        ("", "sys.exit()", 0),
        ("", "sys.exit('a sentence')", 1),
        ("", "os._exit(9)", 9),
    ],
)
def test_a_worker_has_the_exit_code_of_a_daemon_without_a_supervisor(
    project: Project, settings: str, tick: str, code: int
) -> None:
    project.command("polling", poller(settings or "pulse = 5", tick))
    alone = project.manage("run_daemon", "polling")
    assert alone.wait(20) == code
    several = project.manage("run_daemon", "polling", "--workers", "2")
    for worker in (1, 2):
        ended = rf"polling\.{worker} .*ended with exit code {code} after"
        several.wait_for(re.compile(ended), within=20)
    assert several.stop(within=20) == 0
    if "sentence" in tick:
        assert "polling.1 | a sentence" in several.stderr


def test_a_worker_writes_its_buffered_output_before_it_ends(project: Project) -> None:
    project.command("polling", poller(tick="sys.stdout.write('no end of line'); time.sleep(0.1)"))
    daemon = project.manage("run_daemon", "polling")
    daemon.wait_for("tick of 1", within=20)
    assert daemon.stop(within=20) == 0
    assert re.search(r"^polling\.1 \| no end of line", daemon.stdout, re.MULTILINE)


def test_all_output_of_a_worker_is_labelled(project: Project) -> None:
    writes = "; ".join(
        [
            "self.stdout.write('by the command')",
            "sys.stderr.write('by hand\\n')",
            "sys.stdout.buffer.write(b'as bytes\\n')",
            "import logging, warnings",
            "logging.getLogger('daemonkit').warning('by a handler')",
            "print('x' * 5000)",
            "print('{\"json\": true}', flush=True)",
        ]
    )
    project.command("polling", poller("workers = 4", writes))
    for unbuffered in (None, "1"):
        daemon = project.manage("run_daemon", "polling", PYTHONUNBUFFERED=unbuffered)
        daemon.wait_for("json", within=20, count=20)
        assert daemon.stop(within=20) == 0
        for line in daemon.stdout.splitlines():
            label, _, message = line.rpartition(" | ")
            if not re.fullmatch(r"polling\.\d", label):
                assert re.fullmatch(r'\{"worker": "polling\.\d", "json": true\}', line), line[:80]
            assert re.fullmatch(r"tick of .*|by the command|as bytes|x{5000}|\{.*\}", message)
        for ending in ("by hand", "by a handler"):
            assert re.search(rf"^polling\.\d \| .*{ending}$", daemon.stderr, re.MULTILINE)


# Labels, sizes and pauses, without a process


@pytest.fixture
def labelled() -> Callable[[str], list[bytes]]:
    """``labelled(text, ...)`` writes the texts one by one, and returns the labelled output."""

    def write(*texts: str) -> list[bytes]:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        raw = Labelled(writer, "a.1", "<stdout>")
        pieces = []
        for text in texts:
            assert raw.write(text.encode()) == len(text)
            while select.select([reader], [], [], 0)[0]:
                pieces.append(os.read(reader, 65536))
        raw.finish()
        if select.select([reader], [], [], 0)[0]:
            pieces.append(os.read(reader, 65536))
        os.close(reader)
        os.close(writer)
        return pieces

    return write


Labelling = Callable[..., list[bytes]]


def test_a_line_is_written_when_it_ends(labelled: Labelling) -> None:
    assert labelled("one\ntw", "o\n", "three") == [b"a.1 | one\n", b"a.1 | two\n", b"a.1 | three\n"]


def test_a_line_that_only_looks_like_json_has_a_label(labelled: Labelling) -> None:
    lines = ["{'a': 1}", "{1, 2}", "{not json}", "{}"]
    written = b"".join(labelled("\n".join(lines) + "\n")).decode()
    assert written.splitlines() == [f"a.1 | {line}" for line in lines]


def test_an_empty_line_has_its_label(labelled: Labelling) -> None:
    assert labelled("\n\n") == [b"a.1 | \na.1 | \n"]


def test_the_journals_priority_stays_before_the_label(labelled: Labelling) -> None:
    assert labelled("<3>it broke\n") == [b"<3>a.1 | it broke\n"]


def test_a_labelled_json_object_is_still_valid_json(labelled: Labelling) -> None:
    (line,) = labelled('{"daemon": "a"}\n')
    assert json.loads(line) == {"worker": "a.1", "daemon": "a"}
    assert labelled("{}\n") == [b"a.1 | {}\n"]


def test_a_line_without_end_is_written_in_pieces(labelled: Labelling) -> None:
    (piece,) = labelled("x" * (LONGEST_LINE + 1))
    assert piece == b"a.1 | " + b"x" * (LONGEST_LINE + 1) + b"\n"


def test_sizes_are_parsed_and_formatted() -> None:
    assert parse_size("300m") == 300 * 2**20
    assert parse_size("1.5G") == 3 * 2**29
    assert parse_size("64 KB") == 2**16
    assert parse_size(1000) == 1000
    assert [size_text(parse_size(text)) for text in ("300m", "1.5g", "12k", "5")] == [
        *("300m", "1.5g", "12k", "5")
    ]
    for wrong in ("", "m", "-1", "1t", "many", None):
        with pytest.raises(ValueError, match="such as 300m"):
            parse_size(wrong)  # type: ignore[arg-type]


def test_memory_is_the_present_use_and_not_the_peak() -> None:
    before = resident()
    held = bytearray(b"x" * (64 << 20))
    assert resident() - before > 60 << 20
    assert abs(resident() - psutil.Process().memory_info().rss) < 8 << 20
    del held
    assert resident() - before < 16 << 20


class Daily(BaseDaemonCommand):
    schedule = Poll()
    backoff = Backoff(first=1, factor=2, cap=60)

    def tick(self) -> None: ...


def place() -> Place:
    daemon = Daily()
    return Place(Team(daemon, Settings(daemon, {}), lambda: None), 1, "daily")


def worker_in(place: Place) -> Worker:
    return Worker(place.label, place.team.settings, pid=0, orders=0, reports=0)


def died(place: Place, *, ready: bool = True, age: float = 0.0, code: int = 1) -> float:
    worker = worker_in(place)
    worker.is_ready = ready
    worker.started_at -= age
    return place.pause_after(worker, code)


def test_the_supervisor_sends_no_pulse_while_a_worker_is_silent() -> None:
    supervisor = Supervisor([place().team])
    announcements = Announcements(supervisor, supervisor.teams, supervisor.staff.places)
    pulses: list[object] = []

    def hear(daemon: object, **_: object) -> None:
        pulses.append(daemon)

    daemon_pulse.connect(hear, sender=Supervisor)
    try:
        (first,) = supervisor.staff.places
        first.worker = worker_in(first)
        announcements.announce_pulse(first.worker.heard_at)
        assert pulses == [supervisor]
        announcements.announce_pulse(first.worker.heard_at + 3600 + 10 + GRACE)
        assert pulses == [supervisor]
    finally:
        daemon_pulse.disconnect(hear, sender=Supervisor)


def test_the_pause_is_zero_after_a_first_death_and_grows_with_further_early_deaths() -> None:
    here = place()
    pauses = [died(here) for _ in range(8)]
    assert pauses[0] == 0
    for failures, pause in enumerate(pauses[1:], 1):
        whole = min(60, 2 ** (failures - 1))
        assert whole / 2 <= pause <= whole


def test_a_worker_that_was_never_ready_is_replaced_after_a_pause() -> None:
    assert 0.5 <= died(place(), ready=False) <= 1


def test_a_worker_that_ran_for_a_while_resets_the_pause() -> None:
    here = place()
    for _ in range(5):
        died(here)
    assert died(here, age=EARLY_DEATH + 1) == 0


def test_a_worker_stopped_by_others_is_not_replaced_at_once() -> None:
    """The signal may be meant for the whole group, and reach the supervisor a moment later."""
    assert died(place(), code=0, age=60) == died(place(), code=-signal.SIGTERM, age=60) == 0.1


def fate(place: Place, code: int, **facts: bool) -> Fate:
    worker = worker_in(place)
    for name, value in facts.items():
        setattr(worker, name, value)
    place.clear(worker)
    return place.fate(worker, code)


def test_which_exit_codes_are_fatal() -> None:
    here = place()
    assert fate(here, 78) is Fate.FATAL
    assert fate(here, 2) is Fate.FATAL
    assert fate(here, 1) is Fate.FILLED_AGAIN
    assert fate(here, 78, is_ready=True) is Fate.FATAL
    assert fate(here, 2) is Fate.FILLED_AGAIN
    assert fate(here, 78, has_succeeded=True) is Fate.FILLED_AGAIN
    assert fate(here, 78) is Fate.FILLED_AGAIN


def test_a_place_is_given_up_when_its_daemon_has_no_further_due_time() -> None:
    assert fate(place(), 0, finished="nothing is due any more") is Fate.GIVEN_UP
    assert fate(place(), 1, finished="nothing is due any more") is Fate.FILLED_AGAIN
