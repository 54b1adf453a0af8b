"""Listeners: which signals of which daemon they receive."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.dispatch import Signal

from daemonkit import BaseDaemonCommand, Poll, signals
from daemonkit.exits import Ending
from daemonkit.listeners.listener import Listener
from daemonkit.signals import announce


class Quick(BaseDaemonCommand):
    schedule = Poll(idle=60)

    def tick(self) -> None: ...


class Noting(Listener):
    """Records what it receives, until it is closed."""

    def __init__(self, daemon: BaseDaemonCommand) -> None:
        super().__init__(daemon)
        self.heard: list[str] = []

    def moments(self) -> dict[Signal, Callable[..., None]]:
        return {signals.daemon_ready: self.ready, signals.daemon_stopped: self.stopped}

    def ready(self, **_: Any) -> None:
        self.heard.append("ready")

    def stopped(self, reason: str, **_: Any) -> None:
        self.heard.append(reason)

    def close(self) -> None:
        self.heard.append("closed")


def test_a_listener_ignores_other_daemons_of_the_same_class() -> None:
    first, second = Quick(), Quick()
    listener = Noting(first)
    with listener.listening():
        announce(signals.daemon_ready, second)
        assert listener.heard == []
        announce(signals.daemon_ready, first)
        assert listener.heard == ["ready"]
    announce(signals.daemon_ready, first)
    assert listener.heard == ["ready"]


def test_a_listener_receives_the_stop_of_its_daemon_and_is_then_closed() -> None:
    first, second = Quick(), Quick()
    listener = Noting(first)
    listener.listen_until_stopped()
    announce(signals.daemon_stopped, second, reason="another one")
    announce(signals.daemon_stopped, first, reason="SIGTERM")
    announce(signals.daemon_ready, first)
    assert listener.heard == ["SIGTERM", "closed"]
    assert not signals.daemon_stopped.has_listeners(Quick)


def test_two_lives_of_one_daemon_in_a_process_write_each_line_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Nesting(Quick):
        def tick(self) -> None:
            if self.options["max_ticks"] == 1:
                call_command(Nesting(), max_ticks=2, every="1ms")

    with caplog.at_level(logging.INFO, logger="daemonkit"):
        call_command(Nesting(), max_ticks=1)
    stopped = [record.getMessage() for record in caplog.records if "stopped" in record.msg]
    assert stopped == [
        "test_listeners stopped: max_ticks of 2 reached",
        "test_listeners stopped: max_ticks of 1 reached",
    ]


@pytest.mark.parametrize(
    ("options", "ending"),
    [
        ({"max_ticks": 1}, Ending.LIMIT),
        ({"once": True}, Ending.LIMIT),
        ({"every": "10ms", "max_seconds": 0.05}, Ending.LIMIT),
    ],
)
def test_daemon_stopped_carries_an_ending(options: dict[str, Any], ending: Ending) -> None:
    assert endings_of(Quick(), **options) == [ending]


def test_a_life_that_raises_has_failed() -> None:
    class Raising(Quick):
        def lifespan(self) -> Any:
            raise ValueError("no such file")

    with pytest.raises(ValueError, match="no such file"):
        endings_of(Raising())
    assert heard == [Ending.FAILED]


heard: list[Ending] = []


def endings_of(daemon: BaseDaemonCommand, **options: Any) -> list[Ending]:
    heard.clear()

    def hear(ending: Ending, **_: Any) -> None:
        heard.append(ending)

    signals.daemon_stopped.connect(hear, sender=type(daemon))
    try:
        call_command(daemon, **options)
    finally:
        signals.daemon_stopped.disconnect(hear, sender=type(daemon))
    return heard
