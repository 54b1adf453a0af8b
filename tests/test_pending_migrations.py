"""A daemon waits at its start for the migrations of its own app, and of daemonkit if it is used."""

from __future__ import annotations

import pytest

from daemonkit.testing import NotifySocket
from lab.processes import Daemon
from lab.servers import Server
from lab.waiting import eventually
from tests.kit.projects import Project

DAEMON = """
class Command(BaseDaemonCommand):
    schedule = Every(seconds=0.05)

    def tick(self):
        print("ticked", flush=True)
"""
EMPTY = """
from django.db import migrations


class Migration(migrations.Migration):
    dependencies = {dependencies}
    replaces = {replaces}
"""
STATUS = "waits for migrations: depot.0002_second"
WAITS = f"sorter {STATUS}"


class Depot:
    """A project whose app ``depot`` has migrations and the daemon ``sorter``."""

    def __init__(self, project: Project, url: str | None = None) -> None:
        self.project = project
        self._env: dict[str, str | None] = {"DATABASE_URL": url} if url else {}
        project.module("depot/migrations/__init__.py", "")
        project.command("sorter", DAEMON)
        self.migration("0001_first")

    def migration(self, name: str, after: str = "", replaces: tuple[str, ...] = ()) -> None:
        source = EMPTY.format(
            dependencies=[("depot", after)] if after else [],
            replaces=[("depot", each) for each in replaces],
        )
        self.project.module(f"depot/migrations/{name}.py", source)

    def settings(self, text: str) -> None:
        path = self.project.folder / "depot_settings.py"
        path.write_text(path.read_text() + text + "\n")

    def migrate(self, *arguments: str) -> None:
        done = self.project.manage("migrate", "-v", "0", *arguments, **self._env)
        assert done.wait(60) == 0, done.output

    def run(self, *arguments: str, name: str = "sorter", **env: str) -> Daemon:
        return self.project.manage("run_daemon", name, *arguments, **{**self._env, **env})


@pytest.fixture
def depot(project: Project) -> Depot:
    """With one migration, which is applied, and a second one, which is not. On SQLite."""
    made = Depot(project)
    made.migrate("depot")
    made.migration("0002_second", after="0001_first")
    return made


def ticks_at_once(daemon: Daemon) -> None:
    daemon.wait_for("ticked", within=30)
    assert daemon.stop() == 0
    assert "waits for migrations" not in daemon.output


def test_it_waits_until_they_are_applied(project: Project, server: Server) -> None:
    depot = Depot(project, server.url)
    depot.migrate("depot")
    depot.migration("0002_second", after="0001_first")
    daemon = depot.run()
    daemon.wait_for(WAITS, within=30)
    assert "ticked" not in daemon.so_far
    depot.migrate("depot")
    daemon.wait_for("ticked", within=30)
    assert daemon.stop() == 0
    assert daemon.output.count("waits for migrations") == 1


def test_sigterm_ends_the_wait(depot: Depot) -> None:
    daemon = depot.run()
    daemon.wait_for(WAITS, within=30)
    assert daemon.stop(within=5) == 0
    assert "ticked" not in daemon.output


def test_systemd_is_told_and_does_not_wait(depot: Depot, notify_socket: NotifySocket) -> None:
    daemon = depot.run(NOTIFY_SOCKET=notify_socket.address)
    notify_socket.wait_for("READY=1")
    eventually(lambda: STATUS in notify_socket.statuses(), within=30)
    assert daemon.stop() == 0
    assert "ticked" not in daemon.output


def test_a_supervisor_says_what_its_workers_wait_for(
    depot: Depot, notify_socket: NotifySocket
) -> None:
    depot.project.command("sorter", DAEMON + "\n    workers = 2\n    per_worker = True\n")
    daemon = depot.run(NOTIFY_SOCKET=notify_socket.address)
    eventually(lambda: any(STATUS in each for each in notify_socket.statuses()), within=30)
    depot.migrate("depot")
    daemon.wait_for("ticked", count=2, within=30)
    assert daemon.stop() == 0


