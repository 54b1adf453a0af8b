"""What a name means: a daemon of the project, any command, or any callable."""

from __future__ import annotations

import signal
from collections.abc import Generator
from typing import Any

import pytest
from django.core.management import CommandError, call_command, get_commands
from django.core.management.base import BaseCommand
from django.db import connection
from shop import prices
from shop.management.commands import expire_baskets
from shop.models import Supplier

from daemonkit import BaseDaemonCommand, Every, Exit, Iteration
from daemonkit.discovery import CallableDaemon, Found, find_daemon, find_daemons
from daemonkit.foreign import CommandDaemon
from daemonkit.signals import iteration_finished, tick_overdue

done: list[str] = []


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


# Callables, for run_daemon tests.test_discovery.NAME


def work() -> str:
    """Do something.

    And a longer text about it.
    """
    done.append("work")
    return "done"


async def work_later() -> None:
    done.append("later")


def work_lazily() -> Generator[int]:
    yield 1


class Worker:
    def __call__(self) -> None:
        done.append("called")


worker = Worker()


def ticks(path: str, count: int = 1) -> list[Iteration]:
    """Run a callable as a daemon, and return what its ticks came to."""
    iterations: list[Iteration] = []

    def note(iteration: Iteration, **_: Any) -> None:
        iterations.append(iteration)

    iteration_finished.connect(note, sender=CallableDaemon)
    call_command("run_daemon", path, "--every", "1ms", "--max-ticks", str(count))
    return iterations


# The project's daemons


def test_every_command_that_is_a_daemon_is_found_and_nothing_else() -> None:
    found = {each.name: each for each in find_daemons()}
    assert found.keys() >= {"daily_report", "expire_baskets", "import_prices"}
    assert found.keys() <= get_commands().keys()
    assert not found.keys() & {"visit_shop", "clearsessions", "migrate", "run_daemon", "daemons"}
    one = found["expire_baskets"]
    assert isinstance(one.daemon, expire_baskets.Command)
    assert one == Found("expire_baskets", "shop", one.daemon)


def test_they_come_in_the_order_of_their_names() -> None:
    names = [each.name for each in find_daemons()]
    assert names == sorted(names)


def test_a_name_means_the_command_of_that_name() -> None:
    daemon = find_daemon("expire_baskets")
    assert isinstance(daemon, expire_baskets.Command)
    assert daemon.name == "expire_baskets"
    assert daemon.schedule == Every(seconds=30)


def test_a_name_that_nothing_has_tells_the_nearest_ones() -> None:
    with pytest.raises(CommandError, match=r"did you mean expire_baskets\?") as caught:
        find_daemon("expire_basket")
    assert caught.value.returncode == Exit.USAGE


# Any command


def test_any_command_can_be_a_daemon_with_its_own_name_and_help() -> None:
    daemon = find_daemon("clearsessions", ["--verbosity", "0"])
    assert isinstance(daemon, CommandDaemon)
    assert (daemon.name, daemon.schedule) == ("clearsessions", None)
    assert daemon.help.startswith("Can be run as a cronjob")


class Ending(BaseCommand):
    """A command that ends as it is told to."""

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("how")

    def handle(self, *args: Any, how: str, **options: Any) -> str | None:
        if how == "refusing":
            raise CommandError("not today")
        if how.startswith("exiting"):
            raise SystemExit({"exiting": None, "exiting 0": 0, "exiting 3": 3}[how])
        return how or None


@pytest.mark.parametrize("how", ["exiting", "exiting 0", ""])
def test_a_command_that_ends_well_by_exiting_is_a_good_tick(how: str) -> None:
    iteration = CommandDaemon("ending", Ending(), [how]).iterate()
    assert (iteration.error, iteration.result) == (None, None)


def test_what_a_command_returns_is_its_result() -> None:
    assert CommandDaemon("ending", Ending(), ["41 removed"]).iterate().result == "41 removed"


@pytest.mark.parametrize(
    ("how", "sentence"), [("exiting 3", "ending exited with 3"), ("refusing", "not today")]
)
def test_a_command_that_ends_badly_is_a_failed_tick(how: str, sentence: str) -> None:
    error = CommandDaemon("ending", Ending(), [how]).iterate().error
    assert isinstance(error, CommandError)
    assert str(error) == sentence


# Any callable


def test_a_dotted_path_means_a_callable() -> None:
    daemon = find_daemon("tests.test_discovery.work")
    assert isinstance(daemon, CallableDaemon)
    assert (daemon.name, daemon.help) == ("tests.test_discovery.work", "Do something.")


def test_a_callable_is_called_in_each_tick_and_its_result_is_the_ticks() -> None:
    iterations = ticks("tests.test_discovery.work", 3)
    assert done == ["work"] * 3
    assert [iteration.result for iteration in iterations] == ["done"] * 3


def test_an_object_that_can_be_called_is_a_callable_too() -> None:
    ticks("tests.test_discovery.worker")
    assert done == ["called"]


def test_a_coroutine_function_is_awaited() -> None:
    ticks("tests.test_discovery.work_later", 2)
    assert done == ["later"] * 2


def test_a_generator_is_refused_for_it_returns_before_it_works() -> None:
    with pytest.raises(CommandError, match="is a generator, which returns before it works"):
        find_daemon("tests.test_discovery.work_lazily")


def test_a_callable_needs_no_docstring() -> None:
    assert CallableDaemon("some.path", lambda: None).help == ""


@pytest.mark.django_db
def test_a_tick_of_a_callable_is_a_unit_of_work_with_the_database() -> None:
    Supplier.objects.create(code="ACME")
    daemon = find_daemon("shop.prices.refresh")
    assert daemon.iterate().result == prices.refresh() == "averages of 1 suppliers"
    assert connection.in_atomic_block  # the test's own transaction was left alone


def test_a_borrowed_daemon_is_one_like_every_other() -> None:
    for daemon in (find_daemon("clearsessions"), find_daemon("shop.prices.refresh")):
        assert isinstance(daemon, BaseDaemonCommand)
        options = daemon.create_parser("manage.py", daemon.name).parse_args(["--every", "1h"])
        assert options.every == "1h"


def test_the_signal_handlers_that_a_command_leaves_behind_are_put_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Leaving(BaseCommand):
        def handle(self, *args: Any, **options: Any) -> None:
            signal.signal(signal.SIGALRM, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, 60)

    before = signal.getsignal(signal.SIGALRM)
    assert CommandDaemon("leaving", Leaving(), []).iterate().error is None
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert "left handlers of SIGALRM behind" in caplog.text


def test_a_command_that_is_overdue_in_its_first_tick_is_told_to_leave_its_schedule(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Endless(BaseCommand):
        def handle(self, *args: Any, **options: Any) -> None:
            tick_overdue.send(CommandDaemon, seconds=5.0, stack="", job="")

    daemon = CommandDaemon("endless", Endless(), [])
    daemon.iterate()
    daemon.iterate()
    assert caplog.text.count("has not returned from its first tick in 5 s") == 1
    assert "docs/deploy.md" in caplog.text
