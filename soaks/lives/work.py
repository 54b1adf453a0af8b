"""What the three daemons have in common."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from django.db import connection

from daemonkit import BaseDaemonCommand


class Shown(BaseDaemonCommand):
    """Prints when it is open: from then on its signal handlers are installed."""

    @contextlib.contextmanager
    def lifespan(self) -> Iterator[None]:
        print("opened", os.getpid(), flush=True)
        yield


class Ticking(Shown):
    def tick(self) -> None:
        work()


def work() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    time.sleep(0.01)
