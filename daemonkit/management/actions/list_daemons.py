"""``daemons list``: the daemons of the project."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from daemonkit.discovery import Found, find_daemons
from daemonkit.jobs.schedule import AddedToo, Jobs, jobs_of
from daemonkit.management.actions.action import Action, Request


class ListDaemons(Action):
    name = "list"
    help = "the daemons of the project (the default)"
    has_format = True

    def run(self, request: Request) -> None:
        found = list(find_daemons())
        if request.wants_json:
            request.print_json([_as_json(each) for each in found])
            return
        request.print_table([_as_row(each) for each in found])
        if not found:
            request.print("No daemons: no command subclasses daemonkit.BaseDaemonCommand.")


def _as_row(found: Found) -> tuple[str, str, str, str]:
    schedule, trouble = _schedule(found)
    if found.daemon is None or trouble:
        return found.name, found.app, "", trouble
    return found.name, found.app, schedule or "-", found.daemon.help


def _as_json(found: Found) -> dict[str, Any]:
    daemon, (schedule, trouble) = found.daemon, _schedule(found)
    return {
        "name": found.name,
        "app": found.app,
        "schedule": schedule or None,
        "help": None if daemon is None else daemon.help,
        "error": trouble or None,
    }


def _schedule(found: Found) -> tuple[str, str]:
    """Return a daemon's schedule, and what is wrong with it. An error must not stop the list."""
    if found.daemon is None:
        return "", found.trouble
    try:
        jobs = jobs_of(type(found.daemon))
    except CommandError as error:
        return "", str(error)
    if found.daemon.has_serve:
        return "serves", ""
    if hasattr(found.daemon, "add_jobs"):
        return str(AddedToo(jobs)), ""
    return str(Jobs(jobs)) if jobs else str(found.daemon.schedule or ""), ""
