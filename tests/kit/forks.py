"""A process that forks on request: ``python -m tests.kit.forks``. It answers in JSON.

The tests' own process is not suited for forking: it has threads, servers and pytest in it. Each
line of input is a request: a function of this file and its arguments. The variable FORKS holds
DATABASES and options: {"databases": {...}, "pymysql": false, "late": false}.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

HOME = os.getpid()
both_are_here: Barrier


def set_up() -> None:
    import django
    from django.conf import settings

    forks = json.loads(os.environ["FORKS"])
    if forks.get("pymysql"):
        import pymysql

        pymysql.install_as_MySQLdb()
    apps = [] if forks.get("late") else ["daemonkit"]
    settings.configure(DATABASES=forks["databases"], INSTALLED_APPS=apps, USE_TZ=True)
    django.setup()


def main() -> None:
    set_up()
    sys.excepthook = lambda *_: None  # a child that ends in an exception is not worth a traceback
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = globals()[request.pop("case")](**request)
        except Exception:
            if os.getpid() != HOME:
                raise
            answer = {"trouble": traceback.format_exc()}
        tidy()
        print(json.dumps(answer), flush=True)


def tidy() -> None:
    from django.db import connections

    for wrapper in connections.all(initialized_only=True):
        with contextlib.suppress(Exception):
            wrapper.close()
        if hasattr(wrapper, "close_pool"):
            with contextlib.suppress(Exception):
                wrapper.close_pool()
        wrapper.connection = None


# What parents and children do


def query(sql: str, *params: Any) -> Any:
    """The first value of the first row."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchone()[0] if cursor.description else None


def session() -> int:
    from django.db import connection

    return int(query(session_sql(connection.vendor)))


def session_sql(vendor: str) -> str:
    return "SELECT " + {"mysql": "CONNECTION_ID()", "postgresql": "pg_backend_pid()"}[vendor]


def sockets() -> set[int]:
    """The inodes of this process's sockets."""
    found = set()
    for entry in Path("/dev/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists
            status = os.fstat(int(entry.name))
            if stat.S_ISSOCK(status.st_mode):
                found.add(status.st_ino)
    return found


def note(text: str) -> None:
    query("INSERT INTO entry (note) VALUES (%s)", text)


def outcome(work: Callable[[], Any]) -> Any:
    """Call a function. Return its result, or the class and text of its error."""
    try:
        return work()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


class Child:
    """A forked child, which works, reports, and ends in the requested way.

    ``report()`` is for what it does while it ends; the parent reads everything in ``end()``.
    """

    here: Child | None = None

    def __init__(self, work: Callable[[], Any], ending: str = "os._exit") -> None:
        self.reader, self.writer = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(self.writer)
            return
        Child.here = self
        self.report(outcome(work))
        if ending == "os._exit":
            os._exit(0)
        if ending == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        if ending != "goes on":
            raise SystemExit(0) if ending == "sys.exit" else RuntimeError("of the child")

    def report(self, what: Any) -> None:
        os.write(self.writer, json.dumps(what).encode() + b"\n")

    @functools.cached_property
    def reports(self) -> list[Any]:
        """All its reports until its end."""
        with os.fdopen(self.reader) as lines:
            return [json.loads(line) for line in lines]

    @functools.cached_property
    def code(self) -> int:
        assert self.reports is not None
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def nothing() -> None: ...


def close() -> None:
    from django.db import connection

    connection.close()


def close_all() -> None:
    from django.db import connections

    connections.close_all()


def close_old() -> None:
    from django.db import close_old_connections

    close_old_connections()


def forget() -> None:
    from django.db import connections

    connections["default"].connection = None
    del connections["default"]


def collect() -> None:
    gc.collect()


def close_raw() -> None:
    """Call ``close()`` on all of the parent's connections that the driver still has."""
    for thing in gc.get_objects():
        if type(thing).__name__ == "Connection" and hasattr(thing, "commit"):
            with contextlib.suppress(Exception):
                thing.close()


# The cases


def one_child(deed: str, ending: str) -> Any:
    """The parent has a session. The child does something, queries, does it again, and ends."""

    def work() -> Any:
        if deed == "nothing":
            return []
        act = globals()[deed]
        act()
        own = [session(), session()]
        act()
        return own

    before = session()
    child = Child(work, ending)
    facts = {"before": before, "child": child.reports[0], "code": child.code}
    return {**facts, "after": outcome(session)}


def other_threads(ending: str) -> Any:
    """Other threads of the parent have sessions, one of them in the middle of a query. The child
    runs the garbage collector. Then another thread forks."""
    from django.db import connection

    def work() -> Any:
        shared = sorted(sockets() & parents)
        gc.collect()
        own = session()
        gc.collect()
        return [own, shared]

    slow = "SELECT SLEEP(0.25)" if connection.vendor == "mysql" else "SELECT pg_sleep(0.25)"
    with contextlib.ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(4)]
        befores = [session(), *[thread.submit(session).result() for thread in threads]]
        parents = sockets()
        busy = threads[0].submit(query, slow)
        time.sleep(0.05)
        is_under_way = not busy.done()
        children = [Child(work, ending), threads[1].submit(Child, work).result()]
        reports = [child.reports[0] for child in children]
        codes = [child.code for child in children]
        busy.result()
        afters = [outcome(session), *[outcome(thread.submit(session).result) for thread in threads]]
        for thread in threads:
            thread.submit(close).result()
    return {
        "befores": befores, "afters": afters, "codes": codes, "is_under_way": is_under_way,
        "children": [own for own, _ in reports], "shared": [shared for _, shared in reports],
        "sockets": len(parents),
    }  # fmt: skip


