"""The supervisor: several processes that live daemons' lives, forked and minded by one parent.

It imports the project before it forks, so that the workers share that memory. It has no database
connection and no thread, and never ticks.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from logging import ERROR, INFO
from typing import NoReturn

from django.conf import settings
from django.core.management.base import CommandError
from django.db import OperationalError, connections

from daemonkit import signals
from daemonkit.clock import NOTHING_DUE
from daemonkit.exits import Exit
from daemonkit.listeners.log import logger
from daemonkit.process import reexec
from daemonkit.process.signal_handlers import last_look, on_signals
from daemonkit.process.stopping import Stop, Tick
from daemonkit.process.watcher import STOP_SIGNALS, UNWINDING, Watcher, flush
from daemonkit.signals import announce
from daemonkit.workers.places import Place, Team, Worker
from daemonkit.workers.worker import work

TURN = 10.0
"""Seconds for which a worker that is to be replaced waits for the one before it to be ready."""

STATUS_EVERY = 1.0


def supervise(teams: Sequence[Team], logging: AbstractContextManager[None]) -> None:
    """Run these teams until told to stop, with ``logging`` open around it, also for the workers.

    Ends as a daemon's process does: see ``Exit``.
    """
    if threading.current_thread() is not threading.main_thread():
        raise CommandError(
            "workers are forked by the main thread of a process, and by no other",
            returncode=Exit.USAGE,
        )
    supervisor = Supervisor(teams)
    folder = reexec.working_folder()
    with on_signals():  # until the end, or until this process begins anew
        with logging:
            supervisor.run()
        supervisor.conclude(folder)


class Supervisor:
    """A parent that keeps every place filled. To listeners it announces its own moments, as a
    daemon does, and to systemd it is the one that speaks."""

    def __init__(self, teams: Sequence[Team]) -> None:
        self.teams = teams
        self.name = teams[0].name if len(teams) == 1 else "supervisor"
        self.places = [place for team in teams for place in team.places()]
        limits = [team.settings for team in teams]
        ticks = [each.tick_timeout for each in limits]
        self.pulse = min(each.pulse for each in limits)
        self.tick_timeout = None if None in ticks else max(t for t in ticks if t is not None)
        # A worker minds its own stop_timeout; we only mind that it does.
        self.stop_timeout = max(each.stop_timeout for each in limits) + UNWINDING + 1.0
        self.stop = Stop()
        self._end: CommandError | None = None
        self._cut = False
        self._kill_at = float("inf")
        self._turn: Worker | None = None
        self._turn_until = time.monotonic() + TURN
        self._is_ready = False
        self._next_pulse = self._next_status = 0.0
        self._status = ""

    @property
    def life(self) -> Supervisor:
        """For listeners: the limits that hold for this run, in seconds."""
        return self

    @property
    def workers(self) -> list[Worker]:
        return [place.worker for place in self.places if place.worker is not None]

    def run(self) -> None:
        """Keep the places filled until told to stop, and until the last worker has ended."""
        logger.info("supervisor of %s started", ", ".join(map(str, self.teams)))
        with on_signals(self) as watcher, watcher.by_hand():
            self.stop = watcher.stop
            announce(signals.daemon_started, self)
            if self.stop.reason is not None:  # asked while the project was imported
                self.on_asked(self.stop.reason)
            self._prepare()
            while self.workers or not self.stop.asked:
                self._fill_places(watcher)
                self._reap()  # filling may have taken the news of a death for that of a stop
                self._hear(watcher.look(self._patience(), self._reports()))
                self._reap()
                self._mind_the_silent()
                self._take_turns()
                self._speak()
            self.stop.over = True
            reason = self.stop.reason or ""
            logger.info("supervisor stopped: %s", reason)
            announce(signals.daemon_stopped, self, reason=reason)

    def conclude(self, folder: str | None) -> None:
        """Raise what the process should end with, if that is not 0; or let it begin anew."""
        if self._end is not None:
            raise self._end
        if self.stop.reloading:
            last_look()  # it may be told to end, after all
        if self.stop.reloading:
            reexec.execute_anew(self.name, folder)
        if self.stop.forced or self._cut:
            raise SystemExit(Exit.FORCED)

    def _prepare(self) -> None:
        """Load what every worker would load, and hold nothing that none may inherit."""
        # A worker's checks will say what is wrong with it.
        with contextlib.suppress(Exception, SystemExit):
            importlib.import_module(settings.ROOT_URLCONF)
        for wrapper in connections.all(initialized_only=True):
            wrapper.close()
            if close_pool := getattr(wrapper, "close_pool", None):
                close_pool()
        gc.collect()
        gc.freeze()  # the collector would write to the pages that are shared

    # Filling places

    def _fill_places(self, watcher: Watcher) -> None:
        for place in self.places:
            if place.worker is None and place.due <= time.monotonic():
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
                try:
                    watcher.look(0)  # a stop that has come must not find us forking
                    if self.stop.asked or signal.sigpending() & set(STOP_SIGNALS):
                        return
                    self._fill(place)
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _fill(self, place: Place) -> None:
        flush()  # the child would write it once more
        try:
            with contextlib.ExitStack() as opened:
                orders, reports = pipe(opened), pipe(opened)
                pid = os.fork()
                opened.pop_all()
        except OSError as error:
            place.deaths += 1
            pause = place.team.daemon.backoff.pause(place.deaths)
            place.due = time.monotonic() + pause
            logger.error("%s cannot be forked, next try in %.1f s: %s", place.label, pause, error)
            return
        if pid == 0:
            self._be(place, orders, reports)
        os.close(orders[0])
        os.close(reports[1])
        place.worker = Worker(place, pid, orders[1], reports[0])
        logger.info("%s started, pid %d", place.label, pid)

    def _be(self, place: Place, orders: tuple[int, int], reports: tuple[int, int]) -> NoReturn:
        """In the child: become the worker of this place."""
        os.close(orders[1])
        os.close(reports[0])
        for sibling in self.workers:  # what they hear must end when our parent does
            sibling.close()
        daemon = place.team.daemon
        daemon.worker_number = place.number
        work(daemon, place.label, place.team.live, orders=orders[0], reports=reports[1])

    # What workers say, and how they end

    def _reports(self) -> list[int]:
        return [worker.reports for worker in self.workers if not worker.is_mute]

    def _hear(self, ready: set[int]) -> None:
        for worker in self.workers:
            if worker.reports in ready:
                self._hear_out(worker)

    def _hear_out(self, worker: Worker) -> None:
        for word, text in worker.hear():
            if word == "awaits" and not self._is_ready:
                seconds, _, sentence = text.partition(" ")
                error = OperationalError(sentence)
                announce(signals.database_awaited, self, error=error, seconds=float(seconds))
            elif word == "beat" and self.stop.asked:
                self.stop.beat()
                announce(signals.daemon_beat, self, message=text, job="")

    def _reap(self) -> None:
        for worker in self.workers:
            if (code := worker.ended()) is not None:
                self._hear_out(worker)
                worker.close()
                worker.place.left(worker)
                self._ended(worker, code)
        if os.getpid() == 1:  # nobody else buries the orphans of this container
            with contextlib.suppress(ChildProcessError):
                self._bury_orphans()

    def _bury_orphans(self) -> None:
        """Reap who has ended and is not ours: a worker that ends just now is left for its turn."""
        ours = {worker.pid for worker in self.workers}
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while (found := os.waitid(os.P_ALL, 0, look)) and found.si_pid not in ours:
            os.waitpid(found.si_pid, 0)

    def _ended(self, worker: Worker, code: int) -> None:
        place, how = worker.place, _how(code)
        if self.stop.asked:
            cut = code in (Exit.FORCED, -signal.SIGKILL, -signal.SIGABRT)
            self._cut |= cut
            level = ERROR if cut else INFO
            logger.log(level, "%s (pid %d) %s", place.label, worker.pid, how)
            return
        if place.is_done and code == Exit.OK:
            self._give_up(place)
            return
        if place.is_hopeless(code):
            self._end = CommandError(f"{place.label} cannot start: it {how}", returncode=code)
            self.ask(f"{place.label} {how}")
            return
        pause = place.pause_after(worker, code)
        place.due = time.monotonic() + pause
        level = INFO if code == Exit.OK else ERROR
        because = f" ({worker.limit})" if worker.limit else ""
        after = f"in {pause:.1f} s" if pause else "at once"
        logger.log(
            level,
            "%s (pid %d) %s after %d ticks%s; the next one starts %s",
            *(place.label, worker.pid, how, worker.ticks, because, after),
        )

    def _give_up(self, place: Place) -> None:
        """Its daemon has nothing more to do, and would have nothing in a new process either."""
        logger.info("%s has ended: %s", place.label, NOTHING_DUE)
        self.places.remove(place)
        if not self.places:
            self.ask(NOTHING_DUE)

    def _mind_the_silent(self) -> None:
        now = time.monotonic()
        if now >= self._kill_at:
            self._kill_at = float("inf")
            for worker in self.workers:
                worker.signal(signal.SIGKILL)
        for worker in self.workers:
            if now < worker.next_deadline or self.stop.asked:
                continue
            if worker.aborted_at is None:
                logger.error(
                    "%s (pid %d) has given no sign of life for %.0f s: SIGABRT, for its stacks, "
                    "and then SIGKILL",
                    *(worker.place.label, worker.pid, now - worker.heard),
                )
                worker.abort()
            else:
                worker.signal(signal.SIGKILL)
                worker.aborted_at = now

    def _take_turns(self) -> None:
        """Replace a worker that has reached a limit: one at a time, old out before new in."""
        now = time.monotonic()
        if now < self._turn_until and not self._has_successor(self._turn):
            return
        self._turn = None
        for worker in self.workers:
            if worker.limit and not worker.is_leaving:
                self._turn, self._turn_until = worker, now + worker.settings.stop_timeout + TURN
                worker.leave(worker.limit)
                return

    def _has_successor(self, last: Worker | None) -> bool:
        """Whether the last one to be replaced has been; in the beginning, whether all are there."""
        if last is None:
            return self._is_ready
        successor = last.place.worker
        return successor is not None and successor is not last and successor.is_ready

    # What the supervisor says

    def _speak(self) -> None:
        now = time.monotonic()
        if not self._is_ready and all(each.worker and each.worker.is_ready for each in self.places):
            self._is_ready = True
            logger.info("supervisor is ready: %s", self._status_line())
            announce(signals.daemon_ready, self)
            self._next_status = now  # which is no longer that it gets ready
        if now >= self._next_pulse:
            self._next_pulse = now + self.pulse
            if all(worker.is_fresh for worker in self.workers):
                announce(signals.daemon_pulse, self)
        if now >= self._next_status and not self.stop.asked:
            self._next_status = now + STATUS_EVERY
            if (text := self._status_line()) != self._status:
                self._status = text
                announce(signals.daemon_status, self, text=text)

    def _status_line(self) -> str:
        """For all, in one line."""
        return "; ".join(
            team.status([place for place in self.places if place.team is team])
            for team in self.teams
        )

    def _patience(self) -> float:
        """Seconds to wait for a signal or a report: until something else is due."""
        due = [self._next_pulse, self._kill_at]
        if self.stop.asked and not self.workers:
            return 0.0
        if not self.stop.asked:
            due += [place.due for place in self.places if place.worker is None]
            due += [worker.next_deadline for worker in self.workers]
        if any(worker.limit and not worker.is_leaving for worker in self.workers):
            due.append(self._turn_until)
        return max(0.0, min(due) - time.monotonic())

    # What the watcher tells us, in our own thread

    def ask(self, reason: str) -> None:
        """End, as if a signal had asked for it."""
        self.stop.ask(reason)
        self.on_asked(reason)

    def on_asked(self, reason: str) -> None:
        if self.stop.reloading:
            logger.info("supervisor begins anew: %s", reason)
            announce(signals.daemon_reloading, self, reason=reason)
        else:
            logger.info("supervisor stops: %s", reason)
            announce(signals.daemon_stopping, self, reason=reason)
        for worker in self.workers:
            worker.leave(reason)

    def on_forced(self, reason: str) -> None:
        logger.critical("supervisor forced to end: %s", reason)
        announce(signals.daemon_forced, self, reason=reason)
        self._kill_at = time.monotonic() + UNWINDING + 1.0
        for worker in self.workers:
            worker.order("force", reason)

    def on_overdue(self, tick: Tick) -> None:
        """Never: a supervisor does not tick."""

    def cut(self, threads: set[int], *, for_good: bool) -> None:
        """Nothing: a supervisor has no connection."""


def pipe(opened: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe of which neither end blocks: what does not listen holds nobody up."""
    ends = os.pipe()
    for descriptor in ends:
        opened.callback(os.close, descriptor)
        os.set_blocking(descriptor, False)
    return ends


def _how(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
