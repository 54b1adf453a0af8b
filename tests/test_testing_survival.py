"""``assert_survives()`` finds what is wrong with a daemon, and passes the sample shop's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.db import connections, transaction
from django.utils import timezone
from shop.management.commands.housekeeping import Command as Housekeeping
from shop.models import Basket, BasketLine, Price, Product, Supplier

from daemonkit import BaseDaemonCommand, Every, Poll, job
from daemonkit.testing import Trouble, assert_survives
from lab.servers import Server
from tests.kit.aliases import MakeAlias

pytestmark = pytest.mark.one_python

PROBE = "probe"


@pytest.fixture(params=["mariadb", "postgres", "postgres pool", "sqlite"])
def probe(request: pytest.FixtureRequest, alias: MakeAlias) -> str:
    """An alias with three orders that are to be paid."""
    kind, _, pool = request.param.partition(" ")
    server: Server | None = None if kind == "sqlite" else request.getfixturevalue(kind)
    options = {"OPTIONS": {"pool": {"min_size": 1, "max_size": 4}}} if pool else {}
    name = alias(server, name=PROBE, **options)
    for order in ("one", "two", "three"):
        run("INSERT INTO entry (note) VALUES (%s)", f"open {order}")
    return name


def run(sql: str, *values: object) -> list[Any]:
    with connections[PROBE].cursor() as cursor:
        cursor.execute(sql, values or None)
        return list(cursor.fetchall()) if cursor.description else []


def open_orders() -> list[str]:
    found = run("SELECT note FROM entry WHERE note LIKE 'open %%' ORDER BY id", *[])
    return [str(row[0]) for row in found]


class Paying(BaseDaemonCommand):
    """Pays one order in each tick. It survives."""

    schedule = Poll(idle=5)

    def tick(self) -> Any:
        with transaction.atomic(using=PROBE):
            for order in open_orders()[:1]:
                return pay(order)
        return 0


def pay(order: str) -> bool:
    run("UPDATE entry SET note = %s WHERE note = %s", order.replace("open", "paid"), order)
    return True


class Swallowing(Paying):
    def tick(self) -> Any:
        try:
            return super().tick()
        except Exception:
            return False


class SwallowingEach(BaseDaemonCommand):
    """Goes on with the next order when one fails."""

    schedule = Every(seconds=30)

    def tick(self) -> Any:
        for order in open_orders():
            try:
                pay(order)
            except Exception:
                connections[PROBE].close()


class Forgetful(Paying):
    """Handles the error itself: it pays again, and says nothing."""

    def tick(self) -> Any:
        try:
            return super().tick()
        except Exception:
            connections[PROBE].close()
            return super().tick()


class KeepingACursor(Paying):
    kept: Any = None

    def tick(self) -> Any:
        if KeepingACursor.kept is None:
            KeepingACursor.kept = connections[PROBE].copy().cursor()
        KeepingACursor.kept.execute("SELECT 1")
        return super().tick()


class LeavingOpen(Paying):
    def tick(self) -> Any:
        result = super().tick()
        run("BEGIN")
        run("UPDATE entry SET note = 'x' WHERE note = 'nothing'")
        return result


class PayingTwice(Paying):
    """The payment and its mark are two transactions."""

    def tick(self) -> Any:
        for order in open_orders()[:1]:
            run("INSERT INTO entry (note) VALUES (%s)", f"payment of {order}")
            return pay(order)
        return False


class Adding(Paying):
    def tick(self) -> Any:
        with transaction.atomic(using=PROBE):
            run("INSERT INTO entry (note) VALUES ('once for each due time')")


class Mailing(Paying):
    """Sends the mail first, and notes it afterwards."""

    def tick(self) -> Any:
        for order in open_orders()[:1]:
            mail.send_mail("Paid", order, "shop@example.com", ["customer@example.com"])
            return pay(order)
        return False


class OpenedOnce(Paying):
    is_open = False

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        if OpenedOnce.is_open:
            raise RuntimeError("is open already")
        OpenedOnce.is_open = True
        yield


class OpenedOnceByEach(Paying):
    """What it has opened stays, and it asks the database before it is done."""

    listener: Any = None

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        if self.listener is not None:
            raise RuntimeError("is open already")
        self.listener = object()
        open_orders()
        yield


class Deaf(Paying):
    """Looks at nothing while it works."""

    def tick(self) -> Any:
        result = super().tick()
        while self.stopping:
            self.beat()
        return result


def faults(daemon: type[BaseDaemonCommand], trouble: Trouble, **details: Any) -> str:
    """The report of one trouble alone."""
    with pytest.raises(AssertionError) as raised:
        assert_survives(daemon, using=PROBE, leave_out=set(Trouble) - {trouble}, **details)
    return str(raised.value)


def test_a_daemon_that_is_right_survives(probe: str) -> None:
    assert_survives(Paying, using=probe)
    assert len(open_orders()) == 3  # the database is as it was


def test_a_tick_that_handles_the_loss_itself_is_right(probe: str) -> None:
    only = {Trouble.QUERY_LOSS, Trouble.COMMIT_LOSS}
    assert_survives(Forgetful, using=probe, leave_out=set(Trouble) - only)


@pytest.mark.parametrize("daemon", [Swallowing, SwallowingEach])
def test_a_swallowed_error_is_found(probe: str, daemon: type[BaseDaemonCommand]) -> None:
    assert "a tick swallowed the error after the loss of" in faults(daemon, Trouble.QUERY_LOSS)


def test_a_connection_that_is_kept_is_found(probe: str) -> None:
    report = faults(KeepingACursor, Trouble.IDLE_LOSS)
    assert "FAULT  sessions lost while it waits" in report
    assert "does something keep a connection of its own?" in report


def test_a_transaction_that_is_left_open_is_found(probe: str) -> None:
    report = faults(LeavingOpen, Trouble.NONE)
    assert "FAULT  no trouble at all\n           a tick left a transaction open" in report


@pytest.mark.parametrize("daemon", [PayingTwice, Adding])
def test_a_tick_that_is_not_idempotent_under_a_lost_commit_is_found(
    probe: str, daemon: type[Paying]
) -> None:
    report = faults(daemon, Trouble.COMMIT_LOSS)
    assert "FAULT  a session lost in COMMIT" in report
    assert "entry has" in report


def test_a_mail_that_is_sent_twice_is_found(probe: str) -> None:
    assert "it sent 4 mails after the loss of" in faults(Mailing, Trouble.QUERY_LOSS)


@pytest.mark.parametrize("daemon", [OpenedOnce, OpenedOnceByEach])
def test_a_lifespan_that_cannot_be_opened_twice_is_found(
    probe: str, daemon: type[BaseDaemonCommand]
) -> None:
    report = faults(daemon, Trouble.SECOND_LIFE)
    assert "FAULT  opened a second time" in report
    assert "RuntimeError: is open already" in report


def test_a_tick_that_does_not_end_when_told_to_is_found(
    probe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("daemonkit.testing.survival.survives.STOP_SECONDS", 0.3)
    report = faults(Deaf, Trouble.SIGTERM, timeout=3)
    assert "FAULT  SIGTERM in a tick" in report
    assert "  -    two copies" in report


def test_a_lifespan_that_does_not_clean_up_is_found_when_the_database_is_away(
    alias: MakeAlias, server: Server
) -> None:
    alias(server, name=PROBE)
    report = faults(OpenedOnceByEach, Trouble.OUTAGE_AT_START)
    assert "it ended when the database is back: RuntimeError: is open already" in report


class Failing(Paying):
    def tick(self) -> Any:
        raise KeyError("price")


def test_a_daemon_that_fails_without_any_trouble_is_said_and_not_tried_further(probe: str) -> None:
    found = faults(Failing, Trouble.IDLE_LOSS)
    assert "FAULT  no trouble at all\n           it failed: KeyError: 'price'" in found
    assert "    -    a session lost in a query" in found
    assert "  ok " not in found
    assert found.endswith("what fails without any trouble was tried no further")


class Jobs(BaseDaemonCommand):
    ledger = False

    @job(Every(seconds=30))
    def right(self) -> None:
        Paying().tick()

    @job(Every(seconds=60))
    def wrong(self) -> None:
        Swallowing().tick()


def test_each_job_is_tried_by_itself(probe: str) -> None:
    report = faults(Jobs, Trouble.QUERY_LOSS)
    assert "wrong: a tick swallowed the error" in report
    assert "right:" not in report


def test_inside_a_transaction_it_is_refused_with_advice(probe: str) -> None:
    with transaction.atomic(using=probe):
        with pytest.raises(RuntimeError, match="transactional_db"):
            assert_survives(Paying, using=probe)


def test_what_is_not_in_the_database_is_arranged_and_observed(probe: str, tmp_path: Path) -> None:
    def arrange() -> None:
        (tmp_path / "log").write_text("")

    class Logging(Paying):
        def tick(self) -> Any:
            with (tmp_path / "log").open("a") as log:
                log.write("tick\n")
            return super().tick()

    log = tmp_path / "log"
    report = faults(Logging, Trouble.TWO_COPIES, arrange=arrange, observe=log.read_text)
    assert "observe() returned 'tick\\ntick\\n" in report


# The sample shop's


@pytest.fixture(params=["mariadb", "postgres", "sqlite"])
def shop(request: pytest.FixtureRequest, alias: MakeAlias, settings: Any) -> Iterator[None]:
    """The sample shop's database, "default", on each kind of server."""
    server = None if request.param == "sqlite" else request.getfixturevalue(request.param)
    made = alias(server, name="made")
    if server is not None:
        server.create_database("survival")
        connections.settings[made]["NAME"] = "survival"
    # What the daemons hand to a task queue is not their work: no task is run here.
    settings.TASKS = {"default": {"BACKEND": "django.tasks.backends.dummy.DummyBackend"}}
    with as_default(made):
        call_command("migrate", verbosity=0)
        yield
        connections["default"].close()
    if server is not None:
        server.drop_database("survival")


