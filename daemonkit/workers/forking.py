"""Fork the workers."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import threading
from collections.abc import Sequence

from django.conf import settings
from django.db import connections

from daemonkit.listeners.log import logger
from daemonkit.process.forced_end import flush
from daemonkit.workers.child import work
from daemonkit.workers.places import Place
from daemonkit.workers.worker import Worker


def prepare() -> None:
    """Load what every worker needs, and close what no worker may inherit."""
    with contextlib.suppress(Exception, SystemExit):  # a worker's checks report what is wrong
        importlib.import_module(settings.ROOT_URLCONF)
    for wrapper in connections.all(initialized_only=True):
        wrapper.close()
        if close_pool := getattr(wrapper, "close_pool", None):
            close_pool()
    _warn_of_threads()
    gc.collect()
    gc.freeze()  # otherwise the collector would write to shared pages, and so copy them


def _warn_of_threads() -> None:
    names = [each.name for each in threading.enumerate() if each is not threading.main_thread()]
    if names:
        logger.warning(
            "the threads %s run in the supervisor but in no worker: a fork copies only the thread "
            "that calls it. Start them in lifespan()",
            ", ".join(sorted(names)),
        )


def fork_worker(place: Place, siblings: Sequence[Worker]) -> Worker:
    """Start a worker for this place. Raises ``OSError`` if the process cannot be forked.

    The child closes its copies of its siblings' pipes. Otherwise the siblings would not notice the
    end of their supervisor.
    """
    flush()  # otherwise the child would write the buffered output a second time
    with contextlib.ExitStack() as opened:
        orders, reports = _pipe(opened), _pipe(opened)
        pid = os.fork()
        opened.pop_all()
    if pid == 0:
        os.close(orders[1])
        os.close(reports[0])
        for sibling in siblings:
            sibling.close()
        team = place.team
        team.daemon.worker_number = place.number
        work(
            team.daemon,
            place.label,
            team.live,
            stop_timeout=team.settings.stop_timeout,
            orders=orders[0],
            reports=reports[1],
        )
    os.close(orders[0])
    os.close(reports[1])
    return Worker(place.label, place.team.settings, pid, orders[1], reports[0])


def _pipe(opened: contextlib.ExitStack) -> tuple[int, int]:
    """Return a pipe with two non-blocking ends, so that a process that does not read blocks none
    that writes."""
    ends = os.pipe()
    for descriptor in ends:
        opened.callback(os.close, descriptor)
        os.set_blocking(descriptor, False)
    return ends
