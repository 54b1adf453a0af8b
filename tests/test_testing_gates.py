"""Gates, which hold a daemon at a point until the test lets it go on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from daemonkit.testing import Gates, gate
from lab.processes import Daemon
from lab.waiting import eventually
from tests.kit.processes import Live

Walk = Callable[..., threading.Thread]


@pytest.fixture
def passed() -> list[str]:
    return []


@pytest.fixture
def walk(passed: list[str]) -> Iterator[Walk]:
    """``walk("a", "b")``: a thread that passes these gates, one after the other."""
    threads: list[threading.Thread] = []

    def pass_gates(*names: str) -> None:
        for name in names:
            gate(name)
            passed.append(name)

    def start(*names: str) -> threading.Thread:
        threads.append(threading.Thread(target=pass_gates, args=names, daemon=True))
        threads[-1].start()
        return threads[-1]

    yield start
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def test_without_a_test_a_gate_does_nothing() -> None:
    assert "DAEMONKIT_GATES" not in os.environ
    gate("anything")


def test_a_gate_is_open_until_it_is_closed(gates: Gates, walk: Walk, passed: list[str]) -> None:
    walk("a", "a", "a").join(20)
    assert passed == ["a", "a", "a"]
    assert gates["a"].arrivals == 3


def test_a_closed_gate_holds_who_comes_until_it_opens(
    gates: Gates, walk: Walk, passed: list[str]
) -> None:
    closed = gates.close("b")
    walk("a", "b", "c")
    closed.wait_for()
    assert passed == ["a"]
    closed.open()
    gates["c"].wait_for()
    walk("b").join(20)
    assert passed.count("b") == 2


def test_one_is_let_through_at_a_time(gates: Gates, walk: Walk, passed: list[str]) -> None:
    closed = gates.close("a")
    walk("a", "b")
    walk("a", "b")
    closed.wait_for(arrivals=2)
    closed.let_one_through()
    gates["b"].wait_for()
    assert passed.count("a") == 1
    closed.let_one_through()


def test_the_end_of_the_test_opens_all(walk: Walk, passed: list[str]) -> None:
    with Gates() as gates:
        gates.close("a")
        walk("a")
        gates["a"].wait_for()
    eventually(lambda: passed == ["a"])


def test_waiting_for_a_daemon_that_does_not_come_ends_in_a_sentence(gates: Gates) -> None:
    with pytest.raises(AssertionError, match="1 arrivals at the gate 'a'"):
        gates["a"].wait_for(within=0.01)
    with pytest.raises(AssertionError, match="a daemon at the gate 'b'"):
        gates.close("b").let_one_through(within=0.01)


def test_a_process_is_held_in_its_tick_and_one_that_was_killed_is_forgotten(
    gates: Gates, live: Live
) -> None:
    closed = gates.close("tick")
    first = live("gated")
    closed.wait_for()
    first.signal(signal.SIGKILL)
    first.wait()
    second: Daemon = live("gated")
    closed.let_one_through()
    second.wait_for("passed")
    closed.open()
    assert second.stop() == 0
    assert "passed" not in first.output
