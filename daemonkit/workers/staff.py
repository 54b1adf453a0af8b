"""The staff of a supervisor: a worker in every place, and what is done when one ends."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from logging import ERROR, INFO

from django.core.management.base import CommandError

from daemonkit.clock import NOTHING_DUE
from daemonkit.exits import Exit
from daemonkit.listeners.log import logger
from daemonkit.process.forced_end import CHILDREN_TIME
from daemonkit.process.signal_pipe import STOP_SIGNALS
from daemonkit.process.stopping import Stop
from daemonkit.process.tick_limits import UNWIND_TIME
from daemonkit.process.watcher import Watcher
from daemonkit.workers.forking import fork_worker
from daemonkit.workers.places import Fate, Place
from daemonkit.workers.turns import Turns
from daemonkit.workers.wire import News, Report
from daemonkit.workers.worker import Worker


class Staff:
    """The places, and the workers in them.

    ``report`` is called with what a worker reports. ``ask`` is called with the reason when all of
    them must stop.
    """

    def __init__(
        self,
        places: list[Place],
        *,
        report: Callable[[Report], None],
        ask: Callable[[str], None],
    ) -> None:
        self.places = places
        self.end: CommandError | None = None
        """The error that the supervisor must end with, if a worker could not even start."""
        self.was_cut = False
        """Whether a worker that was asked to stop had to be ended by force."""
        self._turns = Turns(places, time.monotonic())
        self._report, self._ask = report, ask
        self._finished = NOTHING_DUE
        self._kill_at = math.inf

    @property
    def workers(self) -> list[Worker]:
        return [place.worker for place in self.places if place.worker is not None]

    def deadlines(self, *, is_stopping: bool) -> Iterator[float]:
        """When something is due, on the monotonic clock."""
        yield from (self._kill_at, self._turns.deadline)
        if not is_stopping:
            yield from (place.due for place in self.places if place.worker is None)
            yield from (worker.next_deadline for worker in self.workers)

    # What the supervisor does with it

    def fill_places(self, watcher: Watcher) -> None:
        """Start a worker in each place that is free and due. None after a stop signal."""
        for place in self.places:
            if place.worker is None and place.due <= time.monotonic():
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
                try:
                    watcher.look(0)
                    if watcher.stop.asked or signal.sigpending() & set(STOP_SIGNALS):
                        return
                    self._fill(place)
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def hear(self, worker: Worker) -> None:
        """Read what a worker reports."""
        for report in worker.hear():
            if report.news is News.FINISHED:
                self._finish(worker)
            else:
                self._report(report)

    def reap(self, stop: Stop) -> None:
        """Note which workers have ended, and when each place is filled again."""
        for place in list(self.places):
            worker = place.worker
            if worker is not None and (code := worker.exit_code()) is not None:
                self.hear(worker)
                worker.close()
                if worker.children is not None:
                    worker.children.end(CHILDREN_TIME)
                place.clear(worker)
                if stop.asked:
                    self._note_stopped(worker, code)
                else:
                    self._note_ended(place, worker, code)

    def end_silent_workers(self, now: float) -> None:
        for worker in self.workers:
            if now >= worker.next_deadline and worker.end_silence():
                logger.error(
                    "%s (pid %d) has given no sign of life for %.0f s: SIGABRT, for its stacks, "
                    "and then SIGKILL",
                    *(worker.label, worker.pid, now - worker.heard_at),
                )

    def replace_next(self, now: float) -> None:
        """Stop the next worker that has reached a limit, if it is its turn."""
        if (worker := self._turns.next(now)) is not None:
            worker.leave(worker.limit)

    def leave(self, reason: str) -> None:
        """Ask all workers to stop."""
        for worker in self.workers:
            worker.leave(reason)

    def force(self, reason: str) -> None:
        """Force all workers to end. Those that do not are killed a little later."""
        self._kill_at = time.monotonic() + UNWIND_TIME + 1.0
        for worker in self.workers:
            worker.force(reason)

    def kill_overdue(self, now: float) -> None:
        """Kill the workers that a forced end has not ended in time."""
        if now >= self._kill_at:
            self._kill_at = math.inf
            for worker in self.workers:
                worker.kill()

    # Starts and ends of workers

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

    def _note_stopped(self, worker: Worker, code: int) -> None:
        was_cut = code in (Exit.FORCED, -signal.SIGKILL, -signal.SIGABRT)
        self.was_cut |= was_cut
        level = ERROR if was_cut else INFO
        logger.log(level, "%s (pid %d) %s", worker.label, worker.pid, _how_it_ended(code))

    def _note_ended(self, place: Place, worker: Worker, code: int) -> None:
        match place.fate(worker, code):
            case Fate.GIVEN_UP:
                self._give_up(place, worker.dismissal or worker.finished)
            case Fate.FATAL:
                sentence = f"{place.label} cannot start: it {_how_it_ended(code)}"
                self.end = CommandError(sentence, returncode=code)
                self._ask(f"{place.label} {_how_it_ended(code)}")
            case Fate.FILLED_AGAIN:
                self._fill_later(place, worker, code)

    def _give_up(self, place: Place, why: str) -> None:
        logger.info("%s has ended: %s", place.label, why or "its daemon has finished")
        self.places.remove(place)
        if not self.places:
            self._ask(why or self._finished)

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


def _how_it_ended(code: int) -> str:
    """Describe the end of a process in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
