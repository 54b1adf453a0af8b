"""Signals at random moments of a daemon's start, ticks, waits, reloads and end.

A step starts a few daemons at once. Each gets some SIGHUPs and then one SIGTERM or SIGINT.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from signal import SIGHUP, SIGINT, SIGTERM, Signals

from lab.processes import Daemon
from lab.waiting import eventually
from soaks.soak import Report, Size, Soak

AT_ONCE = 3
DEADLINE = 60.0
"""Seconds in which a daemon must open, reload and end. A machine may be busy."""
SHORTEST, LONGEST = 1e-4, 2.0
"""Seconds between two steps of a plan, drawn from each order of magnitude alike. A start takes
about half a second, a tick a hundredth."""
DAEMONS = {"loop": ["loop"], "jobs": ["jobs"], "workers": ["poll", "--workers", "2"]}


class SignalsAtRandom(Soak):
    """None is lost, and none counts twice."""

    name = "signals"
    variants = tuple(DAEMONS)
    steps = 40

    def run(self, variant: str, random: Random, size: Size) -> Report:
        report = Report()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for number in size.numbers():
                seeds = [random.random() for _ in range(AT_ONCE)]
                for life in pool.map(lambda seed: Life(variant, Random(seed)), seeds):
                    report.seen.update(life.seen)
                    report.wrong += [f"step {number}: {wrong}" for wrong in life.wrong]
        return report


class Life:
    """One daemon and its signals."""

    def __init__(self, variant: str, random: Random) -> None:
        self._random = random
        self._processes = 2 if variant == "workers" else 1
        self._lives = 3 if variant == "workers" else 1  # the supervisor says it, too
        self._is_sure = False
        """Whether the signal handlers of this image stand."""
        self.seen: list[str] = []
        self.wrong: list[str] = []
        self._plan: list[str] = []
        command = [sys.executable, "-m", "django", "run_daemon", *DAEMONS[variant]]
        self._daemon = Daemon(command, env={"DJANGO_SETTINGS_MODULE": "soaks.lives.settings"})
        try:
            self._live()
        except AssertionError as error:
            self._note(str(error))
        finally:
            if orphans := self._daemon.end():
                self._note(f"left {orphans}")

    def _live(self) -> None:
        if self._random.random() < 0.7:
            self._wait_until_opened(1)
        self._pause()
        for _ in range(self._random.choice((0, 0, 1, 2))):
            self._reload()
        self._end(self._random.choice((SIGTERM, SIGINT)))

    def _reload(self) -> None:
        before = self._opened()
        was_sure, self._is_sure = self._is_sure, False
        self._send(SIGHUP)
        if was_sure and self._random.random() < 0.5:
            self._wait_until_opened(before // self._processes + 1)
        self._pause()

    def _end(self, final: Signals) -> None:
        is_sure = self._is_sure
        self._send(final)
        code = self._daemon.wait(DEADLINE)
        self.seen.append(f"ended by {final.name} with {code}")
        # Before an image has its handlers, a signal does what it does to any Python: a SIGINT while
        # the interpreter itself is made ends it with 1.
        killed = () if is_sure else (-final, -SIGHUP, *([1] if final is SIGINT else []))
        if code not in (0, *killed):
            self._note(f"ended with {code}")
        if is_sure and self._daemon.output.count(f"stopped: {final.name}") != self._lives:
            self._note(f"does not say once that {final.name} stopped it")

    # The steps of a plan

    def _opened(self) -> int:
        return sum("opened" in line for line in list(self._daemon.lines))

    def _wait_until_opened(self, images: int) -> None:
        wanted: Callable[[], bool] = lambda: self._opened() >= images * self._processes  # noqa: E731
        eventually(wanted, within=DEADLINE, what=f"image {images} opens")
        self._is_sure = True
        self._plan.append("opened")

    def _pause(self) -> None:
        seconds = SHORTEST * (LONGEST / SHORTEST) ** self._random.random()
        self._plan.append(f"{seconds:.4f} s")
        time.sleep(seconds)

    def _send(self, signum: Signals) -> None:
        self._plan.append(signum.name)
        self.seen.append(signum.name)
        if self._daemon.is_running:
            self._daemon.signal(signum)

    def _note(self, wrong: str) -> None:
        output = "\n    ".join(self._daemon.lines[-12:])
        self.wrong.append(f"{', '.join(self._plan)}: {wrong}\n    {output}")
