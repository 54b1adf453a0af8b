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

    A command that cannot be imported is only logged as an error, because it may not be a daemon.
    Raises ``CommandError`` (exit code 2) if the project has no daemon.
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
    """Run daemons under one supervisor, each in its own process or in its own ``workers``.

    ``arguments`` are options that every daemon has. They apply to all. Raises ``CommandError``
    (exit code 2) for any other argument, and for a daemon that is named twice.
    """
    for name in names:
        if list(names).count(name) > 1:
            raise usage(f"{name} is named twice; several processes of it are --workers 2")
    shared = BaseDaemonCommand()
    shared._called_from_command_line = True  # a usage error then prints no traceback
    parser = shared.create_parser(prog_name, "run_daemon")
    options, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        raise usage(
            f"{' '.join(unknown)}: several daemons share the same options; run a daemon that has "
            f"its own arguments alone"
        )
    for option in ("once", "reload"):
        if getattr(options, option):
            raise usage(f"--{option} is for one daemon, in one process")
    teams = [_team(prog_name, name, arguments) for name in names]
    if is_trial():
        return  # the daemons have been imported, and their options parsed
    supervise(teams, _logging(options.verbosity, options.log_format, complaints))


@contextlib.contextmanager
def _logging(verbosity: int, log_format: str | None, complaints: Sequence[str]) -> Iterator[None]:
    with plain_logging(verbosity, log_format):
        for complaint in complaints:
            logger.error("%s", complaint)
        yield


def _team(prog_name: str, name: str, arguments: Sequence[str]) -> Team:
    daemon = find_daemon(name)
    daemon._called_from_command_line = True  # as above
    options = vars(daemon.create_parser(prog_name, name).parse_args(list(arguments)))
    return daemon.as_team(daemon.execute, *options.pop("args", ()), **options)
