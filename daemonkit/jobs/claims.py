"""The claims of exclusive jobs: a process holds one while it runs a job, and renews it.

The rules are those of ``leading/claim.py``. A process that finds the claim of another one watches
it, and takes it when it has not changed for the time that it states.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections

from daemonkit import conf
from daemonkit.clock import Clock
from daemonkit.connections.private_session import Answer, PrivateSession
from daemonkit.connections.tables import how_to_migrate, is_table_missing
from daemonkit.errors import classify, one_line
from daemonkit.jobs.ledger import PASSING, REQUEST_SECONDS
from daemonkit.leading.claim import Claim, ClaimLost
from daemonkit.leading.fencing import guarded_by
from daemonkit.leading.rows import ClaimRow
from daemonkit.leading.terms import Terms
from daemonkit.leading.work import EntitledWork, claim_of_this_work
from daemonkit.process.identity import parse_identity, this_process
from daemonkit.process.stopping import Stop

logger = logging.getLogger("daemonkit")

LOOK_INTERVAL = 0.5
"""The longest time between two looks at somebody else's claim, in seconds."""


class JobClaims:
    """The claims of one process, and the thread that renews those it holds."""

    def __init__(
        self,
        daemon: str,
        session: PrivateSession,
        terms: Terms,
        clock: Clock,
        stop: Callable[[], Stop],
    ) -> None:
        self.daemon, self.terms, self.clock, self._stop = daemon, terms, clock, stop
        self._session = session
        self._claims: list[JobClaim] = []
        self._changed = threading.Event()
        self._is_over = False
        self._thread: threading.Thread | None = None
        self._is_stepped = False

    def of(self, job: str) -> JobClaim:
        """The claim of this job."""
        for claim in self._claims:
            if claim.job == job:
                return claim
        self._claims.append(JobClaim(self, job))
        return self._claims[-1]

    def require_table(self) -> None:
        """Raise ``ImproperlyConfigured`` if the table of claims is missing."""
        from daemonkit.models import Claim

        alias, table = conf.database(), Claim._meta.db_table
        if self._session.run(lambda: is_table_missing(alias, table), REQUEST_SECONDS):
            raise ImproperlyConfigured(
                f"{self.daemon} has jobs with exclusive=True, which need the table {table} in the "
                f"database {alias!r}: {how_to_migrate(alias)}"
            )

    def execute(self, sql: str, params: Sequence[object], within: float) -> Answer:
        return self._session.execute(sql, params, within, urgent=True)

    def look_again(self) -> None:
        """Note that a claim was taken, or is to be given back."""
        if self._thread is None and not self._is_stepped:
            self._is_stepped = self.clock.call_regularly(self.step)
            if not self._is_stepped:
                self._thread = threading.Thread(
                    target=self._renew, name="daemonkit-claims", daemon=True
                )
                self._thread.start()
        self._changed.set()

    def close(self) -> None:
        """Give back what is held, unless work goes on under it. It expires then."""
        self._is_over = True
        self._changed.set()
        self.clock.stop_calling(self.step)
        if self._thread is not None:
            self._thread.join(1.0)
        for claim in self._claims:
            if not claim.is_under_way and not self._stop().forced:
                claim.give_back()

    def _renew(self) -> None:
        while not self._is_over:
            self._changed.clear()
            pause = self.step()
            self._changed.wait(pause if any(each.is_held for each in self._claims) else None)

    def step(self) -> float:
        """Renew all that is held, and lose what was not renewed in time. Returns the seconds until
        the next step. A server that does not answer is asked once a step, or claims would be lost
        too late."""
        held, overdue = [each for each in self._claims if each.is_held], self._overdue()
        for claim in held:
            if claim.is_released:
                claim.give_back()
        for claim in random.sample(held, len(held)):
            if claim.job not in overdue and not claim.renew():
                break
        for claim in held:
            claim.lose_if_over(is_overdue=claim.job in overdue)
        return max(0.0, min([self.terms.retry, *(each.left for each in held if each.is_held)]))

    def _overdue(self) -> set[str]:
        """The jobs past their tick_timeout: their claims must end."""
        now = time.monotonic()
        return {tick.name for tick in list(self._stop().ticks.values()) if tick.is_overdue(now)}