def inside_atomic(depth: int, ending: str, asks: bool) -> Any:
    """A fork in the middle of the parent's transaction. The child leaves it in every way."""
    from django.db import connection, transaction

    def work() -> Any:
        if not asks:
            return None
        note("child")
        return [session(), connection.in_atomic_block, query("SELECT COUNT(*) FROM entry")]

    before = session()
    committed: list[int] = []
    try:
        with contextlib.ExitStack() as blocks:
            for _ in range(depth):
                blocks.enter_context(transaction.atomic())
            transaction.on_commit(lambda: committed.append(os.getpid()))
            note("parent")
            child = Child(work, ending)
            if not Child.here:
                reports, in_between = child.reports, outcome(session)
    finally:
        if Child.here:
            raw = connection.connection
            left = {"connected": raw is not None, "committed": committed}
            left["then"] = outcome(lambda: [session() > 0, transaction.atomic(session)() > 0])
            Child.here.report(left)
            if ending == "goes on":
                os._exit(0)
    return {
        "before": before, "in_between": in_between, "after": outcome(session), "reports": reports,
        "code": child.code, "committed": committed == [HOME],
    }  # fmt: skip


def tagged_rows(children: int, queries: int) -> Any:
    """The parent and its children query at the same time, each for its own value."""

    def work() -> list[str]:
        tag = f"of {os.getpid()}"
        answers = (query("SELECT %s", f"{tag} {number}") for number in range(queries))
        return [answer for number, answer in enumerate(answers) if answer != f"{tag} {number}"]

    before = session()
    family = [Child(work, "sys.exit") for _ in range(children)]
    foreign = [work(), *[child.reports[0] for child in family]]
    return {"before": before, "foreign": foreign, "after": outcome(session)}


def generations() -> Any:
    """The sessions of a parent and its child, when the child forks a child of its own."""

    def work() -> Any:
        own = session()
        grandchild = Child(session, "sys.exit")
        return [own, grandchild.reports[0], grandchild.code, outcome(session)]

    before = session()
    child = Child(work, "sys.exit")
    return {"before": before, "child": child.reports[0], "after": outcome(session)}


