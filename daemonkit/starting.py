"""How Django starts a daemon: the methods of a management command, until its life begins."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from django.core.management.base import BaseCommand, CommandParser

from daemonkit.connections.holding import release_connections
from daemonkit.iteration import Iteration
from daemonkit.life import Life
from daemonkit.listeners.log import plain_logging
from daemonkit.process.exit_message import ends_in_a_sentence, format_in
from daemonkit.process.origin import is_trial
from daemonkit.process.signal_handlers import on_signals
from daemonkit.settings.attributes import tick_of
from daemonkit.settings.options import HANDED_IN, add_daemon_options
from daemonkit.settings.settings import Settings

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.jobs.scheduler import Scheduler
    from daemonkit.servers.serving import Serving
    from daemonkit.workers.places import Team

    class _Command(BaseCommand, Daemon): ...
else:
    _Command = BaseCommand


class StartedByDjango(_Command):
    """The management command behind a daemon: options, checks and start."""

    base_stealth_options = (*BaseCommand.base_stealth_options, *HANDED_IN)
    options: Mapping[str, Any] = MappingProxyType({})
    is_supervised = False
    """Whether this process is a worker of a supervisor."""

    _life: Life | None = None
    _scheduler: Scheduler | None = None
    _serving: Serving | None = None
    _called_from_command_line = False
    _wants_checks = False

    if TYPE_CHECKING:  # what BaseDaemonCommand adds

        @property
        def has_tick(self) -> bool: ...
        def tick(self) -> Any: ...
        def serve(self) -> Any: ...
        def run(self) -> Iteration | None: ...

    @property
    def name(self) -> str:
        """The daemon's name, which is the command's."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def module(self) -> str:
        """The dotted name of the module that defines the daemon's work."""
        return type(self).__module__

    @property
    def is_started_by_shell(self) -> bool:
        """Whether it was started from a command line, not by ``call_command()``."""
        return self._called_from_command_line

    @property
    def life(self) -> Life:
        """The current life; for a bare ``iterate()``, one that no signal stops."""
        if self._life is None:
            self._life = Life(self, tick_of(self), Settings(self, {"once": True}))
        return self._life

    # What Django calls, in this order

    def run_from_argv(self, argv: list[str]) -> None:
        self._called_from_command_line = True
        if os.getpid() == 1:
            from daemonkit.process.init import leave_process_1

            leave_process_1()
        with self._ending(format_in(argv), traceback="--traceback" in argv):
            super().run_from_argv(argv)

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        add_daemon_options(parser, subcommand)
        return parser

    def execute(self, *args: Any, **options: Any) -> str | None:
        """As Django's, without the checks: they may need a database that is away. The life runs
        them, and waits for the database."""
        self._wants_checks = bool(self.requires_system_checks) and not options.get("skip_checks")
        options["skip_checks"] = True
        traceback = not self._called_from_command_line or bool(options.get("traceback"))
        with self._ending(options.get("log_format"), traceback=traceback):
            return super().execute(*args, **options)

    def check_migrations(self) -> None:
        """Does nothing here: like the system checks, the life checks migrations later."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Run one life. Exit codes are those of ``daemonkit.Exit``."""
        self.options = MappingProxyType(options)
        tick = tick_of(self)
        settings = Settings(self, options, supervised=self.is_supervised)
        if is_trial():
            from daemonkit.process.trial_checks import check_without_database  # not in a daemon

            return check_without_database(self) if self._wants_checks else None
        self._begin(tick, settings)
        try:
            if settings.workers > 1:
                from daemonkit.workers.supervisor import supervise  # not for a plain loop

                self._life = None  # each worker has its own
                team = self.as_team(self.handle, *args, **options)
                with self._on_signals():
                    supervise([team], plain_logging(*self._log_options))
            elif options.get("reload"):
                from daemonkit.development import run_with_reloader  # not for a deployed daemon

                run_with_reloader(self._live_under_the_reloader)
            else:
                self._live()
        finally:
            self._life = self._scheduler = self._serving = None

    # A life

    def _begin(self, tick: Callable[[], Any], settings: Settings) -> None:
        """Create the life, and what its settings need. Optional parts are imported only here."""
        parts: dict[str, Any] = {}
        is_steered = self.is_started_by_shell and not settings.once
        if settings.leader or settings.has_jobs or self.wake_on or is_steered:
            from daemonkit.parts import parts_of

            parts = parts_of(self, settings)._asdict()
            self._scheduler = parts.pop("scheduler")
        before = self._scheduler.before_forced_end if self._scheduler else lambda: None
        self._life = Life(self, tick, settings, **parts, before_forced_end=before)
        if self.has_serve:
            from daemonkit.servers.serving import Serving  # not for a loop

            self._serving = Serving(self._life, tick)

    def _current_serving(self, method: str) -> Serving:
        if self._serving is None:
            raise RuntimeError(f"self.{method}() is for a daemon that serves: call it in serve()")
        return self._serving

    def check_everything(self) -> None:
        """Run the checks that Django would have run."""
        if self._wants_checks:
            arguments: dict[str, Any] = dict(self.get_check_kwargs(dict(self.options)))  # type: ignore[arg-type]
            self.check(**arguments)
        if self.requires_migrations_checks:
            super().check_migrations()
        if self.life.leadership is not None:
            self.life.leadership.ask_for_the_table()
        if self.life.waker is not None:
            self.life.waker.begin()

    def as_team(self, live: Callable[..., Any], *args: Any, **options: Any) -> Team:
        """What a supervisor needs to run this daemon; see ``workers.places.team_of()``."""
        from daemonkit.workers.places import team_of

        tick_of(self)
        work = partial(live, *args, **{**options, "workers": 1})
        ending = partial(self._ending, options.get("log_format"))
        return team_of(self, Settings(self, options), work, ending)

    @property
    def _log_options(self) -> tuple[int, str | None]:
        return self.options["verbosity"], self.options.get("log_format")

    def _live(self) -> None:
        if owns_the_process := self._called_from_command_line:
            _name_sessions(self.name)
            gc.freeze()  # the collector then skips all that is loaded now
        with self._on_signals():
            with plain_logging(*self._log_options), self.life.log.listening():
                self.run()
            if owns_the_process and not self.life.stop.forced:
                release_connections()  # or the garbage collector would, at shutdown
            self.life.conclude()

    def _on_signals(self) -> AbstractContextManager[object]:
        """Handle signals: until the process ends if the command line started it, or else until the
        command returns to its caller, which then gets the signal that stopped it."""
        owns_the_process = self._called_from_command_line
        return on_signals(to_the_end=owns_the_process, passed_on=not owns_the_process)

    def _live_under_the_reloader(self) -> None:
        with self._ending(self.options.get("log_format")):  # the reloader would print a traceback
            self._live()

    def _ending(
        self, log_format: str | None, *, traceback: bool = False
    ) -> AbstractContextManager[None]:
        return ends_in_a_sentence(self.stderr, log_format, daemon=self.name, traceback=traceback)


def _name_sessions(daemon: str) -> None:
    """Name this process's PostgreSQL sessions "daemonkit NAME", unless OPTIONS or $PGAPPNAME name
    them."""
    ours = "daemonkit "  # set by another daemon, if that has started this one
    if os.environ.get("PGAPPNAME", ours).startswith(ours):
        os.environ["PGAPPNAME"] = f"{ours}{daemon}"[:63]
