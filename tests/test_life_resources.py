"""``@resource`` and foreign commands in real processes."""

from __future__ import annotations

import re

from tests.kit.projects import Project


def test_each_worker_process_has_a_resource_of_its_own(project: Project) -> None:
    name = project.command(
        "keeping",
        """
        import os

        from daemonkit import resource


        class Command(BaseDaemonCommand):
            schedule = Every(seconds=0.1)
            per_worker = True

            @resource
            def client(self):
                print(f"opened in {os.getpid()}.", flush=True)
                yield os.getpid()
                print(f"closed in {os.getpid()}.", flush=True)

            def tick(self):
                print(f"{os.getpid()} uses that of {self.client}.", flush=True)
        """,
    )
    daemon = project.manage("run_daemon", name, "--workers", "2")
    daemon.wait_for("opened in", count=2, within=30)
    daemon.wait_for("uses that of", count=10, within=30)
    assert daemon.stop(within=20) == 0, daemon.output
    opened = re.findall(r"opened in (\d+)\.", daemon.output)
    assert len(opened) == len(set(opened)) == 2
    assert sorted(re.findall(r"closed in (\d+)\.", daemon.output)) == sorted(opened)
    uses = re.findall(r"(\d+) uses that of (\d+)\.", daemon.output)
    assert uses
    assert all(worker == of for worker, of in uses)


def test_a_foreign_command_that_hangs_in_its_first_tick_is_told_to_need_no_schedule(
    project: Project,
) -> None:
    name = project.command(
        "hang",
        """
        import time

        from django.core.management.base import BaseCommand


        class Command(BaseCommand):
            def handle(self, **options):
                time.sleep(3600)
        """,
    )
    daemon = project.manage("run_daemon", name, "--every", "1h", "--tick-timeout", "1s")
    said = daemon.wait_for("has not returned from its first tick in 1 s", within=30)
    assert "it needs no schedule: have systemd run it, as docs/deploy.md shows" in said
