"""When jobs are due: plain questions about moments, without a clock, a thread or a database."""

from __future__ import annotations

from datetime import timedelta

import pytest
from apscheduler.triggers.date import DateTrigger

from daemonkit import Cron, Every, Moment, Poll, Schedule
from daemonkit.clock import NEVER
from daemonkit.jobs.agenda import Agenda
from daemonkit.jobs.due_times import DueTimes
from daemonkit.jobs.wall_clock import WallClock
from daemonkit.schedules.triggers import as_schedule
from tests.kit.simulated import wall

NOON = Moment(1000.0, wall("2026-03-02 12:00"))


def later(seconds: float) -> Moment:
    return NOON.later(seconds)


def started(schedule: Schedule) -> DueTimes:
    times = DueTimes(schedule, NOON)
    times.start(NOON)
    return times


def seconds(moments: list[Moment]) -> list[float]:
    """Seconds after noon."""
    return [round(moment.monotonic - NOON.monotonic, 3) for moment in moments]


def test_each_due_time_is_taken_once_and_in_order() -> None:
    times = started(Every(seconds=10))
    assert seconds(times.take(later(0), 5)) == [0]
    assert seconds([times.next]) == [10]
    assert seconds(times.take(later(31), 5)) == [10, 20, 30]
    assert seconds([times.next]) == [40]


def test_of_many_that_passed_together_the_newest_are_taken() -> None:
    times = started(Every(seconds=1))
    assert seconds(times.take(later(1_000_000.5), 3)) == [999_998, 999_999, 1_000_000]
    assert seconds([times.next]) == [1_000_001]


def test_a_poller_has_none_until_its_run_has_ended() -> None:
    times = started(Poll(idle=5))
    assert seconds(times.take(later(0), 5)) == [0]
    assert times.next == NEVER


def test_a_date_is_taken_once() -> None:
    times = started(as_schedule(DateTrigger("2026-03-02 12:05:00", timezone="UTC")))
    assert seconds(times.take(later(301), 5)) == [300]
    assert times.next == NEVER


def test_a_new_leader_counts_from_when_it_came_to_lead() -> None:
    times = started(Every(seconds=10))
    times.take(later(0), 5)
    times.restart(later(7), later(8))
    assert seconds([times.next]) == [7]


def test_when_the_wall_clock_was_set_the_next_due_time_is_asked_again() -> None:
    times = started(Cron("0 * * * *"))
    assert seconds([times.next]) == [3600]
    half_an_hour_ahead = Moment(NOON.monotonic + 1, NOON.wall + 1801)
    times.ask_again(half_an_hour_ahead)
    assert seconds([times.next]) == [1800]


@pytest.mark.parametrize(("away", "count"), [(3.5, 3), (24 * 400, 5)])
def test_missed_due_times_are_the_newest_since_the_last_row(away: float, count: int) -> None:
    times = started(Cron("0 * * * *"))
    found = times.between(NOON, later(away * 3600), limit=5)
    hours = [round(each / 3600) for each in seconds(found)]
    newest = int(away)
    assert hours == list(range(newest - count + 1, newest + 1))


# The agenda


def test_the_agenda_gives_what_is_due_in_its_order() -> None:
    agenda = Agenda[str]()
    for key, due in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
        agenda.put(key, later(due))
    assert list(agenda.pop(later(2))) == ["a", "b"]
    assert agenda.next_due() == later(3)
    assert list(agenda.pop(later(2))) == []


def test_only_the_last_due_time_of_a_key_counts() -> None:
    agenda = Agenda[str]()
    agenda.put("a", later(1))
    agenda.put("a", later(5))
    agenda.put("b", later(2))
    agenda.put("b", NEVER)
    assert list(agenda.pop(later(4))) == []
    assert agenda.next_due() == later(5)
    agenda.put("a", NEVER)
    assert agenda.next_due() == NEVER


def test_what_is_put_while_the_agenda_is_read_is_read_too() -> None:
    agenda = Agenda[str]()
    agenda.put("a", later(1))
    read = []
    for key in agenda.pop(later(3)):
        read.append(key)
        agenda.put(key, later(1 + len(read)))
    assert read == ["a", "a", "a"]


# The wall clock


def test_a_wall_clock_that_runs_evenly_was_not_set() -> None:
    clock = WallClock(NOON)
    assert not any(clock.was_set(later(hours * 3600)) for hours in range(100))


def test_an_hour_that_is_shown_twice_has_labels_of_its_own() -> None:
    clock = WallClock(NOON)
    due = later(1800)
    first = clock.label(due)
    assert first == due.utc
    set_back = Moment(NOON.monotonic + 3600, NOON.wall)
    assert clock.was_set(set_back)
    assert not clock.was_set(set_back)
    again = Moment(NOON.monotonic + 3600 + 1800, NOON.wall + 1800)
    assert clock.label(again) == first + timedelta(microseconds=1)
    assert clock.label(set_back.later(3601)) == set_back.later(3601).utc


def test_a_correction_of_less_than_a_second_repeats_no_label() -> None:
    clock = WallClock(NOON)
    assert clock.was_set(Moment(NOON.monotonic + 60, NOON.wall + 59.5))
    assert clock.label(later(59.7)) == later(59.7).utc
