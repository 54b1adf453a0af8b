"""APScheduler's events about the runs of an added job."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from apscheduler.events import (
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MISSED,
    JobExecutionEvent,
    JobSubmissionEvent,
)

from daemonkit.clock import Moment
from daemonkit.jobs.added_run import Submission


def submission_event(code: int, id: str, times: list[datetime]) -> Any:
    return JobSubmissionEvent(code, id, "default", times)


def events_of(submission: Submission, time: Callable[[Moment], datetime]) -> Iterator[Any]:
    for due, iteration, reason in submission.outcomes:
        what = submission.id, "default", time(due)
        if iteration is None:
            if reason is not None:
                yield JobExecutionEvent(EVENT_JOB_MISSED, *what)
        elif iteration.error is not None:
            lines = "".join(traceback.format_tb(iteration.error.__traceback__))
            yield JobExecutionEvent(
                EVENT_JOB_ERROR, *what, exception=iteration.error, traceback=lines
            )
        else:
            yield JobExecutionEvent(EVENT_JOB_EXECUTED, *what, retval=iteration.result)