def held_by_hand() -> Any:
    """The child has references to a cursor and to the driver's connection, and uses both."""
    from django.db import connection

    before = session()
    raw, cursor, sql = connection.connection, connection.cursor(), session_sql(connection.vendor)

    def ask_raw() -> Any:
        with raw.cursor() as bare:
            bare.execute(sql)
            return bare.fetchone()

    def ask_cursor() -> Any:
        cursor.execute(sql)
        return cursor.fetchone()

    child = Child(lambda: [outcome(ask_raw), outcome(ask_cursor), outcome(raw.close), session()])
    return {"before": before, "child": child.reports[0], "after": outcome(session)}


def bare_driver(options: dict[str, Any], driver: str) -> Any:
    """A connection that was opened without Django and passed to ``guard()``."""
    import importlib

    from daemonkit.connections.fork_guard import guard

    raw = importlib.import_module(driver).connect(**options)
    guard(raw)

    def ask() -> Any:
        with raw.cursor() as cursor:
            cursor.execute("SELECT CONNECTION_ID()")
            return cursor.fetchone()[0]

    before = ask()
    child = Child(lambda: [outcome(ask), outcome(raw.close)], "sys.exit")
    facts = {"before": before, "child": child.reports[0], "code": child.code, "after": outcome(ask)}
    raw.close()
    return facts


def pooled(deed: str, ending: str) -> Any:
    """Idle connections of the parent's pool, and connections that it has lent to two threads."""
    from django.db import connection

    def idle() -> list[Any]:
        return [outcome(lambda raw=raw: raw.execute("SELECT pg_backend_pid()").fetchone()[0])
                for raw in list(connection.pool._pool)]  # fmt: skip

    def work() -> Any:
        shared = sorted(sockets() & parents)
        if deed == "close_pool":
            connection.close_pool()
        own = session()
        connection.close()
        connection.close_pool()
        return [own, shared]

    with ThreadPoolExecutor(1) as thread:
        session()
        connection.pool.wait()
        lent = [session(), thread.submit(session).result()]
        at_rest, parents = idle(), sockets()
        child = Child(work, ending)
        own, shared = child.reports[0]
        facts = {
            "child": own, "shared": shared, "code": child.code, "before": [lent, at_rest],
            "after": [[outcome(session), outcome(thread.submit(session).result)], idle()],
        }  # fmt: skip
        thread.submit(close).result()
    return facts


def inside_a_unit_of_work(ending: str, asks: bool) -> Any:
    """A fork inside ``with fresh_connections``: what the child does in the block and at its end."""
    from daemonkit import fresh_connections

    def work() -> Any:
        if not asks:
            return []
        own = [session(), session()]
        with fresh_connections:
            return [*own, session()]

    before = session()
    try:
        with fresh_connections:
            child = Child(work, ending)
            if not Child.here:
                reports = child.reports
    finally:
        if Child.here:
            with fresh_connections:
                Child.here.report(outcome(session))
            if ending == "goes on":
                os._exit(0)
    return {"before": before, "reports": reports, "code": child.code, "after": outcome(session)}


def work_of_a_pool(_: int) -> list[int]:
    """Wait until both of the pool's processes are here, so that each does some of the work."""
    both_are_here.wait(60)
    return [os.getpid(), session()]


def set_up_a_process(barrier: Barrier) -> None:
    global both_are_here
    both_are_here = barrier
    from django.conf import settings

    if not settings.configured:
        set_up()


def process_pool(method: str) -> Any:
    before = session()
    context = multiprocessing.get_context(method)
    with context.Pool(2, set_up_a_process, (context.Barrier(2),)) as pool:
        rows = pool.map(work_of_a_pool, range(6), chunksize=1)
        pool.close()
        pool.join()
    process = context.Process(target=session)
    if method == "fork":
        process.start()
        process.join()
    return {"before": before, "rows": rows, "after": outcome(session), "code": process.exitcode}


