"""The same with daemonkit; and what its guard takes when a connection is opened."""

from django.db import connection
from django.db.backends.signals import connection_created

from daemonkit.connections import fork_guard
from lab.sites.bare.management.commands import bare_forks
from lab.sites.work import Stopwatch

GUARD = "daemonkit.connections.fork_guard"


class Command(bare_forks.Command):
    def round_of(self, what: str, times: int, held: int) -> float:
        if what == "fork":
            return super().round_of(what, times, held)
        if what == "guarded":
            return opened_and_closed(times)
        connection_created.disconnect(dispatch_uid=GUARD)
        try:
            return opened_and_closed(times) if what == "unguarded" else self.guard(times)
        finally:
            fork_guard.install()

    def guard(self, times: int) -> float:
        self.hold(times)
        stopwatch = Stopwatch()
        with stopwatch.running():
            for wrapper in self.held:
                fork_guard._on_connection_created(connection=wrapper)
        return stopwatch.seconds / times


def opened_and_closed(times: int) -> float:
    stopwatch = Stopwatch()
    with stopwatch.running():
        for _ in range(times):
            connection.connect()
            connection.close()
    return stopwatch.seconds / times
