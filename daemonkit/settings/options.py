"""The options that every daemon has on its command line."""

from __future__ import annotations

from argparse import ArgumentError, BooleanOptionalAction
from typing import Any

from django.core.management.base import CommandError, CommandParser

from daemonkit.exits import Exit
from daemonkit.formats import FORMATS

HANDED_IN = ("schedule", "clock", "raise_errors")
"""Options that ``call_command`` takes and the command line does not."""


def add_daemon_options(parser: CommandParser, name: str) -> None:
    """Add the options that every daemon has. ``Settings`` parses their values. Raises
    ``CommandError`` if one clashes with an option of the daemon's own."""
    own = {action.dest for action in parser._actions}
    group = parser.add_argument_group("daemon options")
    for flag, details in _OPTIONS.items():
        destination = flag.lstrip("-").replace("-", "_")
        try:
            if destination in own:
                raise ArgumentError(None, destination)
            group.add_argument(flag, **details)
        except ArgumentError:
            raise CommandError(
                f"{name} has an option of its own that clashes with daemonkit's {flag}; "
                f"give yours another name",
                returncode=Exit.USAGE,
            ) from None


_OPTIONS: dict[str, dict[str, Any]] = {
    "--every": {"metavar": "TIME", "help": "Run every so often: 30s, 5m, 1h30m."},
    "--cron": {"metavar": "STRING", "help": 'Run at these times: "0 3 * * mon-fri".'},
    "--once": {"action": "store_true", "help": "Run one tick; exit with 1 if it failed."},
    "--max-ticks": {"metavar": "N", "help": "End after N ticks."},
    "--until-empty": {"action": "store_true", "help": "End when a tick finds nothing, for Poll()."},
    "--max-work": {"metavar": "N", "help": "End after N ticks that found something."},
    "--max-seconds": {"metavar": "TIME", "help": "Start no tick after this time; end then."},
    "--max-memory": {"metavar": "SIZE", "help": "End after a tick that left more: 300m, 1g."},
    "--max-failures": {"metavar": "N", "help": "End with 75 after N failures in a row."},
    "--job": {"metavar": "NAME", "action": "append", "help": "Of its jobs, run this one alone."},
    "--due": {"metavar": "TIME", "help": "With --once: run a past due time, or FROM..TO."},
    "--again": {"action": "store_true", "help": "With --due: also those that have run."},
    "--threads": {"metavar": "N", "help": "How many jobs may run at the same time."},
    "--tick-timeout": {"metavar": "TIME", "help": "Cut a tick that takes longer; none: never."},
    "--stop-timeout": {"metavar": "TIME", "help": "Time for the tick in flight when stopping."},
    "--leader": {"action": BooleanOptionalAction, "help": "Of all that run it, one ticks."},
    "--lease": {"metavar": "TIME", "help": "Time after which a silent leader is replaced."},
    "--renew-deadline": {"metavar": "TIME", "help": "Time after which a silent leader stops."},
    "--renew-every": {"metavar": "TIME", "help": "Time between two renewals of the lease."},
    "--pulse": {"metavar": "TIME", "help": "Longest time between two signs of life."},
    "--workers": {"metavar": "N", "help": "Run the loop in N processes, for Poll()."},
    "--log-format": {"choices": FORMATS, "help": "auto: for the journal where stderr is one."},
    "--reload": {"action": "store_true", "help": "In development: restart on a code change."},
}
