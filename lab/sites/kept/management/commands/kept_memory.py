"""Many ticks that hold a megabyte each, of which one in ten fails: what the process holds."""

import gc
import os
import time
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from daemonkit import Backoff, BaseDaemonCommand, Poll
from lab.sites.work import answer

RESULT = 1_000_000
"""Bytes of a tick's result, and of what a failed tick held."""


class Ticks(BaseDaemonCommand):
    schedule = Poll(idle=1e-6)
    backoff = Backoff(first=1e-6, cap=1e-6)

    def __init__(self, times: int, looks: list[int]) -> None:
        super().__init__()
        self._numbers = iter(range(1, times + 1))
        self._looks = set(looks)
        self.found: list[dict[str, int]] = []

    def tick(self) -> Any:
        number = next(self._numbers)
        if number in self._looks:
            self.found.append(held())
        large = bytearray(RESULT)
        if number % 10 == 0:
            raise ValueError(len(large))
        return large


class Command(BaseCommand):
    def handle(self, **options: Any) -> None:
        def run(times: int) -> dict[str, Any]:
            daemon = Ticks(times, [times // 10, times // 2, times])
            began = time.monotonic()
            call_command(daemon, max_ticks=times, raise_errors=False)
            return {"seconds": time.monotonic() - began, "found": daemon.found}

        answer(run)


def held() -> dict[str, int]:
    """What this process holds. A megabyte of a tick's own is not yet there."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "kilobytes": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        "objects": len(gc.get_objects()),
        "descriptors": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    }
