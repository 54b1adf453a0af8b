"""``daemons status``: what runs, and how it fares."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from daemonkit.exits import Exit
from daemonkit.management.actions.action import Action, Request
from daemonkit.management.actions.status_database import require_daemon, status_database
from daemonkit.settings.parsing import seconds, usage
from daemonkit.status import tables
from daemonkit.status.check import complaints
from daemonkit.status.reading import pauses, read

CLEAR = "\033[H\033[2J"
"""What empties a terminal."""


class ShowStatus(Action):
    name = "status"
    help = "every process of the daemons on every host, and how it fares"
    has_format = True

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("names", nargs="*", metavar="NAME", help="only these daemons")
        parser.add_argument(
            "--check", action="store_true", help="for a monitor: exit with 1 if one does not work"
        )
        parser.add_argument(
            "--watch",
            nargs="?",
            const="2s",
            metavar="TIME",
            help="again and again, every 2s or so often, until Ctrl-C",
        )

    def run(self, request: Request) -> None:
        names, watch = request.options["names"], request.options["watch"]
        if request.options["check"]:
            if watch is not None:
                raise usage("--check looks once: say it without --watch")
            return self._check(request, names)
        if watch is None:
            return self._show(request, names, is_watch=False)
        every = seconds("watch", watch)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self._show(request, names, is_watch=True)
                time.sleep(every)
        return None

    def _show(self, request: Request, names: list[str], *, is_watch: bool) -> None:
        with status_database():
            for name in names:
                require_daemon(name)
            processes, paused = read(names), pauses(names)
        stream = request.stdout
        if request.wants_json:
            request.print_json(
                {
                    "processes": [each.as_dict() for each in processes],
                    "pauses": {
                        name: [
                            {"job": p.job, "by": p.by, "why": p.why, "seconds_left": p.left}
                            for p in given
                        ]
                        for name, given in paused.items()
                    },
                }
            )
            return
        if is_watch and stream.isatty():
            stream.write(CLEAR, ending="")
        if processes and tables.has_rich(stream):
            tables.draw(stream, processes, paused)
        else:
            request.print(tables.plain(processes, paused))
        stream.flush()

    def _check(self, request: Request, names: list[str]) -> None:
        with status_database():
            for name in names:
                require_daemon(name)
            processes = read(names)
        found = complaints(processes, names)
        daemons = names or sorted({each.daemon for each in processes})
        if request.wants_json:
            request.print_json({"works": not found, "daemons": daemons, "complaints": found})
        elif found:
            request.print("; ".join(found))
        else:
            request.print(f"{', '.join(daemons) or 'no daemon'}: as expected")
        if found:
            sys.exit(Exit.TICK_FAILED)
