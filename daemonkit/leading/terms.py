"""The times of a lease or a claim."""

from __future__ import annotations

from dataclasses import dataclass

from daemonkit.leading.fencing import SHORTEST_LEASE

JITTER = 1.2
"""How much longer than the pause between two renewals the renew deadline must be, as in client-go.
"""


@dataclass(frozen=True)
class Terms:
    """The times of a lease, in seconds.

    ``duration``
        For how long after its last renewal nobody else may take it.
    ``renew_deadline``
        After how long without a renewal its holder stops. The difference between the two is for
        cutting what runs, and for clocks that do not run equally fast.
    ``retry``
        From one renewal to the next.
    """

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0

    @classmethod
    def of(
        cls, duration: float, renew_deadline: float | None = None, retry: float | None = None
    ) -> Terms:
        """With what is not said in client-go's proportions: 15 to 10 to 2."""
        deadline = duration * 10 / 15 if renew_deadline is None else renew_deadline
        return cls(duration, deadline, deadline / 5 if retry is None else retry)

    def complaint(self) -> str:
        """What is wrong with them, and the mend, in one sentence; "" if nothing is."""
        if self.duration < SHORTEST_LEASE:
            return f"a lease of {self.duration:g} s is too short: {SHORTEST_LEASE:g} s is the least"
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
    def patience(self) -> float:
        """Seconds for one statement: so that a second one is possible, on a new connection."""
        return self.renew_deadline / 3
