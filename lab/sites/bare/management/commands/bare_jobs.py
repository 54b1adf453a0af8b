"""Many jobs of one second without daemonkit: APScheduler in memory, its Django store, a heap."""

import heapq
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandParser

from lab.sites.work import Runs, say


class Command(BaseCommand):
    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--jobs", type=int)
        parser.add_argument("--seconds", type=float)
        parser.add_argument("--spread", action="store_true")
        parser.add_argument("--kind", choices=["memory", "stored", "heap"])

    def handle(self, *, jobs: int, seconds: float, spread: bool, kind: str, **_: Any) -> None:
        offsets = [number / jobs if spread else 0.0 for number in range(jobs)]
        run = {"memory": by_apscheduler, "stored": by_django, "heap": by_heap}[kind]
        say(run(offsets, seconds))


def by_heap(offsets: list[float], seconds: float) -> dict[str, float]:
    runs = Runs(seconds)
    begun = time.monotonic() + 0.5
    heap = [(begun + offset, number) for number, offset in enumerate(offsets)]
    heapq.heapify(heap)
    while not runs.is_over():
        due, number = heap[0]
        if (left := due - time.monotonic()) > 0:
            time.sleep(left)
        runs.note(time.monotonic() - due)
        heapq.heapreplace(heap, (due + 1.0, number))
    return runs.result()


def by_apscheduler(offsets: list[float], seconds: float) -> dict[str, float]:
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.schedulers.background import BackgroundScheduler

    runs = Runs(seconds)
    scheduler = BackgroundScheduler(executors={"default": ThreadPoolExecutor(10)}, timezone=UTC)
    begun = time.time() + 1.0

    def work(offset: float) -> None:
        runs.note((time.time() - begun - offset) % 1.0)

    for offset in offsets:
        add(scheduler, work, begun, offset, str(offset) if len(set(offsets)) > 1 else None)
    return lived(scheduler, runs)


def add(scheduler: Any, work: Any, begun: float, offset: float, name: str | None) -> None:
    start = datetime.fromtimestamp(begun + offset, UTC)
    scheduler.add_job(
        work, "interval", args=[offset], seconds=1, start_date=start, next_run_time=start,
        misfire_grace_time=None, coalesce=True, id=name,
    )  # fmt: skip


def lived(scheduler: Any, runs: Runs) -> dict[str, float]:
    scheduler.start()
    while not runs.is_over():
        time.sleep(0.05)
    result = runs.result()
    scheduler.shutdown(wait=False)
    return result


def nothing(offset: float) -> None:
    """What a job store can find again by its name."""


def by_django(offsets: list[float], seconds: float) -> dict[str, float]:
    from apscheduler.events import EVENT_JOB_EXECUTED
    from apscheduler.schedulers.background import BackgroundScheduler
    from django_apscheduler.jobstores import DjangoJobStore
    from django_apscheduler.models import DjangoJob

    call_command("migrate", verbosity=0)
    DjangoJob.objects.all().delete()
    runs = Runs(seconds)
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.add_jobstore(DjangoJobStore(), "default")
    scheduler.start(paused=True)
    for number, offset in enumerate(offsets):
        add(scheduler, nothing, time.time() + 1.0, offset, f"job-{number}")
    begun = datetime.now(UTC) + timedelta(seconds=1)
    for number, offset in enumerate(offsets):
        start = begun + timedelta(seconds=offset)
        DjangoJob.objects.filter(id=f"job-{number}").update(next_run_time=start)
    scheduler.add_listener(
        lambda event: runs.note((datetime.now(UTC) - event.scheduled_run_time).total_seconds()),
        EVENT_JOB_EXECUTED,
    )
    runs.begin()
    scheduler.resume()
    while not runs.is_over():
        time.sleep(0.05)
    return runs.result()
