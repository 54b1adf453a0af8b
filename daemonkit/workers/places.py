"""Teams, places and workers: whom a supervisor has work, and what it knows of each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from daemonkit.clock import NOTHING_DUE
from daemonkit.exits import Exit
from daemonkit.process.watcher import UNWINDING
from daemonkit.settings.settings import Settings

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon

GRACE = 5.0
"""Seconds that a sign of life may be late: a busy machine is no stuck worker."""

LAST_WORDS = 2.0
"""Seconds between SIGABRT, for the stacks, and SIGKILL."""

AT_ONCE = 10.0
"""A worker that lived for fewer seconds than this has died at once."""


@dataclass(frozen=True)
class Team:
    """The workers of one daemon: how many, and the life that each of them lives."""

    daemon: Daemon
    settings: Settings
    live: Callable[[], Any]

    @property
    def name(self) -> str:
        return self.daemon.name

    def places(self) -> Iterator[Place]:
        workers = self.settings.workers
        for number in range(1, workers + 1):
            yield Place(self, number, f"{self.name}.{number}" if workers > 1 else self.name)

    def status(self, places: Sequence[Place]) -> str:
        """How it fares: "import_prices 4 of 4 ready, 1207 ticks, 2 failed, 41 of 90 files"."""
        workers = [place.worker for place in places if place.worker is not None]
        ticks = sum(place.ticks for place in places) + sum(each.ticks for each in workers)
        failed = sum(place.failed for place in places) + sum(each.failed for each in workers)
        ready = sum(worker.is_ready for worker in workers)
        words = [f"{self.name} {ready} of {self.settings.workers} ready"]
        words += [f"{ticks} tick{'s' * (ticks != 1)}"] if ticks else []
        words += [f"{failed} failed"] if failed else []
        words += sorted({each for worker in workers for each in (worker.note, worker.progress)})
        return ", ".join(filter(None, words))

    def __str__(self) -> str:
        workers = self.settings.workers
        return f"{self.name} ({workers} workers)" if workers > 1 else self.name


@dataclass(eq=False)
class Place:
    """One worker's place: who fills it, and when it may be filled anew."""

    team: Team
    number: int
    label: str
    worker: Worker | None = None
    due: float = 0.0
    deaths: int = 0
    ticks: int = 0  # of those who filled it before
    failed: int = 0
    ever_ready: bool = False
    ever_well: bool = False
    is_done: bool = False

    def left(self, worker: Worker) -> None:
        """It fills this place no more."""
        self.worker = None
        self.ticks += worker.ticks
        self.failed += worker.failed

    def pause_after(self, worker: Worker, code: int) -> float:
        """Seconds to leave the place empty: none after a good while or a good end; more and more
        if one worker after the other dies at once."""
        if worker.is_leaving and code == Exit.OK:
            self.deaths = 0
            return 0.0
        if worker.age >= AT_ONCE:
            self.deaths = 0
        self.deaths += 1
        free = 1 if worker.is_ready else 0  # the first death of one that did work costs nothing
        pause = 0.0
        if self.deaths > free:
            pause = self.team.daemon.backoff.pause(self.deaths - free)
        # One that was told to stop, and not by us: we may be told next.
        return max(pause, 0.1) if code in (Exit.OK, -signal.SIGTERM) else pause

    def is_hopeless(self, code: int) -> bool:
        """Whether an exit code says that starting again will not help."""
        if code == Exit.MISCONFIGURED:
            return not self.ever_well
        return code == Exit.USAGE and not self.ever_ready


@dataclass(eq=False)
class Worker:
    """A process in a place, as its supervisor sees it. Times are monotonic."""

    place: Place
    pid: int
    orders: int
    reports: int
    begun: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    is_ready: bool = False
    is_idle: bool = False
    is_leaving: bool = False
    is_mute: bool = False
    limit: str = ""
    note: str = ""
    progress: str = ""
    ticks: int = 0
    failed: int = 0
    aborted_at: float | None = None
    _rest: bytes = b""

    @property
    def age(self) -> float:
        return time.monotonic() - self.begun

    @property
    def settings(self) -> Settings:
        return self.place.team.settings

    def order(self, verb: str, reason: str) -> None:
        """Give an order: "ask" or "force". One that is gone, or does not listen, does not mind."""
        with suppress(OSError):
            os.write(self.orders, f"{verb} {' '.join(reason.split())}\n".encode())

    def leave(self, reason: str) -> None:
        """Ask it to end. From here it has its stop_timeout."""
        self.is_leaving, self.heard = True, time.monotonic()
        self.order("ask", reason)

    def hear(self) -> Iterator[tuple[str, str]]:
        """What it has reported: words and their texts."""
        said = b""
        with suppress(BlockingIOError):
            said = os.read(self.reports, 65536)
            self.is_mute = not said
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            word, ticks, failed, text = line.decode(errors="replace").split(" ", 3)
            self.heard, self.ticks, self.failed = time.monotonic(), int(ticks), int(failed)
            self._learn(word, text)
            yield word, text

    def _learn(self, word: str, text: str) -> None:
        if word == "ready":
            self.is_ready = self.place.ever_ready = True
            self.progress = ""
        elif word == "well":
            self.place.ever_well = True
        elif word in ("idle", "busy"):
            self.is_idle, self.progress = word == "idle", ""
        elif word == "note":
            self.note = text
        elif word == "beat":
            self.progress = text
        elif word == "awaits":
            self.progress = "waits for the database"
        elif word == "limit":
            self.limit, self.is_idle = text, True
        elif word == "stopped":
            self.place.is_done = text == NOTHING_DUE

    @property
    def silent_at(self) -> float:
        """When its silence is too long. It is silent in a tick, and while it opens or closes."""
        settings = self.settings
        if self.is_leaving:
            allowed: float | None = settings.stop_timeout + UNWINDING
        else:
            allowed = 0.0 if self.is_idle else settings.tick_timeout
        if allowed is None:
            return float("inf")
        return self.heard + allowed + settings.pulse + GRACE

    @property
    def is_fresh(self) -> bool:
        return time.monotonic() < self.silent_at

    @property
    def next_deadline(self) -> float:
        if self.aborted_at is not None:
            return self.aborted_at + LAST_WORDS
        return self.silent_at

    def abort(self) -> None:
        """Have it write its stacks, and end; SIGCONT, in case that it was stopped."""
        self.aborted_at = time.monotonic()
        self.signal(signal.SIGABRT)
        self.signal(signal.SIGCONT)

    def signal(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signum)

    def ended(self) -> int | None:
        """Its exit code, negative for a signal, once it has ended."""
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # somebody else has reaped it
            return int(Exit.FORCED)
        return os.waitstatus_to_exitcode(status) if pid else None

    def close(self) -> None:
        os.close(self.orders)
        os.close(self.reports)
