"""A loop whose tick raises what Ctrl-C raises elsewhere."""

from daemonkit import BaseDaemonCommand, Every


class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def tick(self):
        raise KeyboardInterrupt
