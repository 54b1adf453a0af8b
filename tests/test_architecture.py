"""The architecture, as the imports have it: they go one way, and along these arrows only."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

import daemonkit
from lab.processes import ROOT, child_environment

PACKAGE = ROOT / "daemonkit"

# Each file, and what it may import of ours. An arrow points to a line above its own: so there are
# no circles. What stands under `if TYPE_CHECKING:` is no arrow.
ARROWS = """
    # leaves: they know nothing of ours
    exits
    clock
    errors
    connections.link
    signals
    conf
    models
    formats
    process.memory
    process.stopping
    schedules.value
    workers.labels

    # what a tick came to, and when the next one is due
    iteration -> clock errors
    schedules.schedule -> clock iteration schedules.value
    schedules.backoff -> clock errors iteration schedules.schedule schedules.value

    # connections know nothing of signals, nor signals of connections; a fork minds both
    connections.thread -> connections.link errors
    connections.units -> connections.thread
    connections.pool -> connections.units
    process.watcher -> exits process.stopping
    process.signal_handlers -> exits process.stopping process.watcher
    connections.fork_guard -> connections.link process.signal_handlers
    process.reexec -> errors exits process.watcher

    # what somebody said
    jobs.job -> clock exits iteration schedules.schedule schedules.value
    settings.parsing -> exits process.memory schedules.schedule
    settings.schedule -> clock iteration jobs.job schedules.schedule settings.parsing
    settings.options -> exits formats
    process.exit_message -> formats
    leading.fencing -> conf models
    leading.lease -> leading.fencing
    settings.settings -> clock jobs.job leading.lease schedules.schedule settings.parsing
    settings.settings -> settings.schedule

    # a life brings them together
    listeners.log -> clock errors formats iteration schedules.schedule signals
    life -> clock connections.thread connections.units errors exits iteration listeners.log
    life -> process.memory process.reexec process.signal_handlers process.stopping
    life -> schedules.backoff settings.settings signals

    # jobs: a loop of another kind
    jobs.ledger -> conf connections.pool connections.units errors models schedules.backoff
    jobs.turns -> clock iteration jobs.job life listeners.log process.stopping schedules.schedule
    jobs.scheduler -> clock conf connections.pool connections.units errors iteration jobs.ledger
    jobs.scheduler -> jobs.turns life models schedules.backoff signals

    # workers: one parent of several, which knows lives as what its children call
    workers.places -> clock exits process.watcher settings.settings
    workers.worker -> clock errors exits iteration process.reexec process.signal_handlers
    workers.worker -> process.watcher signals workers.labels
    workers.supervisor -> clock exits listeners.log process.reexec process.signal_handlers
    workers.supervisor -> process.stopping process.watcher signals workers.places workers.worker

    # leading: one of many
    connections.private_session -> connections.link
    leading.leader -> conf connections.private_session connections.thread errors exits
    leading.leader -> leading.fencing leading.lease models signals

    # what a user writes
    command -> connections.units iteration jobs.job jobs.scheduler leading.fencing leading.leader
    command -> life listeners.log process.exit_message process.signal_handlers schedules.backoff
    command -> schedules.schedule settings.options settings.parsing settings.settings signals
    command -> workers.places workers.supervisor

    # above it
    discovery -> command errors settings.parsing
    workers.several -> command discovery listeners.log settings.parsing workers.places
    workers.several -> workers.supervisor
    deploying.units -> process.reexec
    deploying.installing -> deploying.units exits
    deploying.deployment -> deploying.installing deploying.units discovery settings.parsing
    deploying.deployment -> settings.settings
    checks -> connections.link connections.units errors
    testing.clock -> clock
    testing -> testing.clock
"""

LEAVES = {"exits", "clock", "errors", "connections.link", "signals", "conf", "models", "formats"}
LEAVES |= {"process.memory", "process.stopping", "schedules.value", "workers.labels"}
LISTENERS = ("listeners.systemd", "listeners.status_line", "status")  # hear the signals
DOORS = ("management",)  # options in, core called, result printed: they may import anything
WIRING = ("apps",)  # and so may what wires at start-up
CONTENTS = ("__init__", "forking")  # and the tables of contents

FOREIGN = {
    "apscheduler": "jobs.scheduler",
    "prometheus_client": "status.http",
    "MySQLdb": "nothing: daemonkit is installed without a driver",
    "pymysql": "nothing: daemonkit is installed without a driver",
    "psycopg": "nothing: daemonkit is installed without a driver",
    "psycopg_pool": "nothing: daemonkit is installed without a driver",
}
"""Libraries that not every process loads, and the one file that may import each at its top."""


def arrows() -> dict[str, set[str]]:
    """What the text above says, in its order."""
    drawn: dict[str, set[str]] = {}
    for line in ARROWS.splitlines():
        name, _, targets = line.partition("#")[0].partition("->")
        if name.strip():
            drawn.setdefault(name.strip(), set()).update(targets.split())
    return drawn


@functools.cache
def modules() -> dict[str, Path]:
    """Our files by their dotted names below ``daemonkit``; a package by its own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if "migrations" not in parts and path.read_text().strip():
            name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
            found[name] = path
    return found


