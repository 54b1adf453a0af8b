"""What is done with the outcome of a tick or a run: announced, passed to ``on_error()``, judged."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from daemonkit import signals
from daemonkit.connections.units import fresh_connections
from daemonkit.iteration import Iteration, ends_process
from daemonkit.listeners.log import logger
from daemonkit.process.stopping import Stop
from daemonkit.schedules.backoff import after_failure
from daemonkit.settings.settings import Settings
from daemonkit.signals import announce
from daemonkit.verdict import Verdict

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon
    from daemonkit.leading.leader import Leadership


class Outcomes:
    """Notes the outcomes of one life. ``awaited`` returns its argument, or awaits a coroutine."""

    def __init__(
        self,
        daemon: Daemon,
        settings: Settings,
        verdict: Verdict,
        leadership: Leadership | None,
        awaited: Callable[[Any], Any],
    ) -> None:
        self._daemon, self._verdict, self._leadership = daemon, verdict, leadership
        self._tick_timeout = settings.tick_timeout
        self._awaited = awaited

    def note(
        self,
        iteration: Iteration,
        error: BaseException | None,
        last: Iteration | None,
        stop: Stop,
        *,
        cut: bool,
    ) -> Iteration:
        """Announce the iteration of a tick or a job, and pass it to the verdict. ``last`` is the
        one before it; ``cut`` says whether its connections were cut because it was overdue.

        Returns the iteration with what a failure means for the next one."""
        if error is not None:
            from daemonkit.skipping import unless_skipped  # not before something is raised

            error = unless_skipped(error, self._daemon, iteration)
        if error is not None:
            iteration = after_failure(iteration, error, last, self._daemon.backoff, cut_by_us=cut)
        if signals.iteration_finished.receivers:
            announce(signals.iteration_finished, self._daemon, iteration=iteration)
        if error is not None:
            announce(signals.iteration_failed, self._daemon, iteration=iteration)
            self._call_on_error(iteration, stop)
        is_to_blame = self._leadership is None or not self._leadership.lost_leadership
        self._verdict.note(iteration, is_to_blame=is_to_blame)
        return iteration

    def _call_on_error(self, iteration: Iteration, stop: Stop) -> None:
        try:
            with stop.timing(self._tick_timeout, iteration.job), fresh_connections:
                self._awaited(self._daemon.on_error(iteration))
        except BaseException as error:
            if ends_process(error):
                raise
            logger.exception("%s on_error() failed", self._daemon.name)
