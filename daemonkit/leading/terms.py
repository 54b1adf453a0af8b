"""The time limits of a lease or a claim."""

from __future__ import annotations

from dataclasses import dataclass

from daemonkit.leading.fencing import SHORTEST_LEASE

JITTER = 1.2
"""The renew deadline must be longer than this multiple of ``retry``, as in client-go."""


@dataclass(frozen=True)
class Terms:
    """The time limits of a lease, in seconds.

    ``duration``
        The time after the last renewal during which no other process may acquire it.
    ``renew_deadline``
        The time without a renewal after which its holder stops. The difference between the two is
        needed to cut what runs, and for clocks that do not run equally fast.
    ``retry``
        The time from one renewal to the next.
    """

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0

    @classmethod
    def of(
        cls, duration: float, renew_deadline: float | None = None, retry: float | None = None
    ) -> Terms:
        """Fill in what is not given, in client-go's proportions of 15 to 10 to 2."""
        deadline = duration * 10 / 15 if renew_deadline is None else renew_deadline
        return cls(duration, deadline, deadline / 5 if retry is None else retry)

    def complaint(self) -> str:
        """Return one sentence that says what is wrong and how to fix it; "" if nothing is."""
        if self.duration < SHORTEST_LEASE:
            minimum = f"the minimum is {SHORTEST_LEASE:g} s"
            return f"a lease of {self.duration:g} s is too short: {minimum}"
        if self.duration <= self.renew_deadline:
            return (
                f"a lease of {self.duration:g} s is not longer than its renew_deadline of "
                f"{self.renew_deadline:g} s, so that two could lead at once: make it longer"
            )
        if self.renew_deadline <= JITTER * self.retry:
            return (
                f"a renew_deadline of {self.renew_deadline:g} s leaves no time for a second try "
                f"when the lease is renewed every {self.retry:g} s: it must be over "
                f"{JITTER * self.retry:g} s"
            )
        return ""

    @property
    def statement_timeout(self) -> float:
        """Seconds for one statement, short enough for a second try on a new connection."""
        return self.renew_deadline / 3