def ended(by: str) -> Any:
    """A session whose process is killed, closes it or executes another program, while its children
    live on."""

    def work() -> None:
        before = session()
        grandchild = Child(lambda: time.sleep(30)) if "executes" not in by else None
        assert Child.here is not None
        Child.here.report([before, grandchild.pid if grandchild else os.getpid()])
        if grandchild is None:
            os.execvp("sleep", ["sleep", "30"])
        os.kill(os.getpid(), signal.SIGKILL) if by == "is killed" else close()
        time.sleep(30)

    child = Child(work)
    with os.fdopen(child.reader) as lines:
        before, other = json.loads(lines.readline())
    return {"session": before, "pids": [child.pid, other]}


def reused_descriptor(path: str) -> Any:
    """The parent has closed a connection, and a file now has its descriptor."""
    from django.db import connection

    session()
    raw = connection.connection
    descriptor = raw._sock.fileno() if hasattr(raw, "_sock") else raw.fileno()
    close()
    others = [os.open(path, os.O_RDONLY)]
    while descriptor not in others:  # a pool keeps the connection open, and the number with it
        if others[-1] > descriptor:
            break
        others.append(os.open(path, os.O_RDONLY))
    child = Child(lambda: os.pread(others[-1], 100, 0).decode(), "sys.exit")
    facts = {"read": child.reports[0], "reused": descriptor in others, "raw": type(raw).__name__}
    for other in others:
        os.close(other)
    return facts


def installed_late() -> Any:
    """Connections of two threads that were opened before the guard was installed, three times."""
    from daemonkit.connections import fork_guard, inherited

    times = []

    class Counted(inherited.Inherited):
        def disown(self) -> None:
            times.append(1)
            super().disown()

    inherited.Inherited = Counted  # type: ignore[misc]
    with ThreadPoolExecutor(1) as thread:
        befores = [session(), thread.submit(session).result()]
        for _ in range(3):
            fork_guard.install()

        def work() -> Any:
            gc.collect()
            return [session(), len(times)]

        child = Child(work, "sys.exit")
        reports = child.reports
        facts = {"befores": befores, "child": reports[0], "code": child.code}
        facts["afters"] = [outcome(session), outcome(thread.submit(session).result)]
        thread.submit(close).result()
    return facts


def signalled_at_birth() -> Any:
    """A child gets SIGTERM before any of our hooks has run. Its parent must not stop."""
    from daemonkit.process.signal_handlers import on_signals

    with on_signals() as watcher:
        child = Child(lambda: "lives", "os._exit")
        time.sleep(0.1)
        return {"reports": child.reports, "code": child.code, "asked": watcher.stop.asked}


def under_the_watcher(deed: str) -> Any:
    """A child of a process that has daemonkit's handlers."""
    from daemonkit.process.signal_handlers import on_signals

    found = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)]
    try:
        with on_signals() as watcher:

            def work() -> Any:
                if deed == "asks itself":
                    watcher.stop.ask("the child's own reason")
                    return watcher.stop.wait(0)
                same = [signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)] == found
                assert Child.here is not None
                Child.here.report([same, signal.set_wakeup_fd(-1)])
                os.kill(os.getpid(), signal.SIGTERM)
                return "lives"

            child = Child(work, "sys.exit")
            reports = child.reports
            goes_on = watcher.stop.wait(0.1)
            code = child.code
            os.kill(os.getpid(), signal.SIGTERM)
            stops = not watcher.stop.wait(5)
    finally:
        if Child.here:
            Child.here.report("left")
    return {"reports": reports, "code": code, "goes_on": goes_on, "stops": stops}


