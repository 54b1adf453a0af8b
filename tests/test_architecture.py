"""The architecture: imports go one way, as the layers below allow."""

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

# A file may import from the lines above its own, and from its own package. Names on one line do
# not import each other. A name is a package or a file; the longest one that matches counts. All
# imports count, also those inside functions and those for type checkers.
LAYERS = """
    problem
    error_codes
    error_meanings
    exits  clock  errors  conf  formats  models  signals
    iteration  pending_migrations
    schedules  process
    connections
    daemon
    event_loop
    jobs.job
    jobs.schedule
    leading  waking
    settings
    listeners
    pace  verdict  watched
    skipping
    resources
    opening  outcomes  replacement
    work_limits
    status
    life
    servers
    jobs
    workers
    development  parts
    starting
    command
    pollers  foreign
    discovery
    checks  deploying  testing  workers.several
"""

STRANGERS = {
    "connections": {"signals", "iteration", "schedules"},
    "connections.thread": {"process"},
    "connections.units": {"process"},
    "schedules": {"signals"},
    "process": {"signals", "iteration", "clock"},
    "event_loop": {"signals", "iteration", "clock", "errors"},
    "verdict": {"signals", "process.stopping", "connections", "leading", "settings"},
    "pace": {"signals", "process", "connections", "leading", "settings"},
}
"""What a package must not import, even though its layer would allow it."""

DOORS = ("management",)  # options in, core called, result printed: they may import anything
WIRING = ("apps",)  # so may the wiring at start-up
CONTENTS = ("__init__", "forking")  # so may the tables of contents

DRIVERS: set[str] = set()
"""No file: daemonkit is installed without a driver."""

FOREIGN = {
    "apscheduler": {
        "jobs.added_events",
        "jobs.added_jobs",
        "jobs.added_refusals",
        "jobs.added_store",
        "jobs.added_trigger",
    },
    "prometheus_client": {"status.http"},
    "MySQLdb": DRIVERS,
    "pymysql": DRIVERS,
    "psycopg": DRIVERS,
    "psycopg_pool": DRIVERS,
}
"""Libraries that not every process loads, and the files that may import each at their tops."""


def layers() -> dict[str, int]:
    """The names in the text above, and on which line each stands."""
    lines = [line.split() for line in LAYERS.splitlines() if line.strip()]
    return {name: number for number, names in enumerate(lines) for name in names}


def place(name: str) -> str:
    """The longest name in the text above that a file belongs to."""
    known = layers()
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


@functools.cache
def modules() -> dict[str, Path]:
    """Our files by their dotted names below ``daemonkit``; an ``__init__.py`` by its package's
    name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if "migrations" not in parts and path.read_text().strip():
            name = ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)
            found[name] = path
    return found


def imported(path: Path, *, at_the_top: bool = False) -> Iterator[str]:
    """The dotted names that a file imports: everywhere, or only when it is loaded."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}, line {node.lineno}: write the import in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif at_the_top and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
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


def is_within(name: str, place: str) -> bool:
    return f"{name}.".startswith(f"{place}.")


def is_one_of(name: str, places: tuple[str, ...]) -> bool:
    return any(is_within(name, place) for place in places)


# One way


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_file_imports_only_from_the_layers_above_its_own(name: str) -> None:
    if is_one_of(name, DOORS + WIRING + CONTENTS):
        return
    own, height = place(name), layers()
    assert own, f"{name} has no place in the architecture yet: write it into LAYERS"
    for target in ours(modules()[name]):
        theirs = place(target)
        is_below = theirs != own and height.get(theirs, 1000) >= height[own]
        assert not is_below, f"{name} imports {target}, which stands below it or beside it"


@pytest.mark.parametrize("name", sorted(STRANGERS))
def test_a_package_does_not_import_what_is_forbidden_to_it(name: str) -> None:
    for file, path in modules().items():
        if is_within(file, name):
            met = {target for target in ours(path) for each in STRANGERS[name]
                   if is_within(target, each)}  # fmt: skip
            assert not met, f"{file} imports {met}"


def test_there_are_no_circular_imports() -> None:
    ahead = {name: ours(path) for name, path in modules().items()}
    while leaves := [name for name, targets in ahead.items() if not targets & ahead.keys()]:
        for name in leaves:
            del ahead[name]
    assert not ahead, f"a circle among {sorted(ahead)}"


def test_every_name_in_the_layers_is_a_file_or_package() -> None:
    places = {place(name) for name in modules()}
    assert set(layers()) <= places


def test_no_other_file_imports_the_commands_the_wiring_or_the_table_of_contents() -> None:
    for name, path in modules().items():
        forbidden = WIRING + CONTENTS if is_one_of(name, DOORS) else DOORS + WIRING + CONTENTS
        assert not {target for target in ours(path) if is_one_of(target, forbidden)}, name


def test_optional_libraries_are_imported_in_one_file_each() -> None:
    for name, path in modules().items():
        for foreign in {each.partition(".")[0] for each in imported(path, at_the_top=True)}:
            assert name in FOREIGN.get(foreign, {name}), f"{name} imports {foreign} at its top"


# Importing starts nothing


def python(script: str, **env: str) -> None:
    """Run a script with assertions in a fresh interpreter."""
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


def test_a_plain_loop_loads_only_what_it_needs() -> None:
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
        unneeded |= {"daemonkit.event_loop.loop", "daemonkit.status.steering"}
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
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        daemonkit.Nothing  # noqa: B018


def test_the_table_of_contents_is_the_same_for_python_and_mypy() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    for_mypy = next(node for node in tree.body if isinstance(node, ast.If))
    said = {
        alias.name: node.module
        for node in for_mypy.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert said == daemonkit._LAZY


MODULES_OF_A_PLAIN_LOOP = 63
"""Our files that a plain loop may load, without empty ``__init__.py`` files."""

LINES_OF_A_PLAIN_LOOP = 7050
"""Import what only some daemons need inside the function that needs it."""


def test_a_plain_loop_loads_no_more_code_than_its_budget() -> None:
    python(
        f"""
        import sys
        import django
        from django.core.management import call_command

        django.setup()
        call_command("run_daemon", "time.time", "--every", "1ms", "--max-ticks", "2")
        sizes = {{}}
        for name, module in list(sys.modules.items()):
            if f"{{name}}.".startswith("daemonkit."):
                with open(module.__file__) as file:
                    sizes[name] = len(file.readlines())
        sizes = {{name: lines for name, lines in sizes.items() if lines}}
        assert len(sizes) <= {MODULES_OF_A_PLAIN_LOOP}, (len(sizes), sizes)
        assert sum(sizes.values()) <= {LINES_OF_A_PLAIN_LOOP}, (sum(sizes.values()), sizes)
        """,
        DJANGO_SETTINGS_MODULE="config.settings",
        DATABASE_URL="",
        PYTHONPATH=f"{ROOT}:{ROOT / 'sample_site'}",
    )


def test_the_architecture_page_names_every_file_and_package() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    parts = {name.partition(".")[0] for name in modules()} - {"__init__", "apps"}
    packages = {part for part in parts if (PACKAGE / part).is_dir()}
    missing = [part for part in parts - packages if f"`{part}.py`" not in page]
    missing += [part for part in packages if f"`{part}/" not in page]
    assert not missing
