"""Several daemons in one go: what ``run_daemon a b c`` and ``run_daemon --all`` mean."""

from __future__ import annotations

from collections.abc import Sequence

from django.core.management.base import CommandError

from daemonkit.command import BaseDaemonCommand
from daemonkit.discovery import find_daemon, find_daemons
from daemonkit.exits import Exit
from daemonkit.log import logger, plain_logging
from daemonkit.workers.places import Team
from daemonkit.workers.supervisor import supervise


def all_names() -> list[str]:
    """The names of the project's daemons. Raises ``CommandError`` (exit code 2) if it has none."""
    names = []
    for found in find_daemons():
        if found.daemon is not None:
            names.append(found.name)
        else:
            logger.warning("%s of %s %s; if it is a daemon, it does not run",
                           found.name, found.app, found.trouble)  # fmt: skip
    if not names:
        raise _usage("--all: this project has no daemons; write one, or name a command or callable")
    return names


def supervise_several(prog_name: str, names: Sequence[str], arguments: Sequence[str]) -> None:
    """Run daemons under one supervisor, each in a process or ``workers`` of its own.

    ``arguments`` are options that every daemon has, and hold for all. Raises ``CommandError`` (exit
    code 2) for any other, and for a daemon that is named twice.
    """
    for name in names:
        if list(names).count(name) > 1:
            raise _usage(f"{name} is named twice; several processes of it are --workers 2")
    shared = BaseDaemonCommand()
    # A usage error is then no traceback.
    shared._called_from_command_line = True
    said, unknown = shared.create_parser(prog_name, "run_daemon").parse_known_args(list(arguments))
    if unknown:
        raise _usage(
            f"{' '.join(unknown)}: of several daemons, all have the same options; one with "
            f"arguments of its own is run alone"
        )
    for option in ("once", "reload"):
        if getattr(said, option):
            raise _usage(f"--{option} is for one daemon, in one process")
    teams = [_team(prog_name, name, arguments) for name in names]
    supervise(teams, plain_logging(said.verbosity, said.log_format))


def _team(prog_name: str, name: str, arguments: Sequence[str]) -> Team:
    daemon = find_daemon(name)
    daemon._called_from_command_line = True  # as above
    said = vars(daemon.create_parser(prog_name, name).parse_args(list(arguments)))
    return daemon.as_team(daemon.execute, *said.pop("args", ()), **said)


def _usage(sentence: str) -> CommandError:
    return CommandError(sentence, returncode=Exit.USAGE)
