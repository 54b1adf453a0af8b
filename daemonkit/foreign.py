"""Any management command of the project, run as a daemon."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from daemonkit import signals
from daemonkit.command import BaseDaemonCommand
from daemonkit.process.signal_pipe import STOP_SIGNALS
from daemonkit.settings.parsing import usage

logger = logging.getLogger("daemonkit")

MISSING_SCHEDULE = "is not a daemon: say how often, with --every 1h or --cron '0 3 * * *'"


class CommandDaemon(BaseDaemonCommand):
    """Any management command, as a daemon. Raises ``CommandError`` for invalid arguments."""

    name = ""
    missing_schedule = MISSING_SCHEDULE

    def __init__(self, name: str, command: BaseCommand, arguments: Sequence[str]) -> None:
        super().__init__()
        self.name, self.help = name, command.help
        self._command, self._arguments = command, arguments
        self._has_returned = False
        try:  # check the arguments now, not in each tick
            command.create_parser("manage.py", name).parse_args(list(arguments))
        except CommandError as error:
            raise usage(f"{name} does not accept the arguments after --: {error}") from error

    @property
    def module(self) -> str:
        return type(self._command).__module__

    def tick(self) -> Any:
        signals.tick_overdue.connect(self._overdue, sender=type(self))
        try:
            with handlers_put_back():
                return call_command(self._command, *self._arguments) or None
        except SystemExit as end:  # the command failed; the daemon must not end
            if end.code not in (None, 0):
                raise CommandError(f"{self.name} exited with {end.code}") from end
        finally:
            self._has_returned = True
            signals.tick_overdue.disconnect(self._overdue, sender=type(self))

    def _overdue(self, seconds: float, **_: Any) -> None:
        if not self._has_returned:
            logger.error(
                "%s has not returned from its first tick in %g s. If it never returns, it needs no "
                "schedule: have systemd run it, as docs/deploy.md shows for a command that never "
                "returns. If it only takes long, raise --tick-timeout",
                self.name,
                seconds,
            )


@contextlib.contextmanager
def handlers_put_back() -> Iterator[None]:
    """Put back the signal handlers that a command leaves behind, and stop its alarm. The life puts
    back those of its own signals. Does nothing off the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    others = set(signal.Signals) - set(STOP_SIGNALS)
    before = {signum: signal.getsignal(signum) for signum in others}
    try:
        yield
    finally:
        left = [each for each in others if signal.getsignal(each) is not before[each]]
        if signal.SIGALRM in left:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for signum in left:
            signal.signal(signum, before[signum] or signal.SIG_DFL)
        if signal.SIGUSR1 in left and sys.__stderr__ is not None:
            with contextlib.suppress(AttributeError, ValueError, OSError):
                faulthandler.register(signal.SIGUSR1, file=sys.__stderr__.fileno())
        if left:
            names = ", ".join(signal.Signals(each).name for each in sorted(left))
            logger.warning("the command has left handlers of %s behind; they are put back", names)
