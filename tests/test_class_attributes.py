"""What a daemon's class says, and the one sentence that refuses what makes no sense there."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from daemonkit import Backoff, BaseDaemonCommand, Every, Exit, Poll
from daemonkit.testing import FakeClock


def daemon(**attributes: Any) -> BaseDaemonCommand:
    """A daemon that ticks well, but for these attributes of its class."""
    members = {"__module__": "shop.prices", "schedule": Every(30), "tick": lambda self: None}
    kind = type("Command", (BaseDaemonCommand,), {**members, **attributes})
    return kind()  # type: ignore[no-any-return]


def live_once(command: BaseDaemonCommand) -> None:
    call_command(command, clock=FakeClock(), max_ticks=1)


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("tick_timout", 5, "tick_timeout"),
        ("shedule", Every(30), "schedule"),
        ("max_faliures", 3, "max_failures"),
        ("max_memmory", "300m", "max_memory"),
        ("worker", 4, "workers"),
        ("per_workers", True, "per_worker"),
        ("back_off", Backoff(first=2), "backoff"),
        ("stop_timeouts", 5, "stop_timeout"),
    ],
)
def test_a_misspelt_setting_is_refused_with_the_name_that_is_nearest(
    name: str, value: Any, meant: str
) -> None:
    with pytest.raises(CommandError, match=f"{name} = .*: write {meant}, or") as refused:
        live_once(daemon(**{name: value}))
    assert refused.value.returncode == Exit.USAGE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("worker", None), ("thread", None), ("stop_time", "18:00"), ("reader", "csv")],
        *[("header", True), ("interval", 30), ("_tick_timout", 5), ("timeout", 5)],
        ("schedules", lambda self: []),
    ],
)
def test_an_attribute_of_the_daemons_own_is_left_alone(name: str, value: Any) -> None:
    live_once(daemon(**{name: value}))


def with_argument(self: Any, more: int) -> None: ...


def with_default(self: Any, more: int = 1) -> None: ...


@pytest.mark.parametrize(
    ("method", "wrong", "sentence"),
    [
        ("tick", with_argument, r"prices\.tick\(\) is called with no arguments besides self"),
        ("tick", lambda: None, r"prices\.tick\(\) is called with no arguments besides self"),
        ("on_error", lambda self: None, r"prices\.on_error\(\) is called with the iteration"),
    ],
)
def test_a_method_that_cannot_be_called_as_it_will_be_is_refused(
    method: str, wrong: Callable[..., Any], sentence: str
) -> None:
    with pytest.raises(CommandError, match=sentence) as refused:
        live_once(daemon(**{method: wrong}))
    assert refused.value.returncode == Exit.USAGE
    live_once(daemon(tick=with_default))


@pytest.mark.parametrize("opened", [None, 7, iter([1])])
def test_a_lifespan_that_is_no_context_manager_is_refused(opened: Any) -> None:
    sentence = r"prices\.lifespan\(\) returned .*: return a context manager"
    with pytest.raises(CommandError, match=sentence) as refused:
        live_once(daemon(lifespan=lambda self: opened))
    assert refused.value.returncode == Exit.USAGE
    live_once(daemon(lifespan=lambda self: contextlib.nullcontext()))


# A tick whose decorator knows no coroutines


def traced(work: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(work)
    def wrapper(*arguments: Any) -> Any:
        return work(*arguments)

    return wrapper


def test_a_tick_that_returns_an_awaitable_is_awaited() -> None:
    done: list[str] = []

    async def tick(self: BaseDaemonCommand) -> str:
        done.append("work")
        return "worked"

    assert daemon(tick=traced(tick)).iterate().result == "worked"
    assert done == ["work"]


def test_what_an_awaited_tick_raises_is_its_failure_and_what_it_returns_its_result() -> None:
    async def tick(self: BaseDaemonCommand) -> int:
        ticks.append(1)
        if len(ticks) == 1:
            raise ValueError("a bad row")
        return len(ticks) % 3

    ticks: list[int] = []
    command = daemon(tick=traced(tick), schedule=Poll(idle=5))
    assert isinstance(command.iterate().error, ValueError)
    clock = FakeClock()
    call_command(command, clock=clock, max_ticks=4)
    assert len(ticks) == 5
    assert clock.waits == [5.0, 5.0] or len(clock.waits) <= 2
