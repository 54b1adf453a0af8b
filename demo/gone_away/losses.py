"""Sessions that are lost: while idle, during a query, during COMMIT, on a dead network."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

from django.core.management import call_command
from django.db import connections
from django.db.transaction import atomic

from daemonkit import BaseDaemonCommand, Every
from demo.gone_away.observer import Observer
from demo.gone_away.remedies import Remedy
from demo.gone_away.units import Outcome, count_failed, execute, session, write
from lab.proxy import Proxy
from lab.waiting import eventually

HANGS_FOR = 4.0
"""Seconds after which a unit of work that has not returned is said to hang."""


# Lost while idle


def killed_while_idle(remedy: Remedy, observer: Observer) -> Outcome:
    unit = remedy.decorate(session)
    observer.kill(unit())
    return "failed", count_failed(unit, 3), 3


def timed_out_while_idle(remedy: Remedy, observer: Observer) -> Outcome:
    def short_lived() -> int:
        execute("SET SESSION wait_timeout = 1")
        return session()

    observer.wait_until_gone([remedy.decorate(short_lived)()])
    return "failed", count_failed(remedy.decorate(session), 3), 3


# Lost in the middle


def killed_in_a_query(remedy: Remedy, observer: Observer) -> Outcome:
    tries = []

    def work() -> None:
        tries.append(session())
        if len(tries) == 1:
            with meanwhile(lambda: kill_when_asleep(observer, tries[0])):
                execute("SELECT SLEEP(60)")

    failed = count_failed(remedy.decorate(work), 1)
    later = count_failed(remedy.decorate(session), 3)
    return ("fails, then", later, 3) if failed else ("runs again, then", later, 3)


def kill_when_asleep(observer: Observer, victim: int) -> None:
    eventually(lambda: observer.is_sleeping(victim), within=30)
    observer.kill(victim)


def lost_in_commit(remedy: Remedy, observer: Observer) -> Outcome:
    """The server commits, and its answer is lost."""
    note = f"commit {os.getpid()}"
    tries = []

    with proxied(observer, remedy) as proxy:

        def cut_when_committed() -> None:
            eventually(lambda: observer.rows(note), within=30)
            proxy.cut()
            proxy.resume()

        def work() -> None:
            tries.append(note)
            with contextlib.ExitStack() as stack:
                if len(tries) == 1:
                    stack.enter_context(meanwhile(cut_when_committed))
                with atomic("proxied"):
                    write(note, "proxied")
                    if len(tries) == 1:
                        proxy.lose_answers()

        failed = count_failed(remedy.decorate(work), 1)
    return ("rows and an error" if failed else "rows, no error"), observer.rows(note)


def half_open(remedy: Remedy, observer: Observer) -> Outcome:
    """During a unit of work the network starts to drop packets, and reports no error."""
    hung = threading.Event()
    with proxied(observer, remedy) as proxy:

        def work() -> None:
            session("proxied")
            proxy.drop()
            session("proxied")

        def give_up() -> None:
            hung.set()
            proxy.refuse()
            proxy.cut()

        class Command(BaseDaemonCommand):
            schedule = Every(seconds=0.01)
            tick_timeout = 0.3

            def tick(self) -> None:
                work()

        timer = threading.Timer(HANGS_FOR, give_up)
        timer.start()
        with contextlib.suppress(Exception):
            if remedy.is_daemonkit:
                call_command(Command(), max_ticks=1)
            else:
                remedy.decorate(work)()
        timer.cancel()
        timer.join()
    return ("hangs",) if hung.is_set() else ("cut",)


@contextlib.contextmanager
def meanwhile(what: Callable[[], None]) -> Iterator[None]:
    """Call ``what`` on another thread during the block."""
    helper = threading.Thread(target=what)
    helper.start()
    try:
        yield
    finally:
        helper.join()


@contextlib.contextmanager
def proxied(observer: Observer, remedy: Remedy) -> Iterator[Proxy]:
    """Put a proxy before the server, and give Django the alias "proxied" that uses it."""
    with Proxy(observer.address) as proxy:
        default = connections.settings["default"]
        options = {**default["OPTIONS"], "connect_timeout": 1}
        connections.settings["proxied"] = {**default, "PORT": str(proxy.port), "OPTIONS": options}
        try:
            yield proxy
        finally:
            proxy.cut()
            with contextlib.suppress(Exception):
                connections["proxied"].close()
            del connections["proxied"], connections.settings["proxied"]
