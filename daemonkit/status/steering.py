"""The thread that writes the row of a process and reads its orders, with each pulse.

Nothing here holds up a tick: the thread asks the life, and waits for the database on its own.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from django.db import connections
from django.dispatch import Signal

from daemonkit import conf, signals
from daemonkit.connections.private_session import PrivateSession
from daemonkit.daemon import Daemon
from daemonkit.errors import one_line
from daemonkit.iteration import Iteration
from daemonkit.listeners.listener import Listener
from daemonkit.listeners.status_line import paused_text
from daemonkit.models import Order, Process
from daemonkit.process.identity import host_name, this_process
from daemonkit.signals import announce
from daemonkit.status import account, rows
from daemonkit.status.account import Account, State
from daemonkit.status.code_version import code_version
from daemonkit.status.dismissal import dismissed
from daemonkit.status.pauses import Pause, Pauses
from daemonkit.verdict import Verdict

logger = logging.getLogger("daemonkit")

Result = TypeVar("Result")

REQUEST_SECONDS = 5.0
"""The longest time for one request to the database; a pulse, if that is shorter."""

FIRST_ORDERS_SECONDS = 2.0
"""How long the first tick waits for the orders."""

SHORTEST_INTERVAL = 1.0
"""Seconds between two writes, however often the state changes; a pulse, if that is shorter."""

NO_TABLE_INTERVAL = 60.0
"""Seconds between two looks whether the tables are there."""

PRUNE_INTERVAL = 3600.0

LAST_SECONDS = 1.0
"""How long the end of the process waits for the last write."""


class Life(account.Life, Protocol):
    """The life that is reported and steered."""

    verdict: Verdict

    def nudge(self) -> None: ...
    def wait(self, seconds: float) -> None: ...
    def ask_to_stop(self, reason: str) -> None: ...
    def bring_forward(self) -> None: ...


class Jobs(Protocol):
    """The jobs of a daemon that has some."""

    @property
    def jobs(self) -> Sequence[account.Job]: ...

    def order(self, name: str) -> None:
        """Run a job now, or with "" all of them."""


class Steering(Listener):
    """Writes the row of one process, and follows its orders."""

    _life: Life
    _row: rows.ProcessRow
    account: Account
    jobs: Jobs | None = None

    def __init__(self, daemon: Daemon, session: PrivateSession) -> None:
        super().__init__(daemon)
        self._daemon, self._session = daemon, session
        self.pauses = Pauses()
        self._begun = time.monotonic()
        self._starts: list[float] = []
        self._wake = threading.Event()
        self._is_over = self._has_raised = False
        self._has_tables = self._has_row = self._wants_orders = False
        self._has_answer = False
        self._complaint = ""
        self._pruned_at = -PRUNE_INTERVAL
        self._ignored: set[int] = set()

    def moments(self) -> dict[Signal, Callable[..., None]]:
        return {
            signals.database_awaited: self._awaited,
            signals.migrations_awaited: self._awaited_migrations,
            signals.daemon_ready: self._ready,
            signals.iteration_failed: self._failed,
            signals.tick_prolonged: self._changed,
            signals.standing_by: self._standing_by,
            signals.leadership_gained: self._changed,
            signals.leadership_lost: self._changed,
            signals.daemon_stopping: self._changed,
            signals.daemon_reloading: self._changed,
        }

    # Called by the life

    @contextlib.contextmanager
    def steering(self, life: Life) -> Iterator[None]:
        """Write the row and follow orders during the block."""
        self._life = life
        self.account = Account(life, self.pauses, self._begun)
        self.account.jobs = self.jobs.jobs if self.jobs else None
        life.pace.reasons.append(self.pauses)
        thread = threading.Thread(target=self._live, name="daemonkit-status", daemon=True)
        thread.start()
        self._has_raised = True
        try:
            with self.listening():
                yield
            self._has_raised = False
        finally:
            self._is_over = True
            self._wake.set()
            thread.join(0.2 if life.stop.forced else LAST_SECONDS)
            self._session.close(0.5)

    def await_orders(self) -> None:
        """Wait until the orders have been read, at most two seconds."""
        life, until = self._life, time.monotonic() + FIRST_ORDERS_SECONDS
        self.look()
        while not self._has_answer and not life.stop.asked:
            left = until - time.monotonic()
            if left <= 0:
                logger.warning(
                    "%s could not read its orders, and begins without them%s",
                    self._daemon.name,
                    f": {self._complaint}" if self._complaint else "",
                )
                self._complaint = self._complaint or "no answer"
                return
            life.wait(left)

    def look(self) -> None:
        """Read the orders now. From any thread."""
        self._wants_orders = True
        self._wake.set()

    # Moments of the life

    def _changed(self, **_: Any) -> None:
        self._wake.set()

    def _awaited(self, error: Exception, **_: Any) -> None:
        self.account.awaited = f"waits for the database: {one_line(error)}"
        self._wake.set()

    def _awaited_migrations(self, migrations: str, **_: Any) -> None:
        self.account.awaited = f"waits for migrations: {migrations}"
        self._wake.set()

    def _ready(self, **_: Any) -> None:
        self.account.is_ready, self.account.awaited = True, ""
        self._wake.set()

    def _failed(self, iteration: Iteration, **_: Any) -> None:
        self.account.failed(iteration)
        self._wake.set()

    def _standing_by(self, leader: str, **_: Any) -> None:
        self.account.leader = f"{leader} leads"
        self._wake.set()

    # The thread

    def _live(self) -> None:
        next_pulse = 0.0
        while not self._is_over:
            self._wake.clear()
            now = time.monotonic()
            reads = now >= next_pulse or self._wants_orders or not self._has_answer
            self._wants_orders = False
            if now >= next_pulse:
                next_pulse = now + self._life.pulse
            if not self._try(partial(self._beat, reads)) and not self._complaint:  # no tables
                if not self._session.is_in_use:  # the ledger uses it, too
                    self._session.close()
                self._rest(NO_TABLE_INTERVAL)
            self._pause(next_pulse)
        if self._has_row:
            self._try(self._leave)

    def _rest(self, seconds: float) -> None:
        """Do nothing for a while, whatever changes."""
        until = time.monotonic() + seconds
        while not self._is_over and (left := until - time.monotonic()) > 0:
            self._wake.clear()
            if not self._is_over:
                self._wake.wait(left)

    def _pause(self, until: float) -> None:
        """Wait for the next pulse, or for a change; the latter not too often."""
        begun = time.monotonic()
        self._wake.wait(max(0.0, until - begun))
        shortest = min(SHORTEST_INTERVAL, self._life.pulse) if self._has_answer else 0.05
        while not self._is_over and not self._wants_orders:
            left = begun + shortest - time.monotonic()
            if left <= 0:
                return
            self._wake.clear()
            if not self._is_over and not self._wants_orders:
                self._wake.wait(left)

    def _try(self, work: Callable[[], bool]) -> bool:
        """Do this, and log once that it fails, and once that it works again."""
        try:
            has_worked = work()
        except Exception as error:
            if not self._complaint and not self._is_over and not self.account.awaited:
                logger.warning(
                    "%s cannot write its status or read its orders: %s",
                    self._daemon.name,
                    one_line(error),
                )
            self._complaint = one_line(error)
            return False
        if self._complaint and has_worked:
            logger.info("%s can write its status and read its orders again", self._daemon.name)
        self._complaint = ""
        return has_worked

    def _beat(self, reads: bool) -> bool:
        """Read the orders, and write the row. False without the tables."""
        if not self._has_tables:
            self._has_tables = self._ask(_has_tables)
            if not self._has_tables:
                logger.debug("%s has no tables for its status", self._daemon.name)
                self._answered()
                return False
        if reads:
            self._follow(self._ask(partial(rows.orders_for, self._daemon.name)))
        now = time.monotonic()
        if self.account.is_alive(now):
            self._write(now)
        if now - self._pruned_at >= PRUNE_INTERVAL:
            self._ask(rows.prune)
            self._pruned_at = now
        return True

    def _write(self, now: float) -> None:
        if not self._has_row:
            name, worker = self._daemon.name, self._daemon.worker_number
            self._row = rows.ProcessRow(this_process(), name, worker)
            self._version = code_version()
            self._starts = [now - age for age in self._ask(self._row.succeed)] + [self._begun]
        self._ask(partial(self._row.write, self._report(now)))
        self._has_row = True

    def _report(self, now: float) -> dict[str, Any]:
        return {
            "worker": self._daemon.worker_number,
            "version": self._version,
            "pulse": self._life.pulse,
            "expect_success_within": self._life.settings.expect_success_within,
            "starts": [round(now - at) for at in self._starts if now - at < rows.HOUR],
            **self.account.columns(now),
        }

    def _leave(self) -> bool:
        """Write the last word, or remove the row of a process that was asked to end."""
        life = self._life
        if self._ends_by_request:
            self._ask(self._row.remove)
            return True
        columns = self._report(time.monotonic())
        columns |= {"state": State.ENDED, "detail": life.stop.forced or columns["detail"]}
        if life.stop.reloading and not life.stop.forced:
            columns |= {"state": State.STARTING, "detail": "reloads"}
        self._ask(partial(self._row.write, columns))
        return True

    @property
    def _ends_by_request(self) -> bool:
        """Whether the process ends because it was asked to, or has nothing more to do."""
        stop, verdict = self._life.stop, self._life.verdict
        if stop.forced or stop.reloading or self._has_raised:
            return False
        if stop.asked or verdict.has_nothing_due:
            return True
        return verdict.limit_reached is not None and verdict.ending() is None

    def _ask(self, work: Callable[[], Result]) -> Result:
        limit = LAST_SECONDS if self._is_over else REQUEST_SECONDS
        return self._session.run(work, min(limit, max(1.0, self._life.pulse)))

    # Orders

    def _follow(self, orders: list[rows.Given]) -> None:
        now = time.monotonic()
        pauses = [
            Pause(each.id, each.job, each.by, each.why, _until(each, now))
            for each in orders
            if each.verb == rows.Verb.PAUSE
        ]
        self._let_hold(pauses)
        age = now - self._begun
        for order in orders:
            if order.verb != rows.Verb.PAUSE and order.id not in self._ignored and order.age < age:
                self._obey(order)
        self._ignored &= {order.id for order in orders}
        self._answered()

    def _answered(self) -> None:
        if not self._has_answer:
            self._has_answer = True
            self._life.nudge()

    def _let_hold(self, pauses: list[Pause]) -> None:
        begun, ended = self.pauses.change(pauses)
        now = time.monotonic()
        for pause in begun:
            subject = f"{self._daemon.name} {pause.job}".rstrip()
            logger.info("%s is %s", subject, paused_text(pause.by, pause.why, pause.seconds(now)))
            announce(
                signals.daemon_paused,
                self.daemon,
                job=pause.job,
                by=pause.by,
                why=pause.why,
                seconds=pause.seconds(now),
            )
        for pause in ended:
            logger.info("%s is no longer paused", f"{self._daemon.name} {pause.job}".rstrip())
            announce(signals.daemon_resumed, self.daemon, job=pause.job)
        if begun or ended:
            self._life.nudge()

    def _obey(self, order: rows.Given) -> None:
        reason = f"ordered by {order.by}"
        if order.verb == rows.Verb.RUN:
            self._run(order)
            return
        self._ignored.add(order.id)
        if order.host not in ("", host_name()):
            return
        if order.verb == rows.Verb.STOP:
            if self._daemon.is_supervised:
                announce(dismissed, self.daemon, reason=reason)
            self._life.ask_to_stop(reason)
        elif order.verb == rows.Verb.RELOAD:
            self._reload(reason)

    def _run(self, order: rows.Given) -> None:
        """Run now, if this process may, and no other one has taken the order."""
        life = self._life
        if order.taken_by or life.stop.asked or not self.account.is_ready:
            return
        if self.account.other_reason_to_wait() or not self._has_job(order.job):
            return
        self._ignored.add(order.id)
        key = f"{host_name()}:{os.getpid()}"
        if self._ask(partial(rows.take, order.id, key)):
            logger.info(
                "%s runs now%s, ordered by %s",
                self._daemon.name,
                f" {order.job}" if order.job else "",
                order.by,
            )
            self._begin_now(order.job)

    def _has_job(self, name: str) -> bool:
        return not name or any(job.name == name for job in self._life.settings.jobs)

    def _begin_now(self, job: str) -> None:
        life = self._life
        if self.jobs is not None:
            self.jobs.order(job)
            return
        last = life.last
        self.pauses.let_pass(lambda: life.last is last)
        life.bring_forward()

    def _reload(self, reason: str) -> None:
        if not self._life.settings.may_restart:
            logger.warning("%s does not reload: a limit was typed for it", self._daemon.name)
            return
        logger.info("%s is to reload, %s", self._daemon.name, reason)
        if not self._daemon.is_supervised:
            os.kill(os.getpid(), signal.SIGHUP)
        elif self._daemon.worker_number == 1:
            os.kill(os.getppid(), signal.SIGHUP)


def _until(order: rows.Given, now: float) -> float:
    return math.inf if order.left is None else now + order.left


def _has_tables() -> bool:
    names = connections[conf.database()].introspection.table_names()
    return Process._meta.db_table in names and Order._meta.db_table in names
