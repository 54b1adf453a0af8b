"""Find the daemons of a project, and the daemon with a given name.

A daemon is a management command that subclasses ``BaseDaemonCommand``: Django's own discovery
finds it, and there is no other registry. Any other command, and any callable, can be run as a
daemon when a schedule is given on the command line.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string

from daemonkit.command import BaseDaemonCommand
from daemonkit.errors import one_line
from daemonkit.settings.parsing import usage


class Found(NamedTuple):
    """A daemon of the project, or a command that cannot be imported and may be one."""

    name: str
    app: str
    daemon: BaseDaemonCommand | None
    trouble: str = ""


def find_daemons() -> Iterator[Found]:
    """Yield every daemon of the project by name, and every command that cannot be imported."""
    for name, app in sorted(get_commands().items()):
        if isinstance(app, BaseCommand) or app == "django.core" or app.startswith("django.contrib"):
            continue
        try:
            module = importlib.import_module(f"{app}.management.commands.{name}")
            command = getattr(module, "Command", None)
            if isinstance(command, type) and issubclass(command, BaseDaemonCommand):
                yield Found(name, app, command())
        except (Exception, SystemExit) as error:
            yield Found(name, app, None, f"does not import: {one_line(error)}")


def find_daemon(name: str, arguments: Sequence[str] = ()) -> BaseDaemonCommand:
    """Return the daemon for the name of a command or the dotted path of a callable.

    ``arguments`` are passed to a command that is not a daemon itself. Raises ``CommandError`` (exit
    code 2) if the name is unknown.
    """
    app = get_commands().get(name)
    if app is None and "." in name:
        return CallableDaemon(name, _import_callable(name))
    if app is None:
        near = difflib.get_close_matches(name, get_commands())
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise usage(f"there is no daemon {name!r}; {hint}`manage.py daemons` lists them")
    try:
        command = app if isinstance(app, BaseCommand) else load_command_class(app, name)
    except (Exception, SystemExit) as error:
        raise usage(f"{name} of {app} cannot be imported: {one_line(error)}") from error
    if not isinstance(command, BaseDaemonCommand):
        from daemonkit.foreign import CommandDaemon  # not for a daemon of its own

        return CommandDaemon(name, command, arguments)
    if arguments:
        raise usage(f"{name} is a daemon: write its options after its name, without --")
    return command


class CallableDaemon(BaseDaemonCommand):
    """Any callable without arguments, as a daemon."""

    name = ""
    missing_schedule = "is not a daemon: say how often, with --every 1h or --cron '0 3 * * *'"

    def __init__(self, path: str, work: Any) -> None:
        super().__init__()
        self.name = path
        self.help = (work.__doc__ or "").strip().partition("\n")[0]
        self._work = work

    @property
    def module(self) -> str:
        return getattr(self._work, "__module__", None) or self.name.rpartition(".")[0]

    def tick(self) -> Any:
        return self._work()


def _import_callable(path: str) -> Any:
    try:
        work = import_string(path)
    except (Exception, SystemExit) as error:
        raise usage(f"{path} cannot be imported: {one_line(error)}") from error
    if not callable(work):
        raise usage(f"{path} is not callable; name a function")
    if inspect.isgeneratorfunction(work) or inspect.isasyncgenfunction(work):
        raise usage(f"{path} is a generator, which returns before it works; name a function")
    return work
