"""The supervisor: a parent process that forks workers and watches them.

It imports the project before it forks, so that the workers share that memory. It has no database
connection and no thread, and never ticks.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from logging import ERROR, INFO
from typing import TYPE_CHECKING

from django.core.management.base import CommandError
from django.db import OperationalError

from daemonkit import signals
from daemonkit.clock import NOTHING_DUE
from daemonkit.exits import Ending, Exit
from daemonkit.listeners.log import logger
from daemonkit.listeners.starts import starts_text
from daemonkit.process import reexec
from daemonkit.process.forced_end import CHILDREN_TIME
from daemonkit.process.origin import Origin
from daemonkit.process.signal_handlers import handle_pending_signals, on_signals
from daemonkit.process.signal_pipe import STOP_SIGNALS
from daemonkit.process.stopping import Stop, Tick
from daemonkit.process.tick_limits import UNWIND_TIME
from daemonkit.process.trial import Trial
from daemonkit.process.watcher import Watcher
from daemonkit.signals import announce
from daemonkit.workers.announcing import Announcements
from daemonkit.workers.forking import fork_worker, prepare
from daemonkit.workers.places import Fate, Place, Team
from daemonkit.workers.turns import Turns
from daemonkit.workers.wire import News
from daemonkit.workers.worker import Worker

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


class Supervisor:
    """A parent that keeps a worker in every place.

    It sends the same signals as a daemon, and only the supervisor talks to systemd.
    """

    def __init__(self, teams: Sequence[Team]) -> None:
        self.teams = teams
        self.name = teams[0].name if len(teams) == 1 else "supervisor"
        self.places = [place for team in teams for place in team.places()]
        limits = [team.settings for team in teams]
        ticks = [each.tick_timeout for each in limits]
        self.pulse = min(each.pulse for each in limits)
        self.tick_timeout = None if None in ticks else max(t for t in ticks if t is not None)
        # A worker keeps its own stop_timeout. This longer one is for a worker that does not.
        self.stop_timeout = max(each.stop_timeout for each in limits) + UNWIND_TIME + 1.0
        self.stop = Stop()
        self._origin = Origin.of_this_process()
        self._turns = Turns(self.places, time.monotonic())
        self._announcements = Announcements(self, teams, self.places)
        self._broker = _broker_for(teams)
        self._end: CommandError | None = None
        self._was_cut = False
        self._finished = NOTHING_DUE
        self._kill_at = math.inf

    may_restart = True
    ending_since = math.inf
    is_over = False

    @property
    def life(self) -> Supervisor:
        """The limits of this run in seconds, for listeners."""
        return self

    @property
    def workers(self) -> list[Worker]:
        return [place.worker for place in self.places if place.worker is not None]

    def run(self) -> None:
        """Keep the places filled until a stop is requested and the last worker has ended."""
        again = starts_text(self.name)
        teams = ", ".join(map(str, self.teams))
        logger.info("supervisor of %s started%s", teams, f" ({again})" if again else "")
        with on_signals(self) as watcher, watcher.without_thread(), self._announced():
            self.stop = watcher.stop
            if self.stop.reason is not None:  # requested while the project was imported
                self.on_asked(self.stop.reason)
            prepare()
            while self.workers or not self.stop.asked:
                self._fill_places(watcher)
                self._reap()  # _fill_places() may have read the byte that SIGCHLD wrote
                self._wait(watcher)
                self._reap()
                self._end_silent_workers(time.monotonic())
                self._take_turns(time.monotonic())
                self._announce(time.monotonic())

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
        if self._end is not None:
            return Ending.FAILED
        return Ending.TOLD if self.places else Ending.NOTHING_DUE

    def conclude(self) -> None:
        """Raise the error or exit code with which the process must end; or re-execute it."""
        if self._end is not None:
            raise self._end
        if self.stop.reloading:
            handle_pending_signals()  # a stop signal may have arrived in the meantime
        if self.stop.reloading:
            reexec.reexecute(self.name, self._origin)
        if self.stop.forced or self._was_cut:
            raise SystemExit(Exit.FORCED)

    def _wait(self, watcher: Watcher) -> None:
        """Wait for a signal or a report, or until something is due."""
        descriptors = [worker.reports for worker in self.workers if not worker.has_closed_reports]
        if self._broker is not None:
            descriptors.append(self._broker.descriptor)
        ready = watcher.look(self._seconds_to_wait(time.monotonic()), descriptors)
        if self._broker is not None and self._broker.descriptor in ready:
            self._broker.answer()
        for worker in self.workers:
            if worker.reports in ready:
                self._hear(worker)

    def _seconds_to_wait(self, now: float) -> float:
        if self.stop.asked and not self.workers:
            return 0.0
        due = [self._announcements.next_pulse, self._kill_at, self._turns.deadline]
        if not self.stop.asked:
            due += [place.due for place in self.places if place.worker is None]
            due += [worker.next_deadline for worker in self.workers]
        return max(0.0, min(due) - now)

    # Filling places

    def _fill_places(self, watcher: Watcher) -> None:
        for place in self.places:
            if place.worker is None and place.due <= time.monotonic():
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
                try:
                    watcher.look(0)  # no fork after a stop signal
                    if self.stop.asked or signal.sigpending() & set(STOP_SIGNALS):
                        return
                    self._fill(place)
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _fill(self, place: Place) -> None:
        try:
            place.worker = worker = fork_worker(place, self.workers)
        except OSError as error:
            place.deaths += 1
            pause = place.team.daemon.backoff.pause(place.deaths)
            place.due = time.monotonic() + pause
            logger.error("%s cannot be forked, next try in %.1f s: %s", place.label, pause, error)
        else:
            logger.info("%s started, pid %d", place.label, worker.pid)

    # Reports and ends of workers

    def _hear(self, worker: Worker) -> None:
        for report in worker.hear():
            if report.news is News.WAITS and not self._announcements.is_ready:
                error = OperationalError(report.text)
                announce(signals.database_awaited, self, error=error, seconds=report.seconds)
            elif report.news is News.AWAITS_MIGRATIONS and not self._announcements.is_ready:
                announce(signals.migrations_awaited, self, migrations=report.text)
            elif report.news is News.FINISHED:
                self._finish(worker)
            elif report.news is News.BEAT and self.stop.asked:
                self.stop.beat()
                announce(signals.daemon_beat, self, message=report.text, job="")

    def _reap(self) -> None:
        for place in list(self.places):
            worker = place.worker
            if worker is not None and (code := worker.exit_code()) is not None:
                self._hear(worker)
                worker.close()
                if worker.children is not None:
                    worker.children.end(CHILDREN_TIME)
                place.clear(worker)
                if self.stop.asked:
                    self._note_stopped(worker, code)
                else:
                    self._note_ended(place, worker, code)

    def _note_stopped(self, worker: Worker, code: int) -> None:
        was_cut = code in (Exit.FORCED, -signal.SIGKILL, -signal.SIGABRT)
        self._was_cut |= was_cut
        level = ERROR if was_cut else INFO
        logger.log(level, "%s (pid %d) %s", worker.label, worker.pid, _how_it_ended(code))

    def _note_ended(self, place: Place, worker: Worker, code: int) -> None:
        match place.fate(worker, code):
            case Fate.GIVEN_UP:
                self._give_up(place, worker.dismissal or worker.finished)
            case Fate.FATAL:
                sentence = f"{place.label} cannot start: it {_how_it_ended(code)}"
                self._end = CommandError(sentence, returncode=code)
                self.ask(f"{place.label} {_how_it_ended(code)}")
            case Fate.FILLED_AGAIN:
                self._fill_later(place, worker, code)

    def _give_up(self, place: Place, why: str) -> None:
        logger.info("%s has ended: %s", place.label, why or "its daemon has finished")
        self.places.remove(place)
        if not self.places:
            self.ask(why or self._finished)

    def _finish(self, worker: Worker) -> None:
        """End all workers of this one's daemon."""
        self._finished = worker.finished
        team = next(place.team for place in self.places if place.worker is worker)
        for place in [place for place in self.places if place.team is team]:
            place.is_over = True
            if place.worker is None:
                self._give_up(place, worker.finished)
            elif place.worker is not worker:
                place.worker.leave(worker.finished)

    def _fill_later(self, place: Place, worker: Worker, code: int) -> None:
        pause = place.pause_after(worker, code)
        place.due = time.monotonic() + pause
        because = f" ({worker.limit})" if worker.limit else ""
        after = f"in {pause:.1f} s" if pause else "at once"
        logger.log(
            INFO if code == Exit.OK else ERROR,
            "%s (pid %d) %s after %d ticks%s; the next one starts %s",
            *(place.label, worker.pid, _how_it_ended(code), worker.ticks, because, after),
        )

    def _end_silent_workers(self, now: float) -> None:
        if now >= self._kill_at:
            self._kill_at = math.inf
            for worker in self.workers:
                worker.kill()
        for worker in self.workers:
            if now >= worker.next_deadline and not self.stop.asked and worker.end_silence():
                logger.error(
                    "%s (pid %d) has given no sign of life for %.0f s: SIGABRT, for its stacks, "
                    "and then SIGKILL",
                    *(worker.label, worker.pid, now - worker.heard_at),
                )

    def _take_turns(self, now: float) -> None:
        if (worker := self._turns.next(now)) is not None:
            worker.leave(worker.limit)

    def _announce(self, now: float) -> None:
        self._announcements.announce_ready(now)
        self._announcements.announce_pulse(now)
        if not self.stop.asked:
            self._announcements.announce_status(now)

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
        for worker in self.workers:
            worker.leave(reason)

    def on_forced(self, reason: str) -> None:
        logger.critical("supervisor forced to end: %s", reason)
        announce(signals.daemon_forced, self, reason=reason)
        self._kill_at = time.monotonic() + UNWIND_TIME + 1.0
        for worker in self.workers:
            worker.force(reason)

    def on_prolonged(self, tick: Tick) -> None:
        """Never called: a supervisor does not tick."""

    def try_new_code(self) -> Trial:
        announce(signals.reload_requested, self)
        return Trial(self._origin, self.stop_timeout)

    def on_reload_failed(self, reason: str) -> None:
        logger.error("supervisor goes on with the old code: %s", reason)
        announce(signals.reload_failed, self, reason=reason)

    def on_left(self, reason: str) -> None:
        logger.critical("supervisor forced to end: %s", reason)

    def on_handlers_replaced(self, handlers: object) -> None:
        """Never called: a supervisor runs no code of the project."""

    def on_overdue(self, tick: Tick) -> None:
        """Never called: a supervisor does not tick."""

    def cancel(self, tick: Tick) -> bool:
        """Never called: a supervisor does not tick."""
        return False

    def cut(self, threads: set[int], *, for_good: bool) -> None:
        """Do nothing: a supervisor has no connection."""


def _broker_for(teams: Sequence[Team]) -> Broker | None:
    """What hands listening sockets to the workers of servers; None if there are none."""
    if not any(team.daemon.has_serve for team in teams):
        return None
    from daemonkit.servers.broker import Broker

    return Broker()


def _how_it_ended(code: int) -> str:
    """Describe the end of a process in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