class JobClaim:
    """The claim of one exclusive job. Its methods may be called from any thread."""

    def __init__(self, claims: JobClaims, job: str) -> None:
        from daemonkit.models import Claim as Table  # models cannot be loaded before the apps are

        self.job, self.name = job, claim_name(claims.daemon, job)
        self._claims, self._lock = claims, threading.RLock()
        row = ClaimRow(Table._meta.db_table, self.name, self._execute, _vendor())
        self._claim = Claim(row, claims.terms, str(this_process()), claims.clock.since_boot)
        self._work = EntitledWork(self.name, self._epoch, "does not hold its claim")
        self.is_released = False
        """Whether it is held for nothing, and is to be given back."""
        self.patience = claims.terms.duration + 1.0
        """Seconds after which a claim that is still held elsewhere is one that is renewed."""
        self._error = ""
        self._within = 0.0

    @property
    def is_held(self) -> bool:
        return self._claim.term is not None

    @property
    def left(self) -> float:
        """Seconds for which it may still be relied on; 0 or less if it is not held."""
        return self._claim.left

    @property
    def is_under_way(self) -> bool:
        """Whether work goes on under it."""
        return self._work.is_under_way

    @property
    def was_lost(self) -> bool:
        """Whether it was lost during this thread's current or last work."""
        return self._work.was_revoked

    @property
    def other_holder(self) -> str:
        """The other process that holds it, as HOST:PID; "" if the last look showed none."""
        return self._claim.other_holder

    def entitled(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """The work, cut when the claim is lost. It raises ``StaleEpoch`` if it is not held."""
        inner = self._work.entitled(work)

        def under_the_claim() -> Any:
            token = claim_of_this_work.set(self)
            try:
                return inner()
            finally:
                claim_of_this_work.reset(token)

        return under_the_claim

    def guarded(self) -> AbstractContextManager[None]:
        """A transaction that commits only if no other process has taken the claim."""
        return guarded_by(self.name, self._work.epoch, seconds_left=lambda: self._claim.left)

    def take(self, within: float) -> float:
        """Take the claim. Returns 0, or the seconds until the next look if another process holds
        it. Raises the errors of the database, after ``within`` seconds at the latest."""
        deadline = time.monotonic() + within
        while True:
            self._within = max(0.05, deadline - time.monotonic())
            try:
                with self._lock:
                    return self._take()
            except Exception as error:
                if classify(error) not in PASSING or time.monotonic() + 0.2 >= deadline:
                    raise
                time.sleep(0.2)

    def _take(self) -> float:
        claim, self.is_released = self._claim, False
        if claim.term is not None and claim.left > 0:
            return 0.0
        claim.forget()
        # One statement if no other process has run the job meanwhile.
        was_ours = claim.seen is not None and claim.seen.holder in ("", claim.holder)
        if not (was_ours and claim.take_as_seen()) and not claim.take():
            seen = claim.seen
            is_gone = seen is not None and seen.holder and parse_identity(seen.holder).is_gone
            if not (is_gone and claim.take_as_seen()):
                left = claim.free_at - claim.clock()
                return max(0.01, min(LOOK_INTERVAL * random.uniform(0.8, 1.0), left))
        self._claims.look_again()
        return 0.0

    def release(self) -> None:
        """Give it back soon, from the thread that renews it."""
        if self.is_held:
            self.is_released = True
            self._claims.look_again()

    def give_back(self) -> None:
        """Give it back now, if it is held. If the database is away, it expires."""
        with self._lock:
            self.is_released = False
            self._within = self._claims.terms.statement_timeout
            try:
                self._claim.give_back()
            except Exception as error:
                self._complain(error)

    def renew(self) -> bool:
        """Renew it, if it is held. False if the database does not answer."""
        with self._lock:
            if self._claim.term is None or self._claim.left <= 0:
                return True
            self._within = min(self._claims.terms.statement_timeout, self._claim.left)
            try:
                self._claim.renew()
            except ClaimLost as error:
                self._lose(str(error))
            except Exception as error:
                self._complain(error)
                return False
            self._error = ""
            return True

    def lose_if_over(self, *, is_overdue: bool) -> None:
        """Lose it if it was not renewed in time."""
        with self._lock:
            if self._claim.term is not None and self._claim.left <= 0:
                why = "a tick is past its tick_timeout" if is_overdue else self._error
                self._lose(f"it was not renewed in time: {why or 'the process was stopped'}")

    def _lose(self, why: str) -> None:
        self._claim.forget()
        self._work.revoke(f"{self.name} lost its claim: {why}")
        logger.warning("%s lost its claim: %s", self.name, why)

    def _epoch(self) -> int | None:
        return self._claim.epoch if self._claim.left > 0 else None

    def _execute(self, sql: str, params: Sequence[object]) -> Answer:
        return self._claims.execute(sql, params, self._within)

    def _complain(self, error: Exception) -> None:
        if not self._error:
            logger.warning("%s cannot reach its claim: %s", self.name, one_line(error))
        self._error = one_line(error)


def claim_name(daemon: str, job: str) -> str:
    """The name of a job's row in the table of claims."""
    return f"{daemon}.{job}"[:200]


def _vendor() -> str:
    return connections[conf.database()].vendor
