"""Several daemons under one supervisor: ``run_daemon a b c`` and ``run_daemon --all``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from daemonkit.command import BaseDaemonCommand
from daemonkit.discovery import find_daemon, find_daemons
from daemonkit.listeners.log import logger, plain_logging
from daemonkit.process.origin import is_trial
from daemonkit.settings.parsing import usage
from daemonkit.workers.places import Team
from daemonkit.workers.supervisor import supervise


def supervise_all(prog_name: str, arguments: Sequence[str]) -> None:
    """Run every daemon of the project, as ``supervise_several`` does.

    A command that does not import is only an error in the log, because it may be no daemon. Raises
    ``CommandError`` (exit code 2) if there is no daemon.
    """
    found = list(find_daemons())
    names = [each.name for each in found if each.daemon is not None]
    if not names:
        raise usage("--all: this project has no daemons; write one, or name a command or callable")
    complaints = [
        f"{each.name} of {each.app} {each.trouble}; if it is a daemon, it does not run"
        for each in found
        if each.daemon is None
    ]
    supervise_several(prog_name, names, arguments, complaints)


def supervise_several(
    prog_name: str, names: Sequence[str], arguments: Sequence[str], complaints: Sequence[str] = ()
) -> None:
    """Run daemons under one supervisor, each in a process or ``workers`` of its own.

    ``arguments`` are options that every daemon has, and hold for all. Raises ``CommandError`` (exit
    code 2) for any other, and for a daemon that is named twice.
    """
    for name in names:
        if list(names).count(name) > 1:
            raise usage(f"{name} is named twice; several processes of it are --workers 2")
    shared = BaseDaemonCommand()
    # A usage error is then no traceback.
    shared._called_from_command_line = True
    said, unknown = shared.create_parser(prog_name, "run_daemon").parse_known_args(list(arguments))
    if unknown:
        raise usage(
            f"{' '.join(unknown)}: of several daemons, all have the same options; one with "
            f"arguments of its own is run alone"
        )
    for option in ("once", "reload"):
        if getattr(said, option):
            raise usage(f"--{option} is for one daemon, in one process")
    teams = [_team(prog_name, name, arguments) for name in names]
    if is_trial():
        return  # the daemons have been imported, and their options read
    supervise(teams, _logging(said.verbosity, said.log_format, complaints))


@contextlib.contextmanager
def _logging(verbosity: int, log_format: str | None, complaints: Sequence[str]) -> Iterator[None]:
    with plain_logging(verbosity, log_format):
        for complaint in complaints:
            logger.error("%s", complaint)
        yield


def _team(prog_name: str, name: str, arguments: Sequence[str]) -> Team:
    daemon = find_daemon(name)
    daemon._called_from_command_line = True  # as above
    said = vars(daemon.create_parser(prog_name, name).parse_args(list(arguments)))
    return daemon.as_team(daemon.execute, *said.pop("args", ()), **said)