@contextmanager
def as_default(name: str) -> Iterator[None]:
    """Have "default" mean another alias, and keep the suite's own database in memory meanwhile."""
    own, own_settings = connections["default"], connections.settings["default"]
    connections.settings["default"] = connections.settings[name]
    del connections["default"]
    try:
        yield
    finally:
        connections.settings["default"] = own_settings
        connections["default"] = own


def goods() -> None:
    """A product, an order of yesterday, and two baskets that were forgotten."""
    acme = Supplier.objects.create(code="ACME")
    product = Product.objects.create(sku="ACME-1", name="Anvil", supplier=acme, in_stock=5)
    Price.objects.create(product=product, amount=10, valid_from=timezone.now())
    for hours in (2, 3):
        long_ago = timezone.now() - timedelta(hours=hours)
        basket = Basket.objects.create(touched_at=long_ago)
        BasketLine.objects.create(basket=basket, product=product, quantity=2, unit_price=10)
    ordered = timezone.now() - timedelta(days=1)
    Basket.objects.create(state=Basket.State.ORDERED, closed_at=ordered)


class WithoutReport(Housekeeping):
    """Its report is about the day before its due time, so each further run writes another row."""

    report = None


@pytest.mark.parametrize(
    ("daemon", "options"),
    [
        ("expire_baskets", {}),
        ("daily_report", {"day": date(2026, 3, 1)}),
        (WithoutReport, {}),
    ],
)
def test_the_daemons_of_the_sample_shop_survive(
    shop: None, daemon: Any, options: dict[str, Any]
) -> None:
    goods()
    assert_survives(daemon, **options)


def test_the_importer_of_the_sample_shop_survives(shop: None, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"

    def arrange() -> None:
        shutil.rmtree(inbox, ignore_errors=True)
        inbox.mkdir()
        for name in ("a", "b"):
            line = f"ACME-{name.upper()},9.50,EUR"
            (inbox / f"{name}.csv").write_text(f"sku,amount,currency\n{line}\n")

    def observe() -> list[str]:
        return sorted(str(path.relative_to(inbox)) for path in inbox.rglob("*"))

    assert_survives("import_prices", arrange=arrange, observe=observe, inbox=inbox)


def test_a_server_is_refused_in_a_sentence(shop: None) -> None:
    with pytest.raises(ValueError, match=r"tries ticks and jobs, and price_service has serve\(\)"):
        assert_survives("price_service", port=0)