def imported(path: Path, *, at_the_top: bool = False) -> Iterator[str]:
    """The dotted names that a file imports, those of type checkers aside."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}, line {node.lineno}: write the import in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            pending += node.orelse
        elif not (at_the_top and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            pending += ast.iter_child_nodes(node)


def ours(path: Path) -> set[str]:
    """The files of ours that a file imports."""
    known = modules()
    targets = set()
    for name in imported(path):
        package, _, rest = name.partition(".")
        if package == "daemonkit":
            whole, parent = rest, rest.rpartition(".")[0]
            targets.add(whole if whole in known else parent or "__init__")
    return targets


def is_one_of(name: str, places: tuple[str, ...]) -> bool:
    return name in places or name.partition(".")[0] in places


# One way


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_file_imports_along_its_arrows_only(name: str) -> None:
    targets = ours(modules()[name])
    if is_one_of(name, DOORS + WIRING + CONTENTS):
        return
    if is_one_of(name, LISTENERS):
        beside = {target for target in targets if is_one_of(target, LISTENERS)}
        assert targets <= LEAVES | {"iteration", "process.reexec"} | beside
        return
    assert name in arrows(), f"{name} has no place in the architecture yet: draw it in ARROWS"
    assert targets <= arrows()[name], f"{name} imports what it should not know of"


def test_no_arrow_is_drawn_that_nobody_goes() -> None:
    unused = {
        f"{name} -> {target}"
        for name, targets in arrows().items()
        for target in targets - ours(modules()[name])
    }
    assert not unused


def test_arrows_point_to_what_stands_above_so_that_there_are_no_circles() -> None:
    above: set[str] = set()
    for name, targets in arrows().items():
        assert targets <= above, f"{name} points downwards"
        above.add(name)
    assert {name for name, targets in arrows().items() if not targets} == LEAVES


def test_nothing_imports_the_doors_the_wiring_or_the_table_of_contents() -> None:
    forbidden = DOORS + WIRING + CONTENTS
    for name, path in modules().items():
        assert not {target for target in ours(path) if is_one_of(target, forbidden)}, name


def test_libraries_that_not_every_process_needs_are_imported_at_one_place() -> None:
    for name, path in modules().items():
        for foreign in {each.partition(".")[0] for each in imported(path, at_the_top=True)}:
            assert FOREIGN.get(foreign, name) == name, f"{name} imports {foreign} at its top"


# Importing starts nothing


def python(script: str, **env: str) -> None:
    """Run a script in a fresh interpreter; its assertions are the test's."""
    ran = subprocess.run(
        [sys.executable, "-c", dedent(script)],
        env=child_environment(env),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_importing_daemonkit_starts_nothing_opens_nothing_and_reads_no_setting() -> None:
    python(
        """
        import os, signal, sys, threading

        def state():
            signals = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
            return signals, sorted(os.listdir("/dev/fd")), threading.enumerate()

        before = state()
        import daemonkit
        assert state() == before
        assert signal.set_wakeup_fd(-1) == -1

        from django.apps import apps
        from django.conf import settings
        assert not settings.configured
        assert not apps.ready
        assert not {"apscheduler", "prometheus_client"} & sys.modules.keys()
        """
    )


def test_a_plain_loop_loads_what_it_needs_and_nothing_that_others_need() -> None:
    python(
        """
        import sys
        import django
        from django.core.management import call_command

        sys.path.insert(0, "sample_site")
        django.setup()
        call_command("run_daemon", "time.time", "--every", "1ms", "--max-ticks", "2")
        unneeded = {"apscheduler", "prometheus_client", "MySQLdb", "psycopg", "psycopg_pool"}
        unneeded |= {"cronsim", "daemonkit.checks", "daemonkit.jobs.scheduler"}
        unneeded |= {"daemonkit.leading.lease", "daemonkit.leading.leader"}
        unneeded |= {"daemonkit.listeners.systemd", "daemonkit.workers.supervisor"}
        assert not unneeded & sys.modules.keys(), unneeded & sys.modules.keys()
        """,
        DJANGO_SETTINGS_MODULE="config.settings",
        DATABASE_URL="",
        PYTHONPATH=f"{ROOT}:{ROOT / 'sample_site'}",
    )


def test_the_table_of_contents_names_what_a_user_may_import_and_nothing_else() -> None:
    assert sorted(daemonkit.__all__) == list(daemonkit.__all__)
    for name in daemonkit.__all__:
        assert getattr(daemonkit, name).__module__.startswith("daemonkit."), name
    statements = ast.parse((PACKAGE / "__init__.py").read_text()).body
    assert all(isinstance(each, ast.ImportFrom | ast.Assign | ast.Expr) for each in statements)
