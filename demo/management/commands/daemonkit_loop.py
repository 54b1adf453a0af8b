"""The same loop as a daemon."""

from daemonkit import BaseDaemonCommand, Every, Iteration
from demo.models import count_entries


class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def tick(self) -> None:
        print(count_entries(), flush=True)

    def on_error(self, iteration: Iteration) -> None:
        print(f"FAILED {iteration.error}", flush=True)
