"""The protocol between supervisor and worker, and the order of replacements, without processes."""

from __future__ import annotations

import os
import select

import pytest

from daemonkit import Poll
from daemonkit.command import BaseDaemonCommand
from daemonkit.settings.settings import Settings
from daemonkit.workers.orders import Orders
from daemonkit.workers.places import Place, Team
from daemonkit.workers.turns import LONGEST_TURN, Turns
from daemonkit.workers.wire import LineBuffer, News, Order, Report, Verb
from daemonkit.workers.worker import Worker


@pytest.mark.parametrize("verb", Verb)
def test_an_order_is_decoded_as_it_was_encoded(verb: Verb) -> None:
    order = Order(verb, "SIGTERM")
    assert Order.decode(order.encode()) == order


@pytest.mark.parametrize("news", News)
def test_a_report_is_decoded_as_it_was_encoded(news: News) -> None:
    report = Report(news, 1207, 2, "41 of 90 files: “läuft” \x00", 0.25)
    assert Report.decode(report.encode()) == report


def test_a_text_of_several_lines_is_sent_as_one_line() -> None:
    assert Report.decode(Report(News.BEAT, text="one\ntwo\r\n").encode()).text == "one two"


def test_a_line_fits_into_one_atomic_write_to_a_pipe() -> None:
    for text in ("x" * 100_000, "\U0001f600" * 100_000, "\udc80" * 100_000):
        assert len(Report(News.BEAT, 10**12, 10**12, text, 1e300).encode()) < select.PIPE_BUF


def test_pieces_of_lines_are_joined() -> None:
    buffer = LineBuffer()
    whole = Report(News.READY).encode() + Report(News.IDLE).encode()
    lines = [line for byte in whole for line in buffer.lines(bytes([byte]))]
    assert [Report.decode(line).news for line in lines] == [News.READY, News.IDLE]


def test_orders_are_carried_out_until_the_supervisor_is_gone() -> None:
    reader, writer = os.pipe()
    followed: list[str] = []
    orders = Orders(reader)

    def follow() -> bool:
        return orders.follow(
            lambda reason: followed.append(f"stop: {reason}"),
            lambda reason: followed.append(f"force: {reason}"),
        )

    os.write(writer, Order(Verb.STOP, "SIGTERM").encode() + Order(Verb.FORCE, "again").encode())
    assert follow()
    assert followed == ["stop: SIGTERM", "force: again"]
    os.close(writer)
    assert not follow()
    os.close(reader)


# Which worker is replaced next


class Polling(BaseDaemonCommand):
    schedule = Poll()
    workers = 3
    stop_timeout = 7.0

    def tick(self) -> None: ...


@pytest.fixture
def places() -> list[Place]:
    """Three ready workers, each of which has reached a limit."""
    daemon = Polling()
    team = Team(daemon, Settings(daemon, {}), lambda: None)
    places = list(team.places())
    for place in places:
        fill(place).limit = "max_ticks of 5 reached"
    return places


def fill(place: Place) -> Worker:
    place.worker = worker = Worker(place.label, place.team.settings, pid=0, orders=0, reports=0)
    worker.is_ready = True
    return worker


def test_the_next_worker_stops_when_the_successor_of_the_last_one_is_ready(
    places: list[Place],
) -> None:
    turns = Turns(places, now=100.0)
    first = turns.next(100.0)
    assert first is places[0].worker
    assert first is not None
    first.is_leaving = True
    assert turns.next(101.0) is None  # it is stopping
    places[0].worker = None
    assert turns.next(102.0) is None
    fill(places[0]).is_ready = False
    assert turns.next(103.0) is None
    fill(places[0])
    assert turns.next(104.0) is places[1].worker


def test_no_worker_is_replaced_before_all_are_ready(places: list[Place]) -> None:
    turns = Turns(places, now=100.0)
    fill(places[2]).is_ready = False
    assert turns.next(100.0) is None
    assert turns.deadline == 100.0 + LONGEST_TURN


def test_a_successor_that_is_never_ready_does_not_block_the_others_for_ever(
    places: list[Place],
) -> None:
    turns = Turns(places, now=100.0)
    turns.next(100.0)
    places[0].worker = None
    assert turns.deadline == 100.0 + 7.0 + LONGEST_TURN
    assert turns.next(turns.deadline) is places[1].worker


def test_no_worker_is_replaced_if_none_has_reached_a_limit(places: list[Place]) -> None:
    for place in places:
        fill(place)
    turns = Turns(places, now=100.0)
    assert turns.next(100.0) is None
    assert turns.deadline == float("inf")
