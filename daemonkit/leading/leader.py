"""One leader among many: the thread that campaigns, renews, and takes the right to tick away.

Standing by is one more reason not to tick, not another life. The rules are in ``lease.py``.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from django.core.management.base import CommandError
from django.db import ProgrammingError, connections
from django.dispatch import Signal

from daemonkit import conf, signals
from daemonkit.clock import Moment
from daemonkit.connections.private_session import Answer, PrivateSession
from daemonkit.connections.thread import resume_connections, suspend_connections
from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.leading import fencing
from daemonkit.leading.fencing import StaleEpoch
from daemonkit.leading.lease import LOOK, Candidate, Deposed, LeaseRow, Terms, holder_name
from daemonkit.process.stopping import Stop
from daemonkit.signals import announce

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.models import Lease

logger = logging.getLogger("daemonkit")

NOT_LEADER = "not leader"

_epoch: contextvars.ContextVar[int | None] = contextvars.ContextVar("epoch", default=None)


class Campaigner(Protocol):
    """The life that takes part in an election."""

    @property
    def stop(self) -> Stop: ...
    @property
    def once(self) -> bool: ...
    def bring_forward(self, *, anew: bool = False) -> None: ...
    def nudge(self) -> None: ...
    def give_up(self, code: Exit, what: str) -> None: ...


class Leadership:
    """One process's part in the election, for one life.

    Raises ``CommandError`` (exit code 2) where there cannot be one.
    """

    _life: Campaigner

    def __init__(self, daemon: Daemon, terms: Terms) -> None:
        self._daemon, self._terms = daemon, terms
        self._name = daemon.name
        self._alias = conf.database()
        refuse_where_none_can_lead(self._name)
        self._session = PrivateSession(self._alias, terms.patience, name=f"daemonkit {self._name}")
        row = LeaseRow(_model()._meta.db_table, self._name, self._execute)
        self._candidate = Candidate(row, terms, holder_name())
        self._lock = threading.Lock()
        self._working: set[int] = set()  # threads
        self._cut: set[int] = set()
        self._is_proclaimed = False
        self._ending = threading.Event()
        self._trouble: str | None = None
        self._said: str | None = None

    # What the life asks

    @property
    def hindrance(self) -> str:
        """Why it may not tick now; "" if it leads. Goes by the clock, not by what the thread has
        noticed: a process that was stopped must know it when it goes on."""
        return "" if self._is_proclaimed and self._left > 0 else NOT_LEADER

    @property
    def epoch(self) -> int | None:
        """The epoch in which the work at hand began, or the present one; None while standing by."""
        began_in = _epoch.get()
        if began_in is not None:
            return began_in
        term = self._candidate.term
        return term.epoch if term else None

    @property
    def is_deposed(self) -> bool:
        """Whether the work that this thread is at, or was at last, has lost its right to go on:
        then it is not to blame for its failure."""
        return threading.get_ident() in self._cut

    def ask_for_the_table(self) -> None:
        """Raise ``CommandError`` (exit code 2) if the lease's table is not there."""
        lease = _model()
        try:
            lease.objects.using(self._alias).filter(name=self._name).first()
        except ProgrammingError as error:
            raise CommandError(
                f"{self._name} needs the table {lease._meta.db_table} to have one leader: run "
                f"`manage.py migrate daemonkit` ({one_line(error)})",
                returncode=Exit.USAGE,
            ) from error

    def reason_to_wait(self, now: Moment) -> str:
        """Why no tick may start: "not leader"; "" if this process leads."""
        return self.hindrance

    @contextlib.contextmanager
    def campaigning(self, life: Campaigner) -> Iterator[None]:
        """Take part in the election while the block runs, and then give the lease back."""
        self._life = life
        thread = threading.Thread(target=self._campaign, name="daemonkit-leader", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ending.set()
            # Who has nothing to give back need not wait for a server that does not answer.
            thread.join(2 * self._terms.patience + 1 if self._candidate.term else 0.2)

    def entitled(self, work: Callable[[], Any]) -> Callable[[], Any]:
        """A unit of work that has a right to go on only while this process leads.

        When that is lost its thread's connections are cut, and it makes none until the work has
        ended. It raises ``StaleEpoch`` if the right is lost before it begins.
        """

        @functools.wraps(work)
        def entitled() -> Any:
            with self._working_in_this_thread():
                return work()

        return entitled

    @contextlib.contextmanager
    def _working_in_this_thread(self) -> Iterator[None]:
        thread = threading.get_ident()
        with self._lock:
            term = self._candidate.term
            if term is None or self.hindrance:
                self._cut.add(thread)
                raise StaleEpoch(f"{self._name} does not lead")
            self._cut.discard(thread)
            self._working.add(thread)
        token = _epoch.set(term.epoch)
        try:
            yield
        except StaleEpoch:
            self._cut.add(thread)
            raise
        finally:
            _epoch.reset(token)
            with self._lock:
                self._working.discard(thread)
                resume_connections(thread)

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """A transaction that is committed only in the epoch in which the work at hand began."""
        epoch = self.epoch
        if epoch is None or self.hindrance:
            raise StaleEpoch(f"{self._name} does not lead: nothing was sent")
        with fencing.guarded(self._name, epoch, seconds_left=lambda: self._left):
            yield

    # The thread

    def _campaign(self) -> None:
        pause = 0.0
        while not self._ending.wait(pause):
            pause = self._step()
        self._give_back()

    def _step(self) -> float:
        try:
            if self._candidate.term is None:
                self._stand_by(self._candidate)
            else:
                self._go_on_leading(self._candidate)
        except Exception:
            logger.exception("%s: the election failed", self._name)
        pause = self._candidate.pause()
        return min(pause, LOOK) if self._trouble else pause

    def _stand_by(self, candidate: Candidate) -> None:
        if self._life.stop.asked:
            return
        # Who is still at the work of an earlier term, or at tidying up after it, could not tick.
        is_busy = self._working or self._life.stop.ticks
        if self._try(candidate.look if is_busy else candidate.campaign):
            self._gained(candidate)
        elif candidate.leader not in ("", self._said) and not self._trouble:
            self._said = candidate.leader
            self._say(signals.standing_by, leader=candidate.leader)
        if self._life.once and candidate.sees_a_leader_at_work:
            self._life.give_up(Exit.TICK_FAILED, f"did not tick: {candidate.leader} leads")

    def _go_on_leading(self, candidate: Candidate) -> None:
        overdue = self._overdue()
        if candidate.left > 0 and not overdue:
            try:
                self._try(candidate.renew)
            except Deposed as error:
                self._lose(candidate, str(error))
                return
        if candidate.left <= 0:
            why = "a tick is past its tick_timeout" if overdue else self._trouble
            self._lose(candidate, f"the lease was not renewed in time: {why or 'we stood still'}")

    def _try(self, what: Callable[[], Any]) -> Any:
        """Its answer; None when the database gives none, which is logged once."""
        try:
            answer = what()
        except Deposed:
            raise
        except Exception as error:
            if self._trouble is None:
                logger.warning("%s cannot ask for its lease: %s", self._name, one_line(error))
            self._trouble = one_line(error)
            return None
        if self._trouble is not None:
            logger.info("%s can ask for its lease again", self._name)
        self._trouble = None
        return answer

    def _overdue(self) -> bool:
        """Whether a tick has gone on for longer than it may: it is not to keep the lease."""
        now = time.monotonic()
        return any(
            tick.overdue_since is not None
            or (tick.timeout is not None and now - tick.touched > tick.timeout)
            for tick in list(self._life.stop.ticks.values())
        )

    def _gained(self, candidate: Candidate) -> None:
        self._said = None
        self._life.bring_forward(anew=True)
        self._say(signals.leadership_gained, epoch=self.epoch)
        self._is_proclaimed = True
        self._life.nudge()

    def _lose(self, candidate: Candidate, reason: str) -> None:
        with self._lock:
            candidate.retire()
            self._is_proclaimed = False
            working = set(self._working)
            self._cut |= working
            suspend_connections(working, f"{self._name} leads no more: {reason}")
        self._say(signals.leadership_lost, reason=reason)
        self._life.nudge()

    def _give_back(self) -> None:
        # While something runs on, be it a statement on the server, the lease must run out.
        if self._candidate.term and not self._working and not self._life.stop.forced:
            self._try(self._candidate.resign)
        self._session.close()

    def _say(self, signal: Signal, **details: Any) -> None:
        """Announce, and wait only a moment for those who hear it: the lease does not wait."""
        arguments = (signal, self._daemon)
        listeners = threading.Thread(target=announce, args=arguments, kwargs=details, daemon=True)
        with contextlib.suppress(RuntimeError):  # the interpreter is ending
            listeners.start()
            listeners.join(0.5)

    @property
    def _left(self) -> float:
        return self._candidate.left

    def _execute(self, sql: str, params: Sequence[Any]) -> Answer:
        within = self._terms.patience
        if self._candidate.term is not None:
            within = min(within, self._left)
        return self._session.execute(sql, params, within, urgent=True)


def _model() -> type[Lease]:
    from daemonkit.models import Lease  # models cannot be loaded before the apps are

    return Lease


def refuse_where_none_can_lead(name: str) -> None:
    """Raise ``CommandError`` (exit code 2) if the database that has the lease cannot have one."""
    vendor = connections[conf.database()].vendor
    if vendor not in ("mysql", "postgresql"):
        raise CommandError(_no_leader(name, vendor), returncode=Exit.USAGE)


def _no_leader(name: str, vendor: str) -> str:
    if vendor == "sqlite":
        return (
            f"{name} can have no leader on SQLite, which is for one host: let systemd be its "
            f"leader (one unit runs once) and take leader off, or say --no-leader"
        )
    return f"{name} can have a leader on MySQL, MariaDB and PostgreSQL, not on {vendor}"
