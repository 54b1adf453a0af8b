"""``BaseDaemonCommand``: the management command that a daemon subclasses.

This file is the API of a daemon's author. How Django starts a daemon is in ``starting.py``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from daemonkit import signals
from daemonkit.connections.units import fresh_connections
from daemonkit.iteration import Iteration, ends_process
from daemonkit.process.stopping import occasion_of_this_work
from daemonkit.schedules.backoff import Backoff
from daemonkit.schedules.base import Schedule
from daemonkit.signals import announce
from daemonkit.starting import StartedByDjango

if TYPE_CHECKING:
    from daemonkit.servers.listener import Listener

_NOT_TO_OVERRIDE = ("handle", "run", "wait", "iterate")


class BaseDaemonCommand(StartedByDjango):
    """A management command that runs until it is told to stop. Write ``tick()``.

    ``schedule`` is required. The other attributes are settings with these defaults; times are in
    seconds. Options of the same names override them for one run. ``max_memory`` is in bytes, or a
    text such as "300m". With ``per_worker`` each of several workers does all the work of the
    schedule.
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
    serial: bool = False
    """Whether jobs run one after the other, as with one thread."""
    jitter: float = 0.0
    """Seconds by which the due times of a loop are later at most: a fixed number for each host."""
    catch_up: bool = False
    """For a loop with ``Cron``: run once at the start if a due time was missed. Its due times then
    have rows in the ledger, and run on a thread, as those of a job ``tick``."""
    ledger: bool = True
    """Whether each due time of a job gets a row (``daemonkit.models.Run``)."""
    leader: bool = False
    lease: float = 15.0
    renew_deadline: float | None = None
    renew_every: float | None = None
    max_memory: int | str | None = None
    wake_on: str = ""
    """The name with which ``daemonkit.wake(name)``, in any process, makes a tick due now."""
    wait_for_migrations: bool = True
    """Whether to wait at the start until the migrations of its own app are applied. Not with DEBUG
    or ``--once``, and not under ``call_command()``."""
    expect_success_within: float | None = None
    """``daemons status --check`` fails if the last success is longer ago than this, in seconds."""
    workers: int = 1
    per_worker: bool = False

    worker_number: int = 1
    """Which of several workers this process is, counted from 1."""

    # ``options`` holds the parsed options, already in ``lifespan()``; empty for a bare iterate().

    missing_schedule = (
        "has no schedule: write schedule = Every(seconds=30) in its class, or say --every 30s"
    )

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _NOT_TO_OVERRIDE:
            if name in vars(cls):
                raise TypeError(
                    f"{cls.__module__}.{cls.__name__} overrides {name}(), which runs its life: "
                    f"write tick() instead"
                )

    # What the author of a daemon writes

    def tick(self) -> Any:
        """One unit of work, inside ``fresh_connections``. It may be ``async``."""
        raise NotImplementedError("write tick()")

    def serve(self) -> Any:
        """A server, instead of ``tick()``: runs until it is told to stop. It may be ``async``."""
        raise NotImplementedError("write serve()")

    def lifespan(self) -> AbstractContextManager[Any] | AbstractAsyncContextManager[Any]:
        """A context manager that is open while the daemon runs, for example for sockets or clients.
        It may be an async one."""
        return contextlib.nullcontext()

    def on_error(self, iteration: Iteration) -> Any:
        """Called after a failed tick has been logged, before the back-off. It may be ``async``.
        It has a ``tick_timeout`` of its own."""

    def left_over(self) -> str:
        """What does not count as work left, such as "3 rows wait for a retry". Called when
        ``--until-empty`` ends the daemon; the last line of its log says it."""
        return ""

    @property
    def scheduler(self) -> Any:
        """APScheduler's API to the jobs of ``add_jobs(self, scheduler)``. From any thread."""
        from daemonkit.jobs.added_dispatcher import scheduler_of  # it loads APScheduler

        return scheduler_of(self)

    @property
    def has_tick(self) -> bool:
        """Whether the class has a ``tick()`` of its own."""
        return type(self).tick is not BaseDaemonCommand.tick

    def check_class(self, workers: int = 1) -> None:
        """Raise ``CommandError`` if a kind of daemon, such as a poller, is not complete."""

    @property
    def has_serve(self) -> bool:
        """Whether the class has a ``serve()`` of its own."""
        return type(self).serve is not BaseDaemonCommand.serve

    # What serve() may use

    def on_stop(self, callback: Callable[[], Any]) -> None:
        """In ``serve()``: call this when told to stop, from another thread. In an async one it is
        called on the event loop, and may be a coroutine function."""
        self._current_serving("on_stop").on_stop(callback)

    def listen(self, address: str) -> Listener:
        """In ``serve()``: a listening socket for "host:port" or "unix:/path", kept over a reload.
        Raises ``CommandError`` if the address is in use (exit code 1) or wrong (2)."""
        return self._current_serving("listen").listen(address)

    # What a tick may use

    @property
    def stopping(self) -> bool:
        """Whether the daemon has been asked to stop. A long tick should then end soon."""
        return self._life is not None and self._life.stop.asked

    @property
    def due(self) -> datetime | None:
        """When the current tick, or run of a job, was due, in the time zone of its schedule: after
        an outage this may be yesterday. None for ``Poll``, and outside of ticks. A thread sees it
        if it belongs to a ``daemonkit.Pool``."""
        occasion = occasion_of_this_work()
        if occasion is None or not occasion[1].has_times:
            return None
        due, schedule, _ = occasion
        moment: datetime = due.later(-schedule.offset).utc.astimezone(schedule.zone)
        return moment

    @property
    def attempt(self) -> int:
        """Which try of a job's due time this is, from 1; see ``@job(retries=...)``."""
        occasion = occasion_of_this_work()
        return 1 if occasion is None else int(occasion[2])

    def skip(self, why: str) -> NoReturn:
        """End this tick, or this run of a job, as skipped. Raises an exception to do so."""
        from daemonkit.skipping import Skipped

        raise Skipped(why)

    def wait(self, seconds: float) -> bool:
        """Wait. True if the time has passed, False as soon as the daemon is asked to stop.

        Raises ``RuntimeError`` in a coroutine, where it would block the event loop.
        """
        life = self.life
        life.coroutines.refuse_in_a_coroutine(
            "self.wait", "await asyncio.to_thread(self.wait, seconds)"
        )
        life.clock.wait(seconds, life.stop.wait)
        return not life.stop.asked

    def wait_for(self, source: Any, seconds: float) -> list[Any]:
        """Wait until a socket, a descriptor, or one of a list of them can be read. Returns a list
        of those that can. It is empty when the time has passed, or as soon as the daemon is woken
        or asked to stop."""
        from daemonkit.process.readable import wait_for  # not for a plain loop

        return wait_for(self.life, source, seconds)

    def wake(self) -> None:
        """Make a tick due now, and end a wait of the loop. From any thread. A tick that runs is
        followed by another one; the back-off after a failure is not shortened. Not for jobs."""
        if self._scheduler is not None:
            raise RuntimeError("wake() does not wake jobs: write a tick() with Poll()")
        if self._life is not None:
            self._life.bring_forward(patient=True)

    def finish(self, why: str) -> None:
        """End the daemon after this tick with exit code 0, all its workers included. ``why`` is in
        the last line of the log. Raises ``RuntimeError`` outside of a life."""
        if self._life is None or self._life.home is None:
            raise RuntimeError("finish() ends a daemon that runs: call it in a tick or a job")
        self._life.verdict.finish(why)
        self._life.nudge()

    def beat(self, message: str = "") -> None:
        """Report progress in a long tick: restarts ``tick_timeout`` and, while stopping,
        ``stop_timeout``. If the tick fails later, it counts as the first failure in a row. The
        message is shown in the status: "41 of 90 files". Any thread that the tick has started may
        call it."""
        job = self._life.stop.beat() if self._life is not None else ""
        announce(signals.daemon_beat, self, message=message, job=job)

    @property
    def epoch(self) -> int | None:
        """The number of the leader's term in which this tick began. It grows by one with each new
        leader. None for a daemon without a leader, and while another process leads."""
        leadership = self._life and self._life.leadership
        return leadership.epoch if leadership else None

    def guarded(self) -> AbstractContextManager[None]:
        """A transaction on ``DAEMONKIT["database"]`` that commits only if no other process has
        become the leader, or taken the claim of this exclusive job, since this tick began: ``with
        self.guarded(): ...``

        Otherwise it rolls back and raises ``StaleEpoch``. Without a leader or a claim, and in a
        bare ``iterate()``, it is a plain ``atomic(durable=True)``.
        """
        leadership = self._life and self._life.leadership
        if leadership:
            return leadership.guarded()
        from daemonkit.leading.work import guarded_work  # not for a plain loop

        return guarded_work(self.name)

    # One life

    def run(self) -> Iteration | None:
        """Tick whenever a tick is due, until asked to stop. Returns the last iteration, if any."""
        life = self.life
        if self.has_serve:
            return self._current_serving("run").live()
        if self._scheduler is not None:
            from daemonkit.jobs.scheduler import live  # not for a plain loop

            return live(life, self._scheduler)
        with (
            life.watched(),
            life.announced(),
            life.steered(),
            life.opened(),
            life.campaigning(),
            life.woken(),
        ):
            while life.wait_until_due():
                self.iterate(life.last)
        return life.last

    def iterate(self, last: Iteration | None = None) -> Iteration:
        """Run one tick after ``last``, and return its iteration. A child that it forks ends with
        it: a second loop would do the same work."""
        life = self.life
        number = last.number + 1 if last else 1
        started = life.now or life.clock.moment()
        due = life.due or started
        life.begin(number, due)
        process = os.getpid()
        result = kept = error = None
        with life.stop.timing(life.tick_timeout, "", (due, life.schedule, 1)) as timing:
            try:
                with fresh_connections:
                    result = life.tick()
                    if result is not None:
                        result, kept = life.judge(result, life.schedule)
            except BaseException as raised:
                if os.getpid() != process:
                    _end_forked_child(raised)
                if ends_process(raised):
                    raise
                result, error = None, raised
            if timing.at_end:  # few ticks have anything to do then
                error = timing.error_at_end(error)
        if os.getpid() != process:
            _end_forked_child(None)
        seconds = life.clock.moment().monotonic - started.monotonic
        iteration = Iteration(number, due, started, seconds, result)
        before = None if timing.has_beaten else last  # progress resets the count of failures
        iteration = life.finish(iteration, error, before, cut=timing.overdue_since is not None)
        life.last = iteration if result is kept else iteration._replace(result=kept)
        return iteration


def _end_forked_child(error: BaseException | None) -> NoReturn:
    from daemonkit.process import forked_child  # not in a daemon itself

    forked_child.end(error)
