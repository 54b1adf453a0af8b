"""``--reload`` in development: a daemon that is started again when its code changes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from django.utils import autoreload

from daemonkit.exits import Exit

LOOK_INTERVAL = 0.5
"""Seconds between two looks at whether broken code has been mended."""

_CHANGED = 3  # with this code Django's reloader ends a process whose code has changed


def run_with_reloader(live: Callable[[], Any]) -> None:
    """Run a daemon under Django's autoreloader. Does not return.

    Django's own parent process ends when the new code does not load. This one says so, waits for
    the next change and tries again.
    """
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true":
        autoreload.run_with_reloader(live)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(Exit.OK))
    try:
        _be_the_parent()
    except KeyboardInterrupt:
        sys.exit(Exit.OK)


def _be_the_parent() -> NoReturn:
    environment = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    has_changed = False
    while True:
        before = _times_of_files()
        code = subprocess.run(autoreload.get_child_arguments(), env=environment, check=False)
        # Python aborts as it ends if the daemon's thread is just writing to stdout.
        has_aborted = code.returncode == -signal.SIGABRT and _times_of_files() != before
        if code.returncode == _CHANGED or has_aborted:
            has_changed = True
        elif has_changed and code.returncode in (Exit.TICK_FAILED, Exit.USAGE):
            sys.stderr.write("the new code does not load; it is tried again when it changes\n")
            while _times_of_files() == before:
                time.sleep(LOOK_INTERVAL)
        else:
            sys.exit(code.returncode)


def _times_of_files() -> dict[Path, float]:
    """When each file of the loaded modules was changed."""
    times = {}
    for path in autoreload.iter_all_python_module_files():
        try:
            times[path] = path.stat().st_mtime
        except OSError:
            continue
    return times
