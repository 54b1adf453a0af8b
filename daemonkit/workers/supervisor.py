"""The supervisor: a parent process that forks workers and watches them.

It imports the project before it forks, so that the workers share that memory. It has no database
connection and no thread, and never ticks.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from django.core.management.base import CommandError
from django.db import OperationalError

from daemonkit import signals
from daemonkit.exits import Ending, Exit
from daemonkit.listeners.log import logger
from daemonkit.listeners.starts import starts_text
from daemonkit.process import reexec
from daemonkit.process.origin import Origin
from daemonkit.process.signal_handlers import handle_pending_signals, on_signals
from daemonkit.process.stopping import Stop
from daemonkit.process.tick_limits import UNWIND_TIME
from daemonkit.process.trial import Trial
from daemonkit.process.watched import Unattended
from daemonkit.process.watcher import Watcher
from daemonkit.signals import announce
from daemonkit.workers.announcing import Announcements
from daemonkit.workers.forking import prepare
from daemonkit.workers.places import Team
from daemonkit.workers.staff import Staff
from daemonkit.workers.wire import News, Report

if TYPE_CHECKING:
    from daemonkit.servers.broker import Broker


def supervise(teams: Sequence[Team], logging: AbstractContextManager[None]) -> None:
    """Run these teams until a stop is requested.

    ``logging`` is entered before the workers are forked, so that they log in the same way. The
    exit codes are those of a daemon: see ``Exit``.
    """
    if threading.current_thread() is not threading.main_thread():
        raise CommandError(
            "workers can be forked only by the main thread of a process",
            returncode=Exit.USAGE,
        )
    supervisor = Supervisor(teams)
    with on_signals():  # until this process ends or re-executes itself
        with logging:
            supervisor.run()
        supervisor.conclude()


class Supervisor(Unattended):
    """A parent that keeps a worker in every place.

    It sends the same signals as a daemon, and only the supervisor talks to systemd.
    """

    def __init__(self, teams: Sequence[Team]) -> None:
        self.teams = teams
        self.name = teams[0].name if len(teams) == 1 else "supervisor"
        limits = [team.settings for team in teams]
        ticks = [each.tick_timeout for each in limits]
        self.pulse = min(each.pulse for each in limits)
        self.tick_timeout = None if None in ticks else max(t for t in ticks if t is not None)
        # A worker keeps its own stop_timeout. This longer one is for a worker that does not.
        self.stop_timeout = max(each.stop_timeout for each in limits) + UNWIND_TIME + 1.0
        self.stop = Stop()
        self._origin = Origin.of_this_process()
        places = [place for team in teams for place in team.places()]
        self.staff = Staff(places, report=self._heard, ask=self.ask)
        self._announcements = Announcements(self, teams, places)
        self._broker = _broker_for(teams)

    @property
    def life(self) -> Supervisor:
        """The limits of this run in seconds, for listeners."""
        return self

    def run(self) -> None:
        """Keep the places filled until a stop is requested and the last worker has ended."""
        again = starts_text(self.name)
        teams = ", ".join(map(str, self.teams))
        logger.info("supervisor of %s started%s", teams, f" ({again})" if again else "")
        with on_signals(self) as watcher, watcher.without_thread(), self._announced():
            self.stop = stop = watcher.stop
            if stop.reason is not None:  # requested while the project was imported
                self.on_asked(stop.reason)
            prepare()
            while self.staff.workers or not stop.asked:
                self.staff.fill_places(watcher)
                self.staff.reap(stop)  # the byte of its SIGCHLD may be read
                self._wait(watcher)
                self.staff.reap(stop)
                self._do_what_is_due(time.monotonic())

    def _do_what_is_due(self, now: float) -> None:
        self.staff.kill_overdue(now)
        if not self.stop.asked:
            self.staff.end_silent_workers(now)
        self.staff.replace_next(now)
        self._announcements.announce_ready(now)
        self._announcements.announce_pulse(now)
        if not self.stop.asked:
            self._announcements.announce_status(now)

    @contextmanager
    def _announced(self) -> Iterator[None]:
        announce(signals.daemon_started, self)
        yield
        self.is_over = True
        reason = self.stop.reason or ""
        logger.info("supervisor stopped: %s", reason)
        announce(signals.daemon_stopped, self, reason=reason, ending=self._ending)

    @property
    def _ending(self) -> Ending:
        if self.stop.forced:
            return Ending.FORCED
        if self.staff.end is not None:
            return Ending.FAILED
        return Ending.TOLD if self.staff.places else Ending.NOTHING_DUE

    def conclude(self) -> None:
        """Raise the error or exit code with which the process must end; or re-execute it."""
        if self.staff.end is not None:
            raise self.staff.end
        if self.stop.reloading:
            handle_pending_signals()  # a stop signal may have arrived in the meantime
        if self.stop.reloading:
            reexec.reexecute(self.name, self._origin)
        if self.stop.forced or self.staff.was_cut:
            raise SystemExit(Exit.FORCED)

    def _wait(self, watcher: Watcher) -> None:
        """Wait for a signal or a report, or until something is due."""
        workers = self.staff.workers
        descriptors = [worker.reports for worker in workers if not worker.has_closed_reports]
        if self._broker is not None:
            descriptors.append(self._broker.descriptor)
        ready = watcher.look(self._seconds_to_wait(time.monotonic()), descriptors)
        if self._broker is not None and self._broker.descriptor in ready:
            self._give_socket(self._broker)
        for worker in workers:
            if worker.reports in ready:
                self.staff.hear(worker)

    def _give_socket(self, broker: Broker) -> None:
        """Give a worker its listening socket; end if there can be none."""
        error = broker.answer()
        if error is not None and not self.stop.asked:
            self.staff.end = error
            self.ask(str(error))

    def _seconds_to_wait(self, now: float) -> float:
        if self.stop.asked and not self.staff.workers:
            return 0.0
        due = self.staff.deadlines(is_stopping=self.stop.asked)
        return max(0.0, min(self._announcements.next_pulse, *due) - now)

    def _heard(self, report: Report) -> None:
        """Announce what a worker reports."""
        if report.news is News.WAITS and not self._announcements.is_ready:
            error = OperationalError(report.text)
            announce(signals.database_awaited, self, error=error, seconds=report.seconds)
        elif report.news is News.AWAITS_MIGRATIONS and not self._announcements.is_ready:
            announce(signals.migrations_awaited, self, migrations=report.text)
        elif report.news is News.BEAT and self.stop.asked:
            self.stop.beat()
            announce(signals.daemon_beat, self, message=report.text, job="")

    # Called by the watcher, in the supervisor's thread

    def ask(self, reason: str) -> None:
        """Stop, as after a signal."""
        self.stop.ask(reason)
        self.on_asked(reason)

    def on_asked(self, reason: str) -> None:
        if self.stop.reloading:
            logger.info("supervisor reloads: %s", reason)
            announce(signals.daemon_reloading, self, reason=reason)
        else:
            logger.info("supervisor stops: %s", reason)
            announce(signals.daemon_stopping, self, reason=reason)
        self.staff.leave(reason)

    def on_forced(self, reason: str) -> None:
        logger.critical("supervisor forced to end: %s", reason)
        announce(signals.daemon_forced, self, reason=reason)
        self.staff.force(reason)

    def try_new_code(self) -> Trial:
        announce(signals.reload_requested, self)
        return Trial(self._origin, self.stop_timeout)

    def on_reload_failed(self, reason: str) -> None:
        logger.error("supervisor goes on with the old code: %s", reason)
        announce(signals.reload_failed, self, reason=reason)

    def on_left(self, reason: str) -> None:
        logger.critical("supervisor forced to end: %s", reason)


def _broker_for(teams: Sequence[Team]) -> Broker | None:
    """What hands listening sockets to the workers of servers; None if there are none."""
    if not any(team.daemon.has_serve for team in teams):
        return None
    from daemonkit.servers.broker import Broker

    return Broker()
