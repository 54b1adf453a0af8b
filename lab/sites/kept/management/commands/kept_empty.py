"""Units of work that do nothing, in rounds: what daemonkit itself costs."""

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import close_old_connections

from daemonkit import BaseDaemonCommand, Poll, fresh_connections, signals
from daemonkit.listeners.log import Log, logger
from lab.sites.work import Stopwatch, answer, select_one, use


class Ticks(BaseDaemonCommand):
    schedule = Poll()
    stopwatch = Stopwatch()

    @contextlib.contextmanager
    def lifespan(self) -> Iterator[None]:
        select_one()
        with self.stopwatch.running():
            yield

    def tick(self) -> bool:
        return True


class Command(BaseCommand):
    def handle(self, **options: Any) -> None:
        def round_of(what: str, times: int, **settings: Any) -> float:
            use(**settings)
            select_one()
            return CONTESTANTS[what](times) / times

        answer(round_of)


def two_close_old_connections(times: int) -> float:
    stopwatch = Stopwatch()
    with stopwatch.running():
        for _ in range(times):
            close_old_connections()
            close_old_connections()
    return stopwatch.seconds


def empty_block(times: int) -> float:
    stopwatch = Stopwatch()
    with stopwatch.running():
        for _ in range(times):
            with fresh_connections:
                pass
    return stopwatch.seconds


def tick(times: int, *, verbosity: int = 1) -> float:
    daemon = Ticks()
    call_command(daemon, max_ticks=times, verbosity=verbosity)
    return daemon.stopwatch.seconds


def tick_without_listeners(times: int) -> float:
    with mock.patch.object(Log, "listening", return_value=contextlib.nullcontext()):
        return tick(times)


def tick_with_a_receiver(times: int) -> float:
    signals.iteration_finished.connect(do_nothing)
    try:
        return tick_without_listeners(times)
    finally:
        signals.iteration_finished.disconnect(do_nothing)


def tick_under_systemd(times: int) -> float:
    """With the address of a real socket; what arrives is not read until the end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("")  # an abstract address that the kernel picks
        os.environ["NOTIFY_SOCKET"] = "@" + systemd.getsockname()[1:].decode()
        return tick_without_listeners(times)


def do_nothing(**_: Any) -> None:
    """A receiver of the cheapest kind."""


def tick_with_a_line_each(times: int) -> float:
    """As at -v 2; the lines are formatted and written, to where they cost no disk."""
    with Path("/dev/null").open("w") as nowhere:
        handler = logging.StreamHandler(nowhere)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger.addHandler(handler)
        try:
            return tick(times, verbosity=2)
        finally:
            logger.removeHandler(handler)


CONTESTANTS: dict[str, Callable[[int], float]] = {
    "by hand": two_close_old_connections,
    "block": empty_block,
    "tick": tick_without_listeners,
    "notify": tick_under_systemd,
    "log": tick,
    "log, -v 2": tick_with_a_line_each,
    "receiver": tick_with_a_receiver,
}
