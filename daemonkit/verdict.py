"""Decides what an iteration means for the process: whether it continues, and how it ends.

A ``Verdict`` answers questions about a moment. It never waits, sends a signal or reads a clock.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from daemonkit.clock import NOTHING_DUE, Moment
from daemonkit.errors import Problem, classify, one_line
from daemonkit.exits import Ending, Exit
from daemonkit.iteration import Iteration

REFUSAL_PROVEN_AFTER = 30.0
"""Seconds that a server must refuse the settings before they count as wrong. A database that is
still being set up refuses them as well."""

_WAIT_FOR = (Problem.UNREACHABLE, Problem.LOST, Problem.MISCONFIGURED, Problem.READ_ONLY)


class Limits(Protocol):
    """The settings that end a process. Times are in seconds, memory in bytes; None: no limit."""

    once: bool
    raise_errors: bool
    has_jobs: bool
    max_ticks: int | None
    max_seconds: float | None
    max_memory: int | None
    max_failures: int | None
    supervised: bool
    typed: frozenset[str]
    """The names of the limits that were typed as options of this run."""


class Stop(Protocol):
    """Whether a life was asked to stop, and whether its end was forced."""

    forced: str | None

    @property
    def asked(self) -> bool: ...


class Limit(NamedTuple):
    """A limit that a life has reached."""

    name: str
    text: str


class Verdict:
    """What one life has learned about its end."""

    def __init__(self, name: str, limits: Limits, begun: Moment, *, by_shell: bool) -> None:
        self.outcome = ""
        """Why the life ends by itself, as text; "" while it continues."""
        self.has_nothing_due = False
        """Whether the schedule has no further due time."""
        self.limit_reached: Limit | None = None
        self.is_finished = False
        self._name, self._limits, self._begun, self._by_shell = name, limits, begun, by_shell
        self._end: CommandError | None = None
        self._failed: tuple[BaseException, Problem | None] | None = None
        self._has_succeeded = False
        self.refusal_proven_at = math.inf
        """When a refusal by the server has lasted long enough to count, on the monotonic clock;
        infinity if there is none. The next try should not be later."""

    # What happened

    def note(self, iteration: Iteration, *, is_to_blame: bool = True) -> None:
        """Take an iteration into account. ``is_to_blame`` is False if daemonkit caused its failure
        by cutting its connections."""
        error = iteration.error
        if error is None:
            self._has_succeeded, self.refusal_proven_at = True, math.inf
            return
        if self._failed is None and (self._limits.once or self._limits.raise_errors):
            self._failed = error, iteration.problem
            if self._limits.raise_errors:
                self.outcome = f"failed with {one_line(error)}"
        self._note_refusal(error, iteration.problem, iteration.ended)
        allowed = self._limits.max_failures
        in_a_row = iteration.failures - iteration.outages
        if is_to_blame and allowed is not None and in_a_row >= allowed:
            self._end_with(
                Exit.MAX_FAILURES, f"failed {allowed} times in a row, the last time with", error
            )

    def note_opening(self, error: Exception, now: Moment) -> BaseException | None:
        """Note a failed try to open the daemon. Returns what to raise; None to try again."""
        if isinstance(error, ImproperlyConfigured):
            self.outcome = "misconfigured"
            sentence = " ".join(str(error).split())
            return CommandError(sentence, returncode=Exit.MISCONFIGURED)
        problem = classify(error)
        if problem not in _WAIT_FOR:
            return error
        if self._limits.once or self._limits.raise_errors:
            return self._failure(error, problem, is_logged=False)
        self._note_refusal(error, problem, now)
        return self._end

    def note_opened(self) -> None:
        """Note that the daemon has opened: the server has accepted its settings."""
        self.refusal_proven_at = math.inf

    def note_nothing_due(self) -> None:
        """Note that the schedule has no further due time."""
        self.outcome, self.has_nothing_due = NOTHING_DUE, True

    def finish(self, why: str) -> None:
        """End the life before its next tick, with exit code 0."""
        self.outcome, self.is_finished = why, True

    def give_up(self, code: Exit, what: str) -> None:
        """End the life before its next tick, with this exit code. From any thread."""
        self.outcome = what
        self._end = CommandError(f"{self._name} {what}", returncode=code)

    def _note_refusal(self, error: BaseException, problem: Problem | None, now: Moment) -> None:
        """Note whether the server refused the settings.

        They are wrong if the server has never accepted them and keeps refusing them. If a password
        changes while a daemon runs, the daemon waits.
        """
        if problem is not Problem.MISCONFIGURED or self._has_succeeded:
            self.refusal_proven_at = math.inf
        elif now.monotonic >= self.refusal_proven_at:
            self._end_with(
                Exit.MISCONFIGURED,
                f"was refused by the database for {REFUSAL_PROVEN_AFTER:g} s; correct DATABASES:",
                error,
            )
        else:
            proven_at = now.monotonic + REFUSAL_PROVEN_AFTER
            self.refusal_proven_at = min(self.refusal_proven_at, proven_at)

    def _end_with(self, code: Exit, what: str, error: BaseException) -> None:
        self.give_up(code, f"{what} {one_line(error)}")

    # What follows from it

    @property
    def is_over(self) -> bool:
        """Whether the life ends before its next tick."""
        if self._end is not None or self.is_finished:
            return True
        return self._limits.raise_errors and self._failed is not None

    def kind(self, stop: Stop, *, has_raised: bool) -> Ending:
        """How the life has ended."""
        if stop.forced:
            return Ending.FORCED
        if self.is_finished:
            return Ending.FINISHED
        if stop.asked:
            return Ending.TOLD
        if has_raised or self.is_over:
            return Ending.FAILED
        if self.limit_reached and self.limit_reached.name == "until_empty":
            return Ending.EMPTY
        return Ending.NOTHING_DUE if self.has_nothing_due else Ending.LIMIT

    def limit(self, ticks: int, now: Moment, memory: int) -> Limit | None:
        """The limit that is reached after ``ticks`` ticks, with ``memory`` bytes held."""
        limits = self._limits
        if limits.max_ticks and ticks >= limits.max_ticks:
            if limits.once:
                once = "each job has run once" if limits.has_jobs else "it has ticked once"
                return Limit("once", once)
            return Limit("max_ticks", f"max_ticks of {limits.max_ticks} reached")
        if limits.max_seconds and self.seconds_left(now) <= 0:
            return Limit("max_seconds", f"max_seconds of {limits.max_seconds:g} reached")
        if ticks and limits.max_memory and memory > limits.max_memory:
            from daemonkit.process.memory import size_text

            return Limit("max_memory", f"max_memory of {size_text(limits.max_memory)} reached")
        return None

    def seconds_left(self, now: Moment) -> float:
        """Seconds until ``max_seconds`` have passed; infinity without that limit."""
        if self._limits.max_seconds is None:
            return math.inf
        return self._begun.monotonic + self._limits.max_seconds - now.monotonic

    def ending(self) -> BaseException | None:
        """The error or exit code that ends the process, unless it is forced; None: exit code 0."""
        if self._failed is not None:
            return self._failure(*self._failed, is_logged=True)
        if self._end is None and self._should_be_restarted:
            return SystemExit(Exit.LIMIT)
        return self._end

    @property
    def _should_be_restarted(self) -> bool:
        """Whether the life ends at a limit of its class. A typed limit, other than
        ``--max-memory``, is for one run only. A supervisor replaces its workers by itself."""
        limits, reached = self._limits, self.limit_reached
        if reached is None or not self._by_shell or limits.supervised:
            return False
        return reached.name == "max_memory" or reached.name not in limits.typed

    def _failure(
        self, error: BaseException, problem: Problem | None, *, is_logged: bool
    ) -> BaseException:
        """How a failure ends a life: a calling program gets the error, a shell the exit code of
        ``--once``."""
        if not self._by_shell:
            return error
        code = Exit.MISCONFIGURED if problem is Problem.MISCONFIGURED else Exit.TICK_FAILED
        if is_logged:
            return SystemExit(code)
        return CommandError(f"{self._name}: {one_line(error)}", returncode=code)
