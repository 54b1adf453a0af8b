"""The daemon: a management command with one verb, ``tick``, and one life, ``run``."""

from __future__ import annotations

import contextlib
import gc
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from asgiref.sync import async_to_sync
from django.apps import apps
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import autoreload

from daemonkit import signals
from daemonkit.connections.units import fresh_connections, release_connections
from daemonkit.iteration import Iteration
from daemonkit.jobs.job import jobs_of
from daemonkit.leading.fencing import guarded
from daemonkit.life import Life
from daemonkit.listeners.log import plain_logging
from daemonkit.process.exit_message import ends_in_a_sentence, format_in
from daemonkit.process.signal_handlers import on_signals
from daemonkit.schedules.backoff import Backoff
from daemonkit.schedules.schedule import Schedule
from daemonkit.settings.options import HANDED_IN, add_daemon_options
from daemonkit.settings.parsing import usage
from daemonkit.settings.settings import Settings
from daemonkit.signals import announce

if TYPE_CHECKING:
    from daemonkit.workers.places import Team

_OURS = ("handle", "run", "wait", "iterate")


class BaseDaemonCommand(BaseCommand):
    """A management command that runs until it is told to stop. Write ``tick()``.

    ``schedule`` must be said; the other attributes are settings with these defaults, in seconds.
    Options of the same names override them for one run. ``max_memory`` is in bytes, or "300m";
    ``per_worker`` says that each of several workers is to do the work of a schedule.
    """

    schedule: Schedule | None = None
    backoff: Backoff = Backoff()
    pulse: float = 10.0
    stop_timeout: float = 25.0
    tick_timeout: float | None = 3600.0
    max_failures: int | None = None
    max_ticks: int | None = None
    max_seconds: float | None = None
    threads: int = 10
    """How many jobs may run at the same time."""
    ledger: bool = True
    """Whether every due time of a job gets a row (``daemonkit.models.Run``). A loop has none."""
    leader: bool = False
    lease: float = 15.0
    renew_deadline: float | None = None
    renew_every: float | None = None
    max_memory: int | str | None = None
    workers: int = 1
    per_worker: bool = False

    worker_number: int = 1
    """Which of several workers this process is, counted from 1."""

    options: Mapping[str, Any] = MappingProxyType({})
    """The parsed options, from before ``lifespan`` opens; empty for a bare ``iterate()``."""

    how_to_schedule = (
        "has no schedule: write schedule = Every(seconds=30) in its class, or say --every 30s"
    )
    base_stealth_options = (*BaseCommand.base_stealth_options, *HANDED_IN)
    _life: Life | None = None
    _called_from_command_line = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _OURS:
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__module__}.{cls.__name__} overrides {name}(), which runs its life: "
                    f"write tick() instead"
                )

    # What a daemon writes

    def tick(self) -> Any:
        """One unit of work, inside ``fresh_connections``. It may be ``async``."""
        raise NotImplementedError("write tick()")

    def lifespan(self) -> AbstractContextManager[Any]:
        """A context manager that is open for as long as the daemon runs: for sockets, clients."""
        return contextlib.nullcontext()

    def on_error(self, iteration: Iteration) -> None:
        """Called after a tick that failed, when it is logged and before the back-off."""

    # What a tick may use

    @property
    def stopping(self) -> bool:
        """Whether the daemon has been told to stop: a long tick should then come to an end."""
        return self._life is not None and self._life.stop.asked

    def wait(self, seconds: float) -> bool:
        """Wait; True when the time has passed, False as soon as the daemon is told to stop."""
        life = self.life
        life.clock.wait(seconds, life.stop.wait)
        return not life.stop.asked

    def beat(self, message: str = "") -> None:
        """Prove progress in a long tick: ``tick_timeout``, and while stopping ``stop_timeout``,
        start anew. The message is for the status: "41 of 90 files"."""
        job = self._life.stop.beat() if self._life is not None else ""
        announce(signals.daemon_beat, self, message=message, job=job)

    @property
    def epoch(self) -> int | None:
        """For the how manieth time somebody leads: the number of the term in which this tick began.
        None for a daemon without a leader, and while another process leads."""
        leadership = self._life and self._life.leadership
        return leadership.epoch if leadership else None

    def guarded(self) -> AbstractContextManager[None]:
        """A transaction on ``DAEMONKIT["database"]`` that is committed only if nobody has come to
        lead since this tick began: ``with self.guarded(): ...``

        Raises ``StaleEpoch``, and rolls back, if somebody has. For a daemon without a leader, and
        in a bare ``iterate()``, a plain ``atomic(durable=True)``.
        """
        leadership = self._life and self._life.leadership
        return leadership.guarded() if leadership else guarded(self.name, None)

    # One life

    def run(self) -> Iteration | None:
        """Tick whenever it is due, until told to stop. The last iteration, if there was one."""
        life = self.life
        if life.settings.jobs:
            from daemonkit.jobs.scheduler import live  # a plain loop loads no APScheduler

            return live(life)
        with life.watched(), life.announced(), life.opened(), life.campaigning():
            last = None
            while life.wait_until_due(last):
                last = self.iterate(last)
        return last

    def iterate(self, last: Iteration | None = None) -> Iteration:
        """One tick, and what it came to. ``last`` is the iteration before it."""
        life = self.life
        number = last.number + 1 if last else 1
        started = life.now or life.clock.moment()
        due = life.due or started
        life.begin(number, due)
        result, error = None, None
        with life.stop.timing(life.tick_timeout) as timing:
            try:
                with fresh_connections:
                    result = life.tick()
            except Exception as raised:
                error = raised
        seconds = life.clock.moment().monotonic - started.monotonic
        iteration = Iteration(number, due, started, seconds, result)
        return life.finish(iteration, error, last, cut=timing.overdue_since is not None)

    @property
    def life(self) -> Life:
        """The run under way; for a bare ``iterate()``, one that nobody can stop."""
        if self._life is None:
            self._life = Life(self, _written_tick(self), {"once": True})
        return self._life

    @property
    def name(self) -> str:
        """The daemon's name, which is the command's."""
        return type(self).__module__.rpartition(".")[2]

    # How it is a management command

    def run_from_argv(self, argv: list[str]) -> None:
        self._called_from_command_line = True
        with self._ending(format_in(argv), traceback="--traceback" in argv):
            super().run_from_argv(argv)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        add_daemon_options(parser, subcommand)
        return parser

    def execute(self, *args: Any, **options: Any) -> str | None:
        """Django's, but for the checks: they may need a database, and it may be away. The life
        runs them, and waits."""
        wanted = bool(self.requires_system_checks) and not options.get("skip_checks")
        options |= {"skip_checks": True, "checks": wanted}
        traceback = not self._called_from_command_line or bool(options.get("traceback"))
        with self._ending(options.get("log_format"), traceback=traceback):
            return super().execute(*args, **options)

    def check_migrations(self) -> None:
        """Left to the life, like the system checks; Django calls it before ``handle()``."""

    def check_everything(self) -> None:
        """Run the checks that Django would have run, as its options say."""
        if self.options.get("checks"):
            arguments: dict[str, Any] = dict(self.get_check_kwargs(dict(self.options)))  # type: ignore[arg-type]
            self.check(**arguments)
        if self.requires_migrations_checks:
            super().check_migrations()
        if self.life.leadership is not None:
            self.life.leadership.ask_for_the_table()

    def handle(self, *args: Any, **options: Any) -> None:
        """Live once. Exit codes are those of ``daemonkit.Exit``."""
        self.options = MappingProxyType(options)
        self._life = life = Life(self, _written_tick(self), options)
        if life.settings.terms is not None and life.settings.leader:
            from daemonkit.leading.leader import Leadership  # loaded by those alone who want it

            life.leadership = Leadership(life, life.settings.terms)
            life.tick = life.entitled(life.tick)
        try:
            if life.settings.workers > 1:
                from daemonkit.workers.supervisor import supervise  # not for a plain loop

                self._life = None  # each worker has its own
                team = self.as_team(self.handle, *args, **options)
                supervise([team], plain_logging(*self._log_options))
            elif options.get("reload"):
                autoreload.run_with_reloader(self._live_under_the_reloader)
            else:
                self._live()
        finally:
            self._life = None

    def as_team(self, live: Callable[..., Any], *args: Any, **options: Any) -> Team:
        """What a supervisor needs, to have processes live this daemon's life: by ``handle``, or by
        ``execute``, and under these options.

        Raises ``CommandError`` (exit code 2), as the life itself would, for what makes no sense.
        """
        from daemonkit.workers.places import Team

        _written_tick(self)
        settings = Settings(self, options)
        if settings.leader:
            from daemonkit.leading.leader import refuse_where_none_can_lead

            refuse_where_none_can_lead(self.name)
        alone = {**options, "workers": 1, "supervised": True}

        def live_alone() -> None:
            with self._ending(options.get("log_format")):
                live(*args, **alone)

        return Team(self, settings, live_alone)

    @property
    def _log_options(self) -> tuple[int, str | None]:
        return self.options["verbosity"], self.options.get("log_format")

    def _live(self) -> None:
        owns_the_process = self._called_from_command_line
        if owns_the_process:
            gc.freeze()  # what is loaded stays: the collector need not look at it, tick after tick
        # Until the end, or until this process begins anew.
        with on_signals(to_the_end=owns_the_process):
            with plain_logging(*self._log_options), self.life.log.listening():
                self.run()
            if owns_the_process and not self.life.stop.forced:
                release_connections()  # and not the collector, at the end of the interpreter
            self.life.conclude()

    def _live_under_the_reloader(self) -> None:
        with self._ending(self.options.get("log_format")):  # it would print a traceback
            self._live()

    def _ending(
        self, log_format: str | None, *, traceback: bool = False
    ) -> AbstractContextManager[None]:
        return ends_in_a_sentence(self.stderr, log_format, daemon=self.name, traceback=traceback)


def _written_tick(daemon: BaseDaemonCommand) -> Callable[[], Any]:
    """The daemon's ``tick()`` as a plain function, or one sentence about what is wrong with it."""
    if sys.platform not in ("linux", "darwin"):
        raise CommandError(f"daemonkit runs on Linux, and on macOS, but not on {sys.platform}")
    tick, name = daemon.tick, daemon.name
    if jobs_of(type(daemon)):
        if type(daemon).tick is not BaseDaemonCommand.tick:
            raise usage(f"{name} has jobs and a tick(): write one or the other")
        if not apps.is_installed("daemonkit"):
            raise usage(f"{name} has jobs: put 'daemonkit' into INSTALLED_APPS")
        return tick
    if type(daemon).tick is BaseDaemonCommand.tick:
        raise usage(f"{name} has no tick(); write one: it is the daemon's unit of work")
    if inspect.isgeneratorfunction(tick) or inspect.isasyncgenfunction(tick):
        raise usage(f"{name}.tick() is a generator, which returns before it works: no yield")
    if inspect.isgeneratorfunction(daemon.lifespan):
        raise usage(f"{name}.lifespan() is a generator: put @contextmanager above it")
    return async_to_sync(tick) if inspect.iscoroutinefunction(tick) else tick
