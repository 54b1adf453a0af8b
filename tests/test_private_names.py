"""The private and undocumented names of Django and drivers that we use: each means what we think.

The list is the table in docs/architecture.md.
"""

from __future__ import annotations

import argparse
import ast
import contextvars
import multiprocessing.process
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest
from apscheduler import events
from apscheduler.schedulers.background import BackgroundScheduler
from asgiref import sync
from django.core.management import BaseCommand, CommandError
from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper

from lab.processes import ROOT
from lab.servers import Server
from tests.kit.aliases import MakeAlias
from tests.kit.sessions import run, session

PACKAGE = ROOT / "daemonkit"
PAGE = ROOT / "docs" / "architecture.md"
SECTION = "## Private and undocumented names"


def listed() -> set[str]:
    section = PAGE.read_text().partition(SECTION)[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


# What the code uses


def attributes(folder: Path, *, private: bool) -> set[str]:
    """The attributes that the code in a folder asks of anything but ``self``."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls"):
                found.add(node.attr)
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
                found |= {arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant)}
    return {name for name in found if name.startswith("_") == private}


DOCUMENTED_BY_PYTHON = {"_getframe", "_current_frames", "_exit", "_replace"}
DOCUMENTED_BY_DJANGO = {"_meta", "_base_manager"}
DOCUMENTED = {"alias", "vendor", "settings_dict", "connection", "cursor", "close", "commit"}
DOCUMENTED |= {"rollback", "get_autocommit", "introspection"}


def our_names() -> set[str]:
    """Names that our own classes define. What has such a name may be ours."""
    names = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self":
                names.add(node.attr)
    return names


def test_the_code_uses_no_private_name_that_is_not_in_the_list() -> None:
    used = {name for name in attributes(PACKAGE, private=True) if not name.startswith("__")}
    known = {name.rpartition(".")[2] for name in listed()}
    assert used - our_names() - DOCUMENTED_BY_PYTHON - DOCUMENTED_BY_DJANGO <= known


def test_the_code_uses_no_undocumented_name_of_a_wrapper_that_is_not_in_the_list() -> None:
    wrapper = connections[DEFAULT_DB_ALIAS]
    used = attributes(PACKAGE / "connections", private=False) & {*dir(wrapper), *vars(wrapper)}
    known = {name.rpartition(".")[2] for name in listed()}
    assert used - our_names() - DOCUMENTED <= known


# What they mean


@pytest.fixture
def wrapper(alias: MakeAlias) -> Any:
    """A wrapper whose connection is open, and of which daemonkit has no link."""
    found: Any = connections[alias(None, CONN_MAX_AGE=300)].copy()
    found.ensure_connection()
    yield found
    found.close()


def in_every_state(wrapper: Any, name: str) -> list[Any]:
    """The value when nothing is open, in ``atomic()`` and in a savepoint."""
    connections[wrapper.alias] = wrapper
    seen = [read(wrapper, name)]
    with transaction.atomic(wrapper.alias):
        transaction.on_commit(lambda: None, using=wrapper.alias)
        seen.append(read(wrapper, name))
        with transaction.atomic(wrapper.alias):
            seen.append(read(wrapper, name))
    return seen


def read(wrapper: Any, name: str) -> Any:
    value = getattr(wrapper, name)
    return len(value) if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("autocommit", [True, False, False]),
        ("in_atomic_block", [False, True, True]),
        ("savepoint_ids", [0, 0, 1]),
        ("atomic_blocks", [0, 1, 2]),
        ("needs_rollback", [False, False, False]),
        ("run_on_commit", [0, 1, 1]),
    ],
)
def test_what_a_wrapper_says_of_its_transaction(wrapper: Any, name: str, values: list[Any]) -> None:
    assert in_every_state(wrapper, name) == values


def test_a_wrapper_notes_errors_and_that_it_was_closed_in_a_transaction(wrapper: Any) -> None:
    connections[wrapper.alias] = wrapper
    assert (wrapper.errors_occurred, wrapper.rollback_exc) == (False, None)
    assert (wrapper.closed_in_transaction, wrapper.needs_rollback) == (False, False)
    with pytest.raises(wrapper.Database.Error):
        wrapper.connection.execute("nonsense")
    with pytest.raises(KeyError), transaction.atomic(wrapper.alias):
        with pytest.raises(Exception, match="nonsense"):
            run(wrapper.alias, "nonsense")
        assert wrapper.errors_occurred
        wrapper.close()
        assert (wrapper.closed_in_transaction, wrapper.needs_rollback) == (True, True)
        raise KeyError
    assert wrapper.run_commit_hooks_on_set_autocommit_on is False


def test_a_wrapper_validates_its_connection_by_is_usable_when_that_is_due(wrapper: Any) -> None:
    asked: list[bool] = []
    wrapper.is_usable = lambda: asked.append(True) or True
    wrapper.health_check_enabled, wrapper.health_check_done = True, False
    wrapper.cursor().close()
    assert (len(asked), wrapper.health_check_done) == (1, True)
    wrapper.cursor().close()
    wrapper.health_check_enabled, wrapper.health_check_done = False, False
    wrapper.cursor().close()
    assert len(asked) == 1


def test_a_wrapper_closes_itself_when_close_at_has_passed(wrapper: Any) -> None:
    assert wrapper.close_at > 0
    wrapper.close_if_unusable_or_obsolete()
    assert wrapper.connection is not None
    wrapper.close_at = 0.0
    wrapper.close_if_unusable_or_obsolete()
    assert wrapper.connection is None
    wrapper.settings_dict["CONN_MAX_AGE"] = None
    wrapper.connect()
    assert wrapper.close_at is None


def test_execute_wrappers_is_the_list_that_execute_wrapper_adds_to(wrapper: Any) -> None:
    before = list(wrapper.execute_wrappers)
    with wrapper.execute_wrapper(print):
        assert wrapper.execute_wrappers == [*before, print]


def test_errors_pass_wrap_database_errors_of_the_wrapper(wrapper: Any) -> None:
    original = wrapper.wrap_database_errors
    seen: list[Any] = []

    class Noting:
        def __enter__(self) -> None:
            original.__enter__()

        def __exit__(self, *details: Any) -> None:
            seen.append(details[0])
            original.__exit__(*details)

        def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
            return function

    vars(wrapper)["wrap_database_errors"] = Noting()
    with pytest.raises(Exception, match="nonsense"), wrapper.cursor() as cursor:
        cursor.execute("nonsense")
    assert any(kind is not None for kind in seen)


def test_a_wrapper_knows_its_thread_its_log_and_whether_it_is_in_memory(wrapper: Any) -> None:
    assert wrapper._thread_ident == threading.get_ident()
    assert wrapper.allow_thread_sharing is False
    assert not wrapper.is_in_memory_db()
    wrapper.force_debug_cursor = True
    with wrapper.temporary_connection() as cursor:
        cursor.execute("SELECT 1")
    assert len(wrapper.queries_log) == 1
    wrapper.queries_log.clear()
    wrapper.set_autocommit(False)
    wrapper.set_autocommit(True)


def test_the_functions_that_we_wrap_are_looked_up_on_their_classes() -> None:
    assert "connect" in vars(BaseDatabaseWrapper)
    assert "callproc" in vars(CursorWrapper)
    with connection_created.lock:
        assert connection_created.receivers


def test_psycopgs_pool_is_known_by_what_it_has_lent(postgres: Server, alias: MakeAlias) -> None:
    pool_options = {"min_size": 1, "max_size": 1}
    name = alias(postgres, OPTIONS={"pool": pool_options}, CONN_HEALTH_CHECKS=True)
    wrapper: Any = connections[name]
    pool = wrapper.pool
    assert type(wrapper)._connection_pools[name] is pool
    assert pool._check == pool.check_connection
    assert pool._closed
    session(name)
    raw = wrapper.connection
    assert raw._pool is pool
    assert not pool._closed
    assert list(pool._pool) == []
    wrapper.close()
    assert list(pool._pool) == [raw]
    assert raw._pool is None


def test_pymysql_has_its_socket_in_sock(mariadb: Server) -> None:
    connection = mariadb.connect(driver="pymysql", socket=False)
    assert isinstance(connection, pymysql.connections.Connection)
    assert connection._sock.fileno() > 0
    connection.close()


def test_a_command_from_the_command_line_exits_where_another_raises() -> None:
    command: Any = BaseCommand()
    with pytest.raises(CommandError, match="--nonsense"):
        command.create_parser("manage.py", "probe").parse_args(["--nonsense"])
    command._called_from_command_line = True
    with pytest.raises(SystemExit):
        command.create_parser("manage.py", "probe").parse_args(["--nonsense"])


def test_a_parser_lists_its_options_in_actions() -> None:
    parser: Any = argparse.ArgumentParser(add_help=False)
    action = parser.add_argument("--probe")
    assert parser._actions == [action]
    assert action.option_strings == ["--probe"]


def test_asgiref_restores_the_context_of_another_thread() -> None:
    variable = contextvars.ContextVar("variable", default="ours")
    theirs = contextvars.copy_context()
    theirs.run(variable.set, "theirs")

    def restored() -> str:
        sync._restore_context(theirs)
        return variable.get()

    assert contextvars.copy_context().run(restored) == "theirs"


def test_python_waits_for_threads_and_runs_the_atexit_functions_when_it_is_told_to() -> None:
    """In a process of its own: both end what this one still needs."""
    code = """
import atexit, threading, time
atexit.register(print, "atexit")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
threading._shutdown()
atexit._run_exitfuncs()
print("end", flush=True)
import os
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.returncode) == (["thread", "atexit", "end"], 0), done.stderr


def test_finalizers_and_children_are_in_their_registries() -> None:
    registry: Any = weakref.finalize._registry  # type: ignore[attr-defined]
    finalizer = weakref.finalize(threading.current_thread(), print)
    assert finalizer in registry
    assert finalizer.atexit
    finalizer.detach()
    child = multiprocessing.get_context("spawn").Process(target=print)
    child.start()
    assert child in multiprocessing.process._children  # type: ignore[attr-defined]
    child.join()


def test_the_private_names_of_apscheduler_mean_what_added_jobs_need() -> None:
    scheduler = BackgroundScheduler()
    heard: list[Any] = []
    scheduler.add_listener(heard.append, events.EVENT_JOB_ADDED)
    assert [callback for callback, _ in scheduler._listeners] == [heard.append]
    scheduler._dispatch_event(events.JobEvent(events.EVENT_JOB_ADDED, "job", "default"))
    assert [event.job_id for event in heard] == ["job"]
    trigger = scheduler._create_trigger("interval", {"seconds": 5})
    assert trigger.interval_length == 5
    assert {"cron", "date", "interval"} <= set(scheduler._trigger_plugins)
    with scheduler._jobstores_lock, scheduler._jobstores_lock:  # it may be taken again
        pass
