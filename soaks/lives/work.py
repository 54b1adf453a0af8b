"""What the three daemons do."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from django.db import connection


@contextlib.contextmanager
def shown() -> Iterator[None]:
    """A ``lifespan()`` that says that the daemon is open: its signal handlers stand."""
    print("opened", os.getpid(), flush=True)
    yield


def work() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    time.sleep(0.01)