def while_the_watcher_speaks() -> Any:
    """A fork while the watcher, which was asked to stop, is writing a log line."""
    from daemonkit.process.signal_handlers import on_signals
    from daemonkit.process.watched import Unattended

    log = threading.Lock()

    class Watched(Unattended):
        def on_asked(self, reason: str) -> None:
            with log:
                time.sleep(0.3)

    with on_signals(Watched()) as watcher:
        os.kill(os.getpid(), signal.SIGTERM)
        while not log.locked():
            time.sleep(0.001)
        child = Child(lambda: log.acquire(timeout=2))
        return {"reports": child.reports, "asked": watcher.stop.asked}


# SQLite


def another_process(path: str, sql: str) -> str:
    """The answer that an unrelated process gets from the same file."""
    script = f"import sqlite3; c = sqlite3.connect({path!r}, timeout=0, isolation_level=None)\n"
    script += f"try: print(c.execute({sql!r}).fetchall())\nexcept Exception as e: print(e)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    return done.stdout.strip() + done.stderr


def start_anew(mode: str) -> None:
    query(f"PRAGMA journal_mode={mode}")
    query("DELETE FROM entry")


def sqlite_locked(path: str, ending: str, asks: bool) -> Any:
    """The parent has written in a transaction, and has not committed."""
    from django.db import transaction

    start_anew("delete")
    try:
        with transaction.atomic():
            for number in range(200):
                note("parent's " * 20 + str(number))
            child = Child(lambda: outcome(lambda: note("child")) if asks else None, ending)
            if not Child.here:
                reports, code = child.reports, child.code
                meanwhile = another_process(path, "INSERT INTO entry (note) VALUES ('another')")
    finally:
        if Child.here and ending == "goes on":
            os._exit(0)
    return {
        "reports": reports, "code": code, "meanwhile": meanwhile,
        "rows": another_process(path, "SELECT COUNT(*) FROM entry"),
        "integrity": another_process(path, "PRAGMA integrity_check"),
    }  # fmt: skip


def sqlite_idle(path: str, mode: str, reading: bool) -> Any:
    """The parent's connection is open, perhaps with a read in progress, and is closed while the
    child's is open. With a WAL, later writes of the child must not be lost."""
    from django.db import connection

    start_anew(mode)
    note("parent")
    note("parent")
    reader, writer = os.pipe()
    cursor = connection.connection.execute("SELECT note FROM entry") if reading else None
    if cursor is not None:
        cursor.fetchone()

    def work() -> Any:
        count = query("SELECT COUNT(*) FROM entry")
        assert Child.here is not None
        Child.here.report(count)
        os.close(writer)
        os.read(reader, 1)
        return outcome(lambda: note("child"))

    child = Child(work, "sys.exit")
    time.sleep(0.1)
    still = len(cursor.fetchall()) if cursor is not None else 0
    connection.close()
    os.close(writer)
    return {
        "reports": child.reports, "code": child.code, "still": still,
        "rows": another_process(path, "SELECT note FROM entry ORDER BY id"),
    }  # fmt: skip


def sqlite_of_threads(path: str, mode: str) -> Any:
    """Another thread of the parent has the file open."""
    start_anew(mode)
    close()
    with ThreadPoolExecutor(1) as thread:
        thread.submit(note, "parent").result()
        child = Child(lambda: outcome(lambda: note("child")), "sys.exit")
        facts = {"child": child.reports[0], "code": child.code}
        thread.submit(close).result()
    return {**facts, "rows": another_process(path, "SELECT note FROM entry ORDER BY id")}


def sqlite_in_memory() -> Any:
    query("CREATE TABLE entry (note)")
    note("parent")
    child = Child(lambda: [note("child"), query("SELECT COUNT(*) FROM entry")][1], "sys.exit")
    return {"child": child.reports[0], "code": child.code,
            "rows": query("SELECT COUNT(*) FROM entry")}  # fmt: skip


if os.environ.get("FORKS_SIGNAL_AT_BIRTH"):  # before daemonkit is there to register its hooks
    os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), signal.SIGTERM))

if __name__ == "__main__":
    main()
