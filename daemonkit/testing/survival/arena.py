"""The environment of a daemon's trials: the database, the child processes, and their results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from daemonkit.command import BaseDaemonCommand
from daemonkit.testing.running import DaemonName, command_of
from daemonkit.testing.survival.children import Child, in_child
from daemonkit.testing.survival.stage import Stage, Tables


class Arena:
    """Runs the trials of one daemon."""

    def __init__(
        self,
        daemon: DaemonName,
        using: str,
        stage: Stage,
        arrange: Callable[[], object] | None,
        observe: Callable[[], object] | None,
        timeout: float,
    ) -> None:
        self.using = using
        self._daemon, self._stage = daemon, stage
        self._arrange, self._observe, self._timeout = arrange, observe, timeout

    def restore(self) -> None:
        """Restore the state before the first trial."""
        self._stage.restore()
        if self._arrange is not None:
            in_child(self._entered(self._arrange, is_silent=True), self._timeout)

    def make(self) -> BaseDaemonCommand:
        return command_of(self._daemon)

    def start(self, work: Callable[[], Any]) -> Child:
        """Run ``work`` in a child process, on the trial's database."""
        return Child(self._entered(work))

    def wait(self, child: Child) -> Any:
        """Return the result of the child's work. Raises what ``Child.result()`` raises."""
        return child.result(self._timeout)

    def seen(self) -> tuple[Tables, Any]:
        """The rows of the database, and what ``observe`` returns."""
        observed = None
        if self._observe is not None:
            observed = in_child(self._entered(self._observe), self._timeout)
        return self._stage.read(), observed

    def _entered(self, work: Callable[[], Any], *, is_silent: bool = False) -> Callable[[], Any]:
        def entered() -> Any:
            self._stage.enter()
            result = work()
            return None if is_silent else result

        return entered
