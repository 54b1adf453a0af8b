"""When the next tick is due: schedules as values, and daemons that live by them.

Nothing here waits: a ``FakeClock`` lets hours pass at once, so that a night in which the clocks
change is a test like any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pytest_django import Settings

from daemonkit import Cron, Every, Iteration, Moment, Poll, Schedule
from daemonkit.schedules.durations import duration_text, parse_duration
from daemonkit.testing import FakeClock
from tests.kit.simulated import SetClock, live, starts, times, wall

HOUR, DAY = 3600.0, 86400.0


# A schedule is a value


def test_schedules_with_the_same_values_are_equal_and_have_one_hash() -> None:
    assert Every(90) == Every(seconds=90) == Every(minutes=1.5) == Every(minutes=1, seconds=30)
    assert Every(days=1) == Every(hours=24)
    assert Poll(idle=5) == Poll(5) == Poll()
    assert Cron("0 3 * * *") == Cron("0 3 * * *")
    assert len({Every(60), Every(minutes=1), Poll(60), Cron("0 3 * * *"), Cron("0 3 * * *")}) == 3


def test_schedules_that_differ_are_not_equal() -> None:
    assert Every(5) != Poll(5)
    assert Every(5) != Every(6)
    assert Cron("0 3 * * *") != Cron("0 3 * * *", timezone="Asia/Shanghai")


@pytest.mark.parametrize(
    ("schedule", "field"),
    [(Every(30), "seconds"), (Poll(5), "idle"), (Cron("0 3 * * *"), "expression")],
)
def test_a_schedule_is_frozen(schedule: Schedule, field: str) -> None:
    with pytest.raises(AttributeError, match=f"cannot change {field}"):
        setattr(schedule, field, 1)


@pytest.mark.parametrize(
    ("schedule", "text", "code"),
    [
        (Every(30), "every 30s", "Every(seconds=30.0)"),
        (Every(0.5), "every 500ms", "Every(seconds=0.5)"),
        (Every(hours=1, minutes=30), "every 1h30m", "Every(seconds=5400.0)"),
        (Poll(idle=5), "poll, idle 5s", "Poll(idle=5)"),
        (Cron("0 3 * * *"), "cron 0 3 * * *", "Cron(expression='0 3 * * *', timezone=None)"),
        (Cron("@daily"), "cron @daily", "Cron(expression='@daily', timezone=None)"),
        (
            Cron("0 3 * * mon-fri", timezone="Asia/Shanghai"),
            "cron 0 3 * * mon-fri (Asia/Shanghai)",
            "Cron(expression='0 3 * * mon-fri', timezone='Asia/Shanghai')",
        ),
    ],
)
def test_a_schedule_prints_itself(schedule: Schedule, text: str, code: str) -> None:
    assert str(schedule) == text
    assert repr(schedule) == code


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Every(),
            r"Every\(\) needs an interval above zero, .*Every\(seconds=30\), not 0 s",
        ),
        (lambda: Every(seconds=-1), r"above zero, .* not -1 s"),
        (lambda: Every(minutes=1, seconds=-60), r"above zero, .* not 0 s"),
        (lambda: Every(float("inf")), r"above zero, .* not inf s"),
        (lambda: Every(float("nan")), r"above zero, .* not nan s"),
        (lambda: Every("30s"), r"takes numbers, as in Every\(seconds=30\), not '30s'"),
        (lambda: Every(minutes=None), r"takes numbers, as in Every\(seconds=30\), not None"),
        (lambda: Poll(-1), r"Poll\(\) needs an idle time of zero seconds or more, not -1"),
        (lambda: Poll(idle=float("inf")), r"zero seconds or more, not inf"),
        (lambda: Poll("5s"), r"zero seconds or more, not '5s'"),
        (lambda: Cron(None), r"Cron\(\) takes a string such as '0 3 \* \* \*', not None"),
        (lambda: Cron(""), r"five fields \(minute hour day month weekday\), '' has 0"),
        (lambda: Cron("0 3 * *"), r"five fields .*, '0 3 \* \*' has 4"),
        (lambda: Cron("0 0 3 * * *"), r"five fields .* has 6"),
        (lambda: Cron("@reboot"), r"five fields .*, '@reboot' has 1"),
        (lambda: Cron("61 * * * *"), r"'61 \* \* \* \*' is no cron string: Bad minute"),
        (lambda: Cron("0 24 * * *"), r"Bad hour"),
        (lambda: Cron("0 0 * * 8"), r"Bad day-of-week"),
        (lambda: Cron("0 0 * * fri-mon"), r"Bad day-of-week"),
        (lambda: Cron("*/0 * * * *"), r"Bad minute"),
        (lambda: Cron("0 0 * foo *"), r"Bad month"),
        (lambda: Cron("0 0 30 2 *"), r"'0 0 30 2 \*' is no cron string: Bad day-of-month"),
        (
            lambda: Cron("0 3 * * *", timezone="Mars/Phobos"),
            r"'Mars/Phobos' is no time zone; write a name such as 'Europe/Berlin'",
        ),
        (lambda: Cron("0 3 * * *", timezone="../passwd"), r"is no time zone"),
    ],
)
def test_a_bad_value_is_refused_with_a_sentence_that_says_how_to_correct_it(
    make: Callable[[], Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()


# Durations, as in options and the log


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("30s", 30),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("1d", 86400),
        ("1d2h3m4s", 93784),
        (" 30s ", 30),
        (30, 30),
        (0.25, 0.25),
    ],
)
def test_a_duration_is_read(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "soon", "-1", "-1s", "1 h", "h1", "30sec", "1h 30m", "1e3", "inf", "nan", "1m30", "s"],
)
def test_an_invalid_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match=r"a duration such as 30s, 5m, 1h30m or 500ms, not '"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0002, "0.2ms"),
        (0.0123456, "12.3ms"),
        (0.5, "500ms"),
        (0.9994, "999ms"),
        (0.9996, "1s"),
        (1, "1s"),
        (1.5, "1.5s"),
        (59.9999, "1m"),
        (60, "1m"),
        (90, "1m30s"),
        (3600, "1h"),
        (5400, "1h30m"),
        (86400, "1d"),
        (93784.5, "1d2h3m4.5s"),
    ],
)
def test_a_duration_is_written_short(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_duration_that_is_written_reads_back() -> None:
    whole = [*range(1, 200), *range(200, 100_000, 977), 10**9]
    for seconds in [*whole, *(each / 1000 for each in whole)]:
        assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, rel=0.005)


# Every: from start to start, on the monotonic clock


def test_every_starts_at_once_and_then_from_start_to_start_without_drift() -> None:
    clock = FakeClock()
    lengths = itertools.cycle([0.0, 3.7, 9.9, 0.001])
    iterations = live(Every(10), clock, 500, lambda: clock.advance(next(lengths)))
    assert starts(iterations) == [10.0 * number for number in range(500)]


def test_waits_that_end_late_do_not_add_up() -> None:
    class Sluggish(FakeClock):
        def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
            super().wait(seconds + 0.003, told_to_stop)

    iterations = live(Every(10), Sluggish(), 100)
    assert starts(iterations)[-1] == 990.003
    assert all(iteration.late == pytest.approx(0.003) for iteration in iterations[1:])


def test_an_overlong_tick_is_followed_at_once_and_missed_ticks_are_not_made_up() -> None:
    clock = FakeClock()
    lengths = iter([1, 35, 1, 1, 1])
    iterations = live(Every(10), clock, 5, lambda: clock.advance(next(lengths)))
    assert starts(iterations) == [0, 10, 45, 55, 65]
    assert [iteration.late for iteration in iterations] == [0] * 5


def test_a_tick_as_long_as_the_interval_skips_no_due_time() -> None:
    clock = FakeClock()
    assert starts(live(Every(10), clock, 4, lambda: clock.advance(10))) == [0, 10, 20, 30]


@pytest.mark.parametrize("by", [HOUR, -HOUR, 400 * DAY, -400 * DAY])
def test_setting_the_wall_clock_does_not_change_an_interval(by: float) -> None:
    clock = SetClock(wall("2024-05-01 12:00"), after=25, by=by)
    assert starts(live(Every(10), clock, 6)) == [0, 10, 20, 30, 40, 50]


# Poll: at once while there is work


def test_a_poller_ticks_again_at_once_while_there_is_work_and_waits_when_there_is_none() -> None:
    clock = FakeClock()
    found = iter([3, 1, 0, 2, None])
    iterations = live(Poll(idle=5), clock, 5, lambda: next(found))
    assert starts(iterations) == [0, 0, 0, 5, 5]
    assert clock.waits == [5]


def test_a_poller_waits_from_the_end_of_its_tick() -> None:
    clock = FakeClock()
    assert starts(live(Poll(idle=5), clock, 3, lambda: clock.advance(2))) == [0, 7, 14]


# Cron: Debian's rules, on the wall clock


def upcoming(
    expression: str, after: str, count: int, zone: str = "UTC", fold: int = 0
) -> list[str]:
    """The next times of a cron string: "Fri 2024-09-13 00:00"."""
    now = Moment(0.0, wall(after, zone, fold))
    due = Cron(expression, timezone=zone).upcoming(now)
    return [moment.strftime("%a %Y-%m-%d %H:%M") for moment in itertools.islice(due, count)]


def test_zero_and_seven_are_sunday_and_so_is_its_name() -> None:
    sundays = ["Sun 2024-09-15 00:00", "Sun 2024-09-22 00:00"]
    for weekday in ("0", "7", "sun", "SUN"):
        assert upcoming(f"0 0 * * {weekday}", "2024-09-09", 2) == sundays


def test_one_is_monday() -> None:
    assert upcoming("0 0 * * 1", "2024-09-10", 1) == ["Mon 2024-09-16 00:00"]


def test_names_ranges_lists_and_steps() -> None:
    assert upcoming("0 3 * * mon-fri", "2024-09-12 12:00", 3) == [
        "Fri 2024-09-13 03:00",
        "Mon 2024-09-16 03:00",
        "Tue 2024-09-17 03:00",
    ]
    assert upcoming("0 0 1 jan,jul *", "2024-02-01", 2) == [
        "Mon 2024-07-01 00:00",
        "Wed 2025-01-01 00:00",
    ]
    assert upcoming("10-30/10 8,20 * * *", "2024-09-12 08:20", 3) == [
        "Thu 2024-09-12 08:30",
        "Thu 2024-09-12 20:10",
        "Thu 2024-09-12 20:20",
    ]
    assert upcoming("0 0 29 2 *", "2024-09-12", 1) == ["Tue 2028-02-29 00:00"]


def test_a_day_of_the_month_and_a_weekday_match_if_either_does() -> None:
    assert upcoming("0 0 13 * fri", "2024-09-09", 4) == [
        "Fri 2024-09-13 00:00",
        "Fri 2024-09-20 00:00",
        "Fri 2024-09-27 00:00",
        "Fri 2024-10-04 00:00",
    ]


def test_both_must_match_if_one_of_them_begins_with_a_star() -> None:
    assert upcoming("0 0 */2 * fri", "2024-09-09", 2) == [
        "Fri 2024-09-13 00:00",
        "Fri 2024-09-27 00:00",
    ]


@pytest.mark.parametrize(
    ("nickname", "expression"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("@DAILY", "0 0 * * *"),
    ],
)
def test_a_nickname_means_its_five_fields(nickname: str, expression: str) -> None:
    after = "2024-09-12 12:34"
    assert upcoming(nickname, after, 3) == upcoming(expression, after, 3)


def test_a_cron_string_without_a_time_zone_uses_that_of_the_project(settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Shanghai"
    noon = Moment(0.0, wall("2024-09-12 12:00"))
    assert Cron("0 3 * * *").due(None, noon, noon).utc == datetime(2024, 9, 12, 19, tzinfo=UTC)
    berlin = Cron("0 3 * * *", timezone="Europe/Berlin")
    assert berlin.due(None, noon, noon).utc == datetime(2024, 9, 13, 1, tzinfo=UTC)
    settings.TIME_ZONE = "America/New_York"
    assert Cron("0 3 * * *").due(None, noon, noon).utc == datetime(2024, 9, 13, 7, tzinfo=UTC)


def test_coming_due_times_are_in_the_time_zone_of_the_schedule(settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Shanghai"
    noon = Moment(0.0, wall("2024-09-12 12:00"))
    first = [next(each.upcoming(noon)) for each in (Every(60), Cron("0 3 * * *", timezone="UTC"))]
    assert [str(due) for due in first] == ["2024-09-12 20:00:00+08:00", "2024-09-13 03:00:00+00:00"]


def test_a_cron_daemon_waits_for_its_first_time() -> None:
    iterations = live(Cron("0 3 * * *"), FakeClock(wall("2024-09-12 02:00")), 3)
    assert starts(iterations) == [HOUR, HOUR + DAY, HOUR + 2 * DAY]


def test_cron_times_missed_during_an_overlong_tick_cause_one_tick() -> None:
    clock = FakeClock(wall("2024-09-12 00:00"))
    lengths = iter([0, 3.5 * HOUR, 0, 0])
    iterations = live(Cron("0 * * * *"), clock, 4, lambda: clock.advance(next(lengths)))
    assert times(iterations) == [
        "Thu 01:00+0000",
        "Thu 02:00+0000",
        "Thu 05:30+0000",
        "Thu 06:00+0000",
    ]


# The nights in which the clocks change: in Berlin on 2024-10-27 at 03:00, back, and on 2024-03-31
# at 02:00, forward


def night(expression: str, begin: str, hours: float, fold: int = 0) -> list[str]:
    """When a daemon in Berlin ticks in the ``hours`` after ``begin``."""
    clock = FakeClock(wall(begin, "Europe/Berlin", fold))
    schedule = Cron(expression, timezone="Europe/Berlin")
    iterations = live(schedule, clock, max_seconds=hours * HOUR)
    return times(iterations, "Europe/Berlin")


def test_a_fixed_time_in_the_repeated_hour_fires_once() -> None:
    assert night("30 2 * * *", "2024-10-26 12:00", 48) == ["Sun 02:30+0200", "Mon 02:30+0100"]


def test_a_fixed_time_in_the_skipped_hour_fires_once_when_it_is_over() -> None:
    assert night("30 2 * * *", "2024-03-30 12:00", 48) == ["Sun 03:00+0200", "Mon 02:30+0200"]


def test_several_fixed_times_in_the_skipped_hour_fire_once() -> None:
    assert night("15,45 2 * * *", "2024-03-31 00:00", 12) == ["Sun 03:00+0200"]
    assert night("30 2,3 * * *", "2024-03-31 00:00", 12) == ["Sun 03:00+0200", "Sun 03:30+0200"]


def test_an_hourly_time_also_fires_in_the_repeated_hour() -> None:
    assert night("30 * * * *", "2024-10-27 01:00", 4) == [
        "Sun 01:30+0200",
        "Sun 02:30+0200",
        "Sun 02:30+0100",
        "Sun 03:30+0100",
    ]


def test_an_hourly_time_fires_each_hour_across_the_skipped_one() -> None:
    assert night("30 * * * *", "2024-03-31 01:00", 2) == ["Sun 01:30+0100", "Sun 03:30+0200"]


def test_a_half_hourly_time_fires_each_half_hour_in_both_nights() -> None:
    for begin in ("2024-10-27 00:00", "2024-03-31 00:00"):
        clock = FakeClock(wall(begin, "Europe/Berlin"))
        ticks = live(Cron("*/30 * * * *", timezone="Europe/Berlin"), clock, 12)
        assert starts(ticks) == [HOUR / 2 * number for number in range(1, 13)]


def test_a_daemon_started_inside_the_repeated_hour_neither_bursts_nor_fires_again() -> None:
    first, second = 0, 1
    assert night("30 2 * * *", "2024-10-27 02:15", 6, first) == ["Sun 02:30+0200"]
    assert night("30 2 * * *", "2024-10-27 02:45", 6, first) == []
    assert night("30 2 * * *", "2024-10-27 02:15", 6, second) == []
    assert night("30 2 * * *", "2024-10-27 02:45", 6, second) == []
    assert night("*/20 2 * * *", "2024-10-27 02:30", 6, second) == ["Sun 02:40+0100"]
    assert night("0 * * * *", "2024-10-27 02:30", 2, first) == ["Sun 02:00+0100", "Sun 03:00+0100"]


# Waits that end early, and clocks that are set


def test_a_wait_that_ends_a_millisecond_early_fires_once() -> None:
    class Hasty(FakeClock):
        def wait(self, seconds: float, told_to_stop: Callable[[float], bool]) -> None:
            super().wait(seconds - 0.001 if seconds > 0.01 else seconds, told_to_stop)

    for schedule in (Cron("0 * * * *"), Every(HOUR)):
        begun = starts(live(schedule, Hasty(wall("2024-09-12 11:59:00")), 3))
        assert [round(after - before) for before, after in itertools.pairwise(begun)] == [HOUR] * 2


def test_a_tick_that_started_a_millisecond_early_is_not_due_again() -> None:
    due, early = (
        Moment(60.0, wall("2024-09-12 12:00")),
        Moment(59.999, wall("2024-09-12 12:00") - 0.001),
    )
    last = Iteration(number=1, due=due, started=early, seconds=0.0001)
    again = Cron("0 * * * *").due(last, early, early)
    assert again.wall == wall("2024-09-12 13:00")


@pytest.mark.parametrize("expression", ["*/10 * * * *", "0,10,20,30,40,50 * * * *"])
def test_a_clock_set_back_an_hour_stops_no_schedule(expression: str) -> None:
    clock = SetClock(wall("2024-09-12 12:00"), after=25 * 60, by=-HOUR)
    ticks = live(Cron(expression), clock, 6)
    assert times(ticks) == [
        f"Thu {time}+0000" for time in ("12:10", "12:20", "11:30", "11:40", "11:50", "12:00")
    ]
    assert starts(ticks) == [600.0 * number for number in range(1, 7)]


@pytest.mark.parametrize("expression", ["*/10 * * * *", "0 3 * * *", "30 12 * * *"])
def test_a_clock_set_back_by_months_stops_no_schedule(expression: str) -> None:
    clock = SetClock(wall("2024-09-12 12:45"), after=DAY + HOUR, by=-100 * DAY)
    ticks = live(Cron(expression), clock, max_seconds=3 * DAY)
    per_day = 144 if expression.startswith("*") else 1
    assert len(ticks) == 3 * per_day


def test_a_clock_set_forward_an_hour_causes_one_tick_at_once_and_no_burst() -> None:
    clock = SetClock(wall("2024-09-12 12:00"), after=25 * 60, by=HOUR)
    ticks = live(Cron("*/10 * * * *"), clock, 5)
    assert times(ticks) == [
        f"Thu {time}+0000" for time in ("12:10", "12:20", "13:25", "13:30", "13:40")
    ]


def test_a_fixed_time_that_a_clock_set_forward_jumps_over_fires_once_at_once() -> None:
    clock = SetClock(wall("2024-09-12 02:00"), after=30 * 60, by=HOUR)
    ticks = live(Cron("0 3 * * *"), clock, 2)
    assert times(ticks) == ["Thu 03:30+0000", "Fri 03:00+0000"]


@pytest.mark.parametrize("by", [-5.0, -HOUR, -2.5 * HOUR])
def test_a_fixed_time_is_not_run_twice_because_the_clock_is_corrected(by: float) -> None:
    clock = SetClock(wall("2024-09-12 02:59"), after=62, by=by)
    ticks = live(Cron("0 3 * * *"), clock, max_seconds=30 * HOUR)
    assert times(ticks) == ["Thu 03:00+0000", "Fri 03:00+0000"]


def test_a_correction_of_seconds_repeats_no_tick() -> None:
    clock = SetClock(wall("2024-09-12 12:00"), after=601, by=-5)
    ticks = live(Cron("*/10 * * * *"), clock, 3)
    assert times(ticks) == [f"Thu {time}+0000" for time in ("12:10", "12:20", "12:30")]


def test_a_clock_that_was_wrong_at_the_start_hides_no_later_due_time() -> None:
    clock = SetClock(wall("2024-09-12 04:30"), after=60, by=-2 * HOUR)
    assert times(live(Cron("0 3 * * *"), clock, 1)) == ["Thu 03:00+0000"]
    assert clock.moment().monotonic < HOUR


def test_a_wait_notices_within_a_pulse_that_the_clock_was_set() -> None:
    clock = SetClock(wall("2024-09-12 02:00"), after=600, by=-HOUR)
    ticks = live(Cron("0 3 * * *"), clock, 1, pulse=60)
    assert max(clock.waits) == 60
    assert starts(ticks) == [2 * HOUR]
