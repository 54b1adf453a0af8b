"""Leader election for one process: the thread that acquires, renews and releases the lease.

A standby runs the same life as a leader, with one more reason not to tick. The rules are in
``claim.py``.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from django.dispatch import Signal

from daemonkit import signals
from daemonkit.clock import Clock, Moment
from daemonkit.connections.private_session import Answer, PrivateSession
from daemonkit.daemon import Daemon
from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.leading import fencing
from daemonkit.leading.claim import ClaimLost
from daemonkit.leading.fencing import StaleEpoch
from daemonkit.leading.lease import LOOK_INTERVAL, Candidate
from daemonkit.leading.requirements import refuse_where_none_can_lead, require_table
from daemonkit.leading.rows import LeaseRow
from daemonkit.leading.terms import Terms
from daemonkit.leading.work import EntitledWork
from daemonkit.process.identity import this_process
from daemonkit.process.stopping import Stop
from daemonkit.signals import announce

logger = logging.getLogger("daemonkit")

NOT_LEADER = "not leader"

ANNOUNCE_TIMEOUT = 0.5
"""Seconds to wait for the listeners of a change before the lease is renewed."""


class Campaigner(Protocol):
    """The life that takes part in an election."""

    @property
    def stop(self) -> Stop: ...
    @property
    def once(self) -> bool: ...
    def bring_forward(self, *, restart: bool = False) -> None: ...
    def nudge(self) -> None: ...
    def give_up(self, code: Exit, what: str) -> None: ...


class Leadership:
    """One process's part in the election, for one life.

    Raises ``CommandError`` (exit code 2) if the database does not support leases.
    """

    _life: Campaigner

    def __init__(
        self,
        daemon: Daemon,
        terms: Terms,
        session: PrivateSession,
        clock: Clock | None = None,
    ) -> None:
        from daemonkit.models import Lease  # models cannot be loaded before the apps are

        self._daemon, self._terms = daemon, terms
        self._name = daemon.name
        refuse_where_none_can_lead(self._name)
        self._session = session
        row = LeaseRow(Lease._meta.db_table, self._name, self._execute)
        self._clock = clock or Clock()
        self._candidate = Candidate(row, terms, str(this_process()), self._clock.since_boot)
        self._work = EntitledWork(self._name, self._present_epoch)
        self._is_announced = False
        self._is_over = threading.Event()
        self._last_error = ""
        self._announced_leader = ""

    # Called by the life

    def reason_to_wait(self, now: Moment) -> str:
        """Return why no tick may start: "not leader"; "" if this process leads."""
        return self.reason_not_to_tick

    @property
    def reason_not_to_tick(self) -> str:
        """Why it may not tick now; "" if it leads.

        The clock decides, not the election's thread: after a freeze the thread may notice too late.
        """
        return "" if self._is_announced and self._candidate.left > 0 else NOT_LEADER

    @property
    def epoch(self) -> int | None:
        """The epoch in which the current work began, or else the current epoch.

        None while standing by.
        """
        began_in = self._work.epoch
        if began_in is not None:
            return began_in
        term = self._candidate.term
        return term.epoch if term else None

    def _present_epoch(self) -> int | None:
        term = self._candidate.term
        return None if term is None or self.reason_not_to_tick else term.epoch

    @property
    def lost_leadership(self) -> bool:
        """Whether this thread's current or last work ran while the leadership was lost.

        If so, its failure does not count.
        """
        return self._work.was_revoked

    def ask_for_the_table(self) -> None:
        """Raise ``CommandError`` (exit code 78) if the table of leases is missing."""
        require_table(self._name)

    def entitled(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """Return a unit of work that may run only while this process leads.

        When the leadership is lost, the connections of the work's thread are cut, and the thread
        can open no other until the work has ended. The work raises ``StaleEpoch`` if the leadership
        is lost before it begins.
        """
        return self._work.entitled(work)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Open a transaction that is committed only in the epoch of the current work."""
        epoch = self.epoch
        if epoch is None or self.reason_not_to_tick:
            raise StaleEpoch(f"{self._name} does not lead: nothing was sent")
        with fencing.guarded(self._name, epoch, seconds_left=lambda: self._candidate.left):
            yield

    @contextlib.contextmanager
    def campaigning(self, life: Campaigner) -> Iterator[None]:
        """Take part in the election while the block runs, and then release the lease."""
        self.enter(life)
        if self._clock.call_regularly(self.step):
            try:
                yield
            finally:
                self._clock.stop_calling(self.step)
                self.leave()
            return
        thread = threading.Thread(target=self._campaign, name="daemonkit-leader", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            # Without a lease to release, do not wait for a server that does not answer.
            thread.join(2 * self._terms.statement_timeout + 1 if self._candidate.term else 0.2)

    # The campaign, step by step

    def enter(self, life: Campaigner) -> None:
        """Take part in the election for this life, starting with the next ``step()``."""
        self._life = life

    def _campaign(self) -> None:
        pause = 0.0
        while not self._is_over.wait(pause):
            pause = self.step()
        self.leave()

    def step(self) -> float:
        """Read, acquire or renew the lease. Returns the seconds until the next step."""
        try:
            if self._candidate.term is None:
                self._stand_by(self._candidate)
            else:
                self._go_on_leading(self._candidate)
        except Exception:
            logger.exception("%s: the election failed", self._name)
        pause = self._candidate.pause()
        return min(pause, LOOK_INTERVAL) if self._last_error else pause

    def leave(self) -> None:
        """Leave the election, and release the lease if this process holds it."""
        # While work, or a statement of it on the server, still runs, the lease must expire instead.
        if self._candidate.term and not self._work.is_under_way and not self._life.stop.forced:
            self._try(self._candidate.give_back)
        self._session.close()

    def _stand_by(self, candidate: Candidate) -> None:
        if self._life.stop.asked:
            return
        # A process that still runs, or cleans up, the work of an earlier term could not tick.
        is_busy = self._work.is_under_way or self._life.stop.ticks
        if self._try(candidate.look if is_busy else candidate.take):
            self._gained()
        elif candidate.other_holder not in ("", self._announced_leader) and not self._last_error:
            self._announced_leader = candidate.other_holder
            self._announce(signals.standing_by, leader=candidate.other_holder)
        if self._life.once and candidate.sees_a_leader_at_work:
            self._life.give_up(Exit.TICK_FAILED, f"did not tick: {candidate.other_holder} leads")

    def _go_on_leading(self, candidate: Candidate) -> None:
        overdue = self._overdue()
        if candidate.left > 0 and not overdue:
            try:
                self._try(candidate.renew)
            except ClaimLost as error:
                self._lose(candidate, str(error))
                return
        if candidate.left <= 0:
            why = "a tick is past its tick_timeout" if overdue else self._last_error
            reason = why or "the process was stopped"
            self._lose(candidate, f"the lease was not renewed in time: {reason}")

    def _try(self, query: Callable[[], Any]) -> Any:
        """Return the database's answer; None if it does not answer, which is logged once."""
        try:
            answer = query()
        except ClaimLost:
            raise
        except Exception as error:
            if not self._last_error:
                logger.warning("%s cannot reach its lease: %s", self._name, one_line(error))
            self._last_error = one_line(error)
            return None
        if self._last_error:
            logger.info("%s can reach its lease again", self._name)
        self._last_error = ""
        return answer

    def _overdue(self) -> bool:
        """Whether a tick has exceeded its timeout, so that the lease must not be renewed."""
        now = time.monotonic()
        return any(tick.is_overdue(now) for tick in list(self._life.stop.ticks.values()))

    def _gained(self) -> None:
        self._announced_leader = ""
        self._life.bring_forward(restart=True)
        self._announce(signals.leadership_gained, epoch=self.epoch)
        self._is_announced = True
        self._life.nudge()

    def _lose(self, candidate: Candidate, reason: str) -> None:
        self._is_announced = False
        candidate.forget()
        self._work.revoke(f"{self._name} no longer leads: {reason}")
        self._announce(signals.leadership_lost, reason=reason)
        self._life.nudge()

    def _announce(self, signal: Signal, **details: Any) -> None:
        """Send a signal, but do not let slow listeners delay the renewal of the lease."""
        arguments = (signal, self._daemon)
        listeners = threading.Thread(target=announce, args=arguments, kwargs=details, daemon=True)
        with contextlib.suppress(RuntimeError):  # the interpreter is ending
            listeners.start()
            listeners.join(ANNOUNCE_TIMEOUT)

    def _execute(self, sql: str, params: Sequence[Any]) -> Answer:
        within = self._terms.statement_timeout
        if self._candidate.term is not None:
            within = min(within, self._candidate.left)
        return self._session.execute(sql, params, within, urgent=True)
