"""Several processes: what they hold in memory, and how fast one that dies has a successor.

Beside daemonkit's supervisor stand as many separate processes of it, Celery's prefork worker and
django-q2's cluster, both on a private Redis. Every worker has made a query before it is measured.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psutil

from benchmarks.lives import megabytes
from benchmarks.servers import SQLITE, Servers
from benchmarks.table import Spread, Table, Verdict, millis, missing
from lab.contestants import Celery, Daemonkit, DjangoQ, QueueWorkers
from lab.contestants.process import environment
from lab.redis_server import Redis

SEPARATE, OURS = "separate processes", "daemonkit --workers"
QUEUES: dict[str, QueueWorkers] = {each.name: each for each in (Celery(), DjangoQ())}
START_SECONDS, SUCCESSOR_SECONDS = 60.0, 15.0
"""How long to wait for the first report of all workers, and of a successor."""
POLL = [sys.executable, "-m", "django", "run_daemon", "kept_poll", "--skip-checks", "-v", "0"]


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    database = servers.mariadb.settings() if servers.mariadb else dict(SQLITE)
    lacking = Redis.why_missing()
    with contextlib.ExitStack() as stack:
        redis = None
        if not lacking:
            redis = Redis()
            stack.callback(redis.remove)
        yield memory(database, redis, quick=quick)
        yield successors(database, redis, quick=quick)
    if lacking:
        yield missing("Celery's and django-q2's workers", lacking)


def memory(database: Mapping[str, Any], redis: Redis | None, *, quick: bool) -> Table:
    numbers, rounds = ((1, 2), 1) if quick else ((1, 2, 4, 8), 3)
    table = Table(
        "Memory of workers that have made a query, their parents included (PSS)",
        ("what", *(f"{number}" for number in numbers), "ratio at the most"),
        SEPARATE,
        f"{rounds} rounds",
    )
    names = [SEPARATE, OURS, *(QUEUES if redis else [])]
    held: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for number in numbers:
            for name in names:
                with Crew(name, number, database, redis) as crew:
                    crew.wait()
                    held.setdefault((name, number), []).append(crew.pss())
    for name in names:
        medians = [megabytes(Spread.of(held[name, number]).median) for number in numbers]
        ratio = Spread.of_ratios(held[name, numbers[-1]], held[SEPARATE, numbers[-1]])
        verdict = Verdict(ratio.median, 1.0) if name == OURS else None
        table.add(name, *medians, f"{ratio.median:.2f}", verdict=verdict)
    return table


def successors(database: Mapping[str, Any], redis: Redis | None, *, quick: bool) -> Table:
    lives, workers = (1, 2) if quick else (3, 4)
    table = Table(
        "From a worker's SIGKILL to its successor's first tick, or task",
        ("contestant", "kills", "median", "longest", "nobody ever"),
    )
    for name in [OURS, *(QUEUES if redis else [])]:
        seconds: list[float] = []
        for _ in range(lives):
            with Crew(name, workers, database, redis) as crew:
                seconds += crew.all_replaced()
        found = [each for each in seconds if each < math.inf]
        times = [millis(Spread.of(found).median), millis(max(found))] if found else ["", ""]
        table.add(name, str(len(seconds)), *times, str(len(seconds) - len(found)))
    return table


class Crew:
    """A number of workers of one kind, their supervisor, and the process that fills their queue."""

    def __init__(
        self, name: str, workers: int, database: Mapping[str, Any], redis: Redis | None
    ) -> None:
        self.name, self.workers, self.redis = name, workers, redis
        self._seen: dict[int, float] = {}
        queue = QUEUES.get(name) if redis else None
        site = queue.site if queue else Daemonkit.site
        self._environment = environment(
            DJANGO_SETTINGS_MODULE=f"lab.sites.{site}.settings",
            BENCHMARK_DATABASE=json.dumps(database),
            BENCHMARK_REDIS=redis.url if redis else "",
            BENCHMARK_WORKERS=str(workers),
        )
        self._feeder: subprocess.Popen[bytes] | None = None
        if queue and redis:
            redis.client.flushall()
            self._feeder = self._start(queue.feeder_command())
        self._processes = [self._start(command) for command in self._commands()]

    def _commands(self) -> list[list[str]]:
        if self.name == SEPARATE:
            return [POLL] * self.workers
        if self.name == OURS:
            return [[*POLL, "--workers", str(self.workers)]]
        return [QUEUES[self.name].worker_command(self.workers)]

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        mute = self.name in QUEUES
        return subprocess.Popen(
            command,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if mute else subprocess.PIPE,
            stderr=subprocess.DEVNULL if mute else None,
            bufsize=0,  # so that select() sees every line that is left
            start_new_session=True,
        )

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self._processes, *filter(None, [self._feeder])]:
            for member in self._session(process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()

    def wait(self) -> list[int]:
        """Wait until every worker has ticked. Return their process ids.

        Raises ``RuntimeError`` if they have not within ``START_SECONDS``.
        """
        deadline = time.monotonic() + START_SECONDS
        while len(self._seen) < self.workers:
            try:
                self._hear(deadline)
            except TimeoutError:
                raise RuntimeError(
                    f"{self.name}: {len(self._seen)} of {self.workers} workers have reported "
                    f"within {START_SECONDS:.0f} seconds"
                ) from None
        return list(self._seen)[: self.workers]

    def pss(self) -> float:
        """Bytes that all processes hold, what they share counted once."""
        if self._feeder:
            self._feeder.kill()
        time.sleep(0.3)
        members = [each for process in self._processes for each in self._session(process)]
        return float(sum(each.memory_full_info().pss for each in members))

    def all_replaced(self) -> list[float]:
        """Kill one worker after the other. Return the seconds until a new process has ticked.

        Infinity, which ends the series, if none has within ``SUCCESSOR_SECONDS``.
        """
        seconds: list[float] = []
        for victim in self.wait():
            before = set(self._seen)
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            try:
                while not (new := self._seen.keys() - before):
                    self._hear(killed + SUCCESSOR_SECONDS)
            except TimeoutError:
                return [*seconds, math.inf]
            seconds.append(min(self._seen[pid] for pid in new) - killed)
        return seconds

    def _hear(self, deadline: float) -> None:
        """Note who has ticked next, and when. Raises ``TimeoutError`` at the deadline."""
        said = self._from_redis(deadline) if self._feeder else self._from_pipe(deadline)
        self._seen.setdefault(int(said["pid"]), float(said["ticked"]))

    def _from_redis(self, deadline: float) -> dict[str, Any]:
        assert self.redis
        while not (line := self.redis.client.lpop("ticked")):
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.002)
        pid, ticked = str(line).split()
        return {"pid": pid, "ticked": ticked}

    def _from_pipe(self, deadline: float) -> dict[str, Any]:
        silent = [each for each in self._processes if each.pid not in self._seen]
        stdout = (silent if self.name == SEPARATE else self._processes)[0].stdout
        assert stdout
        if not select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        found: dict[str, Any] = json.loads(stdout.readline())
        return found

    def _session(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        return [each for each in psutil.process_iter() if _session_of(each.pid) == process.pid]


def _session_of(pid: int) -> int:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        return os.getsid(pid)
    return 0