def test_a_callable_waits_for_its_app(depot: Depot) -> None:
    depot.project.module("depot/work.py", "def sort():\n    print('ticked', flush=True)")
    daemon = depot.run("--every", "50ms", name="depot.work.sort")
    daemon.wait_for("depot.work.sort waits for migrations: depot.0002_second", within=30)
    assert daemon.stop() == 0


def test_a_daemon_with_jobs_waits_for_daemonkits_tables(depot: Depot) -> None:
    depot.migrate("depot")
    depot.project.command(
        "porter",
        """
        from daemonkit import job


        class Command(BaseDaemonCommand):
            @job(Every(seconds=0.05))
            def carry(self):
                print("ticked", flush=True)
        """,
    )
    daemon = depot.run(name="porter")
    daemon.wait_for("porter waits for migrations: daemonkit.0001_ledger_and_leases", within=30)
    depot.migrate("daemonkit")
    daemon.wait_for("ticked", within=30)
    assert daemon.stop() == 0


# What it does not wait for


@pytest.mark.parametrize("how", ["debug", "attribute", "once"])
def test_it_does_not_wait_where_that_is_turned_off(depot: Depot, how: str) -> None:
    if how == "debug":
        depot.settings("DEBUG = True")
    elif how == "attribute":
        depot.project.command("sorter", DAEMON + "\n    wait_for_migrations = False\n")
    daemon = depot.run(*(["--once"] if how == "once" else []))
    daemon.wait_for("ticked", within=30)
    assert daemon.stop() == 0 if how != "once" else daemon.wait() == 0
    assert "waits for migrations" not in daemon.output


def test_squashed_migrations_whose_parts_are_applied_are_not_pending(depot: Depot) -> None:
    depot.migrate("depot")
    depot.migration("0001_squashed", replaces=("0001_first", "0002_second"))
    ticks_at_once(depot.run())


@pytest.mark.parametrize(
    "setting",
    [
        "MIGRATION_MODULES = {'depot': None}",
        "MIGRATION_MODULES = {'depot': 'depot.nowhere'}",
        "DATABASE_ROUTERS = ['depot.router.Router']",
    ],
)
def test_an_app_that_is_not_migrated_has_none_pending(depot: Depot, setting: str) -> None:
    depot.settings(setting)
    depot.project.module(
        "depot/router.py",
        """
        class Router:
            def allow_migrate(self, db, app_label, **hints):
                return app_label != "depot"
        """,
    )
    ticks_at_once(depot.run())


def test_a_database_that_was_never_migrated_is_not_waited_for(
    project: Project, server: Server
) -> None:
    daemon = Depot(project, server.url).run()
    ticks_at_once(daemon)
    assert "WARNING" not in daemon.output


def test_a_project_without_a_database_is_not_waited_for(depot: Depot) -> None:
    depot.settings("DATABASES = {}")
    ticks_at_once(depot.run())


def test_another_database_that_is_away_is_not_waited_for(depot: Depot) -> None:
    depot.migrate("depot")
    depot.settings(
        "DATABASES['legacy'] = {'ENGINE': 'django.db.backends.postgresql', 'HOST': '127.0.0.1', "
        "'PORT': 1, 'NAME': 'legacy'}"
    )
    ticks_at_once(depot.run())


def test_a_look_without_a_difference_imports_no_migration(depot: Depot) -> None:
    depot.migrate("depot")
    source = DAEMON.replace(
        '"ticked"', '"ticked", [m for m in sys.modules if m.startswith("depot.migr")]'
    )
    depot.project.command("sorter", f"import sys\n\n{source}")
    daemon = depot.run()
    daemon.wait_for("ticked", within=30)
    assert daemon.stop() == 0
    line = next(line for line in daemon.lines if line.startswith("ticked"))
    assert line == "ticked []"
