"""Ticks that fail because the server has ended their session while the process was idle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.servers import Servers
from benchmarks.table import Table, Verdict, missing
from benchmarks.ticks import SETTINGS, settings_text
from lab.contestants import Bare, ByHand, ContestantProcess, Daemonkit, contest
from lab.servers import Server
from lab.waiting import eventually

TITLE = "Failed ticks, of as many as lost their session while idle"
CONTESTANTS = (
    Bare("bare_losses"),
    ByHand("bare_losses", "--by-hand"),
    Daemonkit("kept_losses"),
)
NAMES = [each.label for each in CONTESTANTS]
WAYS = {
    "mysql": ("KILL", "wait_timeout"),
    "postgresql": ("pg_terminate_backend", "idle_session_timeout"),
}
POOLED = [settings for settings in SETTINGS if settings["age"] == 0]  # Django allows no other


@dataclass
class Place:
    """A server as Django reaches it, and what failed there by contestant, settings by settings."""

    name: str
    server: Server
    settings: list[dict[str, Any]]
    contestants: dict[str, ContestantProcess]
    killed: dict[str, list[str]] = field(default_factory=dict)
    timed_out: dict[str, list[str]] = field(default_factory=dict)

    def kill(self, session: int | None) -> None:
        self.server.kill_sessions()  # all: what a pool keeps in reserve, too

    def await_timeout(self, session: int | None) -> None:
        eventually(lambda: session not in self.server.sessions(), within=10, every=0.05)

    def tables(self) -> Iterator[Table]:
        both = zip(WAYS[self.server.vendor], (self.killed, self.timed_out), strict=True)
        for way, failed in filter(lambda way: way[1], both):
            table = Table(f"{TITLE}: {self.name}, {way}", ("settings", *NAMES))
            for which, each in enumerate(self.settings):
                cells = [failed[name][which] for name in NAMES]
                verdict = Verdict(int(cells[-1].split()[0]), 0)
                table.add(settings_text(**each), *cells, verdict=verdict)
            yield table


def measure(servers: Servers, *, quick: bool) -> Iterator[Table]:
    with ExitStack() as stack:
        places = []
        for name, server, options, settings in (
            ("MariaDB", servers.mariadb, {}, SETTINGS),
            ("PostgreSQL", servers.postgresql, {}, SETTINGS),
            ("PostgreSQL with Django's pool", servers.postgresql, {"pool": True}, POOLED),
        ):
            if server is None:
                yield missing(f"{TITLE}: {name}", "no such server, or no driver for it")
                continue
            database = server.settings(OPTIONS=options)
            contestants = stack.enter_context(contest(CONTESTANTS, database))
            places.append(Place(name, server, settings, contestants))
        kill(places, times=1 if quick else 5)
        # Not with the pool: where every session times out after a second, the pauses that
        # psycopg makes between its checks are too long for it ever to find a good one.
        unpooled = [place for place in places if place.settings is not POOLED]
        time_out(unpooled, times=1 if quick else 3)
        for place in places:
            yield from place.tables()


def kill(places: list[Place], *, times: int) -> None:
    for place in places:
        for name, contestant in place.contestants.items():
            place.killed[name] = survive(contestant, place.settings, place.kill, times)


def time_out(places: list[Place], *, times: int) -> None:
    """All together, because a session takes a second to time out."""
    for place in places:
        place.server.set_idle_timeout(1)
    with ThreadPoolExecutor(max_workers=len(places) * len(CONTESTANTS) or 1) as together:
        pending = [
            (place, name, together.submit(
                survive, contestant, place.settings, place.await_timeout, times
            ))
            for place in places
            for name, contestant in place.contestants.items()
        ]  # fmt: skip
        for place, name, future in pending:
            place.timed_out[name] = future.result()
    for place in places:
        place.server.reset()


def survive(
    contestant: ContestantProcess,
    settings: list[dict[str, Any]],
    lose: Callable[[int | None], None],
    times: int,
) -> list[str]:
    """How many ticks failed, settings by settings."""
    return [f"{one_life(contestant, each, lose, times)} of {times}" for each in settings]


def one_life(
    contestant: ContestantProcess,
    settings: dict[str, Any],
    lose: Callable[[int | None], None],
    times: int,
) -> int:
    report = contestant.ask(**settings)
    for _ in range(times):
        lose(report["session"])
        contestant.tell(True)
        report = contestant.hear()
    contestant.tell(False)
    failed: int = contestant.hear()
    return failed
