"""The shop's own promises. What its daemons do as processes is in test_life_*.py."""

import os
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo

import pytest
from config.settings import database
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage
from django.core.management import call_command, load_command_class
from django.db import DatabaseError
from django.test import Client
from django.utils import timezone
from shop import baskets, customers, inbox, price_files, prices, reports
from shop.models import (
    Basket,
    DailyReport,
    Notice,
    Price,
    PriceChange,
    PriceFile,
    Product,
    Supplier,
)

from daemonkit.jobs.schedule import jobs_of
from daemonkit.models import Wake
from daemonkit.testing import run_ticks
from tests.kit.waking import woken_through

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "sample_site"
SHANGHAI = ZoneInfo("Asia/Shanghai")

committing = pytest.mark.django_db(transaction=True)


def csv(*lines: str) -> bytes:
    return "\n".join(["sku,amount,currency", *lines, ""]).encode()


def drop(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.write_bytes(csv(*lines))
    return path


def amounts() -> dict[str, str]:
    return {price.product.sku: str(price.amount) for price in Price.objects.all()}


# Price files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1: the header must be sku,amount,currency"),
        (b"sku;amount;currency\n", "line 1: the header must be sku,amount,currency"),
        (csv(), "line 1: there is no price in the file"),
        (csv("ACME-1,1.00,EUR", "ACME-2,2.00"), "line 3: 3 fields were expected, not 2"),
        (csv("ACME-1,1.00,EUR", "", "ACME-2,12,5,EUR"), "line 4: 3 fields were expected, not 4"),
        (csv("acme-1,1.00,EUR"), "line 2: 'acme-1' is no SKU such as ACME-00042"),
        (csv(f"ACME-{'1' * 40},1.00,EUR"), "is no SKU such as ACME-00042"),
        (csv("ACME-1,twelve,EUR"), "line 2: 'twelve' is no price such as 12.50"),
        (csv("ACME-1,-1.00,EUR"), "line 2: '-1.00' is no price such as 12.50"),
        (csv("ACME-1,0.00,EUR"), "line 2: '0.00' is no price such as 12.50"),
        (csv("ACME-1,NaN,EUR"), "line 2: 'NaN' is no price such as 12.50"),
        (csv("ACME-1,1.005,EUR"), "line 2: '1.005' is no price such as 12.50"),
        (csv("ACME-1,123456789.00,EUR"), "line 2: '123456789.00' is no price such as 12.50"),
        (csv("ACME-1,1.00,USD"), "line 2: the currency is 'USD', not EUR"),
        (csv("ACME-1,1.00,EUR", "ACME-1,2.00,EUR"), "line 3: ACME-1 is in the file twice"),
        (csv("ACME-1,1.00,EUR", '"ACME-2,2.00,EUR'), "line 3: unexpected end of data"),
        (csv("ACME-1,1.00,EUR") + b"ACME-\xff,1.00,EUR\n", "line 3: this is not UTF-8"),
    ],
)
def test_a_bad_line_is_reported_with_its_number_and_the_reason(content, reason):
    with pytest.raises(price_files.BadPriceFile) as caught:
        price_files.read_prices(content)
    assert str(caught.value).endswith(reason)


def test_a_file_from_a_spreadsheet_is_read_like_any_other():
    content = b"\xef\xbb\xbf" + csv("ACME-1,1.50,EUR").replace(b"\n", b"\r\n")
    assert price_files.read_prices(content) == {"ACME-1": Decimal("1.50")}


def test_the_script_makes_the_same_files_from_the_same_arguments(tmp_path):
    contents = []
    for folder in (tmp_path / "one", tmp_path / "two"):
        command = [sys.executable, SITE / "make_price_files.py", folder, "--lines", "30", "--bad"]
        subprocess.run(command, check=True, capture_output=True)
        contents.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert contents[0] == contents[1]
    *good, bad = (contents[0][name] for name in sorted(contents[0]))
    assert [len(price_files.read_prices(content)) for content in good] == [30, 30, 30]
    with pytest.raises(price_files.BadPriceFile, match="line 17"):
        price_files.read_prices(bad)


# Importing


@pytest.mark.django_db
def test_a_file_sets_prices_and_the_history_keeps_only_what_changed():
    prices.import_prices("monday.csv", csv("ACME-1,1.00,EUR", "NORD-1,2.00,EUR"))
    prices.import_prices("tuesday.csv", csv("ACME-1,1.00,EUR", "NORD-1,3.00,EUR"))
    assert amounts() == {"ACME-1": "1.00", "NORD-1": "3.00"}
    history = PriceChange.objects.order_by("pk").values_list(
        "product__sku", "old_amount", "amount", "file__name"
    )
    assert list(history) == [
        ("ACME-1", None, Decimal("1.00"), "monday.csv"),
        ("NORD-1", None, Decimal("2.00"), "monday.csv"),
        ("NORD-1", Decimal("2.00"), Decimal("3.00"), "tuesday.csv"),
    ]
    assert set(Supplier.objects.values_list("code", flat=True)) == {"ACME", "NORD"}


@pytest.mark.django_db
def test_an_old_price_can_come_back_under_a_new_file_name():
    prices.import_prices("monday.csv", csv("ACME-1,1.00,EUR"))
    prices.import_prices("tuesday.csv", csv("ACME-1,2.00,EUR"))
    prices.import_prices("wednesday.csv", csv("ACME-1,1.00,EUR"))
    assert amounts() == {"ACME-1": "1.00"}


@committing
def test_a_file_that_fails_halfway_leaves_nothing(monkeypatch):
    def fail(changes):
        raise DatabaseError("the server has gone away")

    monkeypatch.setattr(prices, "apply_changes", fail)
    with pytest.raises(DatabaseError):
        prices.import_prices("monday.csv", csv("ACME-1,1.00,EUR"))
    assert not PriceFile.objects.exists()
    assert not Product.objects.exists()
    assert not PriceChange.objects.exists()
    monkeypatch.undo()
    assert prices.import_prices("monday.csv", csv("ACME-1,1.00,EUR")) == 1


@pytest.mark.django_db
def test_refresh_works_out_the_average_of_each_supplier():
    content = csv("ACME-1,1.00,EUR", "ACME-2,1.01,EUR", "ACME-3,1.00,EUR", "NORD-1,3.00,EUR")
    prices.import_prices("monday.csv", content)
    Supplier.objects.create(code="EMPTY")
    assert prices.refresh() == "averages of 3 suppliers"
    averages = dict(Supplier.objects.values_list("code", "average_price"))
    assert averages == {"ACME": Decimal("1.00"), "NORD": Decimal("3.00"), "EMPTY": None}


# The inbox


@committing
def test_the_inbox_is_worked_through_by_name_one_file_at_a_time(tmp_path):
    drop(tmp_path, "2.csv", "ACME-1,2.00,EUR")
    drop(tmp_path, "1.csv", "ACME-1,1.00,EUR")
    assert inbox.import_next(tmp_path) == "1.csv: 1 prices"
    assert inbox.import_next(tmp_path) == "2.csv: 1 prices"
    assert inbox.import_next(tmp_path) == ""
    assert amounts() == {"ACME-1": "2.00"}
    assert sorted(path.name for path in (tmp_path / "done").iterdir()) == ["1.csv", "2.csv"]


@pytest.mark.django_db
def test_files_that_are_still_being_written_are_left_alone(tmp_path):
    drop(tmp_path, "1.csv.part", "ACME-1,1.00,EUR")
    drop(tmp_path, ".1.csv", "ACME-1,1.00,EUR")
    assert inbox.import_next(tmp_path / "not-there-yet") == ""
    assert inbox.import_next(tmp_path) == ""


@committing
def test_a_bad_file_is_moved_aside_with_the_reason_and_nothing_of_it_is_imported(tmp_path):
    drop(tmp_path, "1.csv", "ACME-1,1.00,EUR", "ACME-2,twelve,EUR")
    drop(tmp_path, "2.csv", "ACME-3,3.00,EUR")
    sentence = "line 3: 'twelve' is no price such as 12.50"
    assert inbox.import_next(tmp_path) == f"1.csv: moved to bad/, {sentence}"
    assert (tmp_path / "bad" / "1.csv.reason").read_text() == f"{sentence}\n"
    assert (tmp_path / "bad" / "1.csv").read_bytes() == csv("ACME-1,1.00,EUR", "ACME-2,twelve,EUR")
    assert not PriceFile.objects.exists()
    assert inbox.import_next(tmp_path) == "2.csv: 1 prices"
    assert amounts() == {"ACME-3": "3.00"}


@committing
def test_a_crash_between_the_commit_and_the_move_does_not_import_the_file_again(
    tmp_path, monkeypatch
):
    def crash(*args):
        raise KeyboardInterrupt

    drop(tmp_path, "1.csv", "ACME-1,1.00,EUR")
    monkeypatch.setattr(inbox, "move", crash)
    with pytest.raises(KeyboardInterrupt):
        inbox.import_next(tmp_path)
    monkeypatch.undo()
    Price.objects.update(amount="9.99")  # what a second import would undo
    assert inbox.import_next(tmp_path) == "1.csv: was imported before"
    assert (tmp_path / "done" / "1.csv").exists()
    assert amounts() == {"ACME-1": "9.99"}
    assert PriceFile.objects.count() == PriceChange.objects.count() == 1


@committing
def test_a_name_that_comes_again_with_other_prices_is_another_file(tmp_path):
    for amount in ("1.00", "2.00"):
        drop(tmp_path, "prices.csv", f"ACME-1,{amount},EUR")
        assert inbox.import_next(tmp_path) == "prices.csv: 1 prices"
    assert amounts() == {"ACME-1": "2.00"}
    assert len(list((tmp_path / "done").iterdir())) == 2


@committing
def test_a_file_that_arrives_under_the_same_name_meanwhile_is_not_moved_unread(
    tmp_path, monkeypatch
):
    path = drop(tmp_path, "prices.csv", "ACME-1,1.00,EUR")
    import_prices = inbox.import_prices

    def arrive_meanwhile(*args):
        drop(tmp_path, "new.part", "ACME-1,2.00,EUR").replace(path)
        return import_prices(*args)

    monkeypatch.setattr(inbox, "import_prices", arrive_meanwhile)
    inbox.import_next(tmp_path)
    monkeypatch.undo()
    assert inbox.import_next(tmp_path) == "prices.csv: 1 prices"
    assert amounts() == {"ACME-1": "2.00"}


@committing
def test_a_file_whose_name_is_not_utf8_is_imported(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")).write_bytes(csv("ACME-1,1.00,EUR"))
    assert inbox.import_next(tmp_path) == "?.csv: 1 prices"


RACER = """
import sys, time
from pathlib import Path
import django
django.setup()
from shop.inbox import import_next
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
while outcome := import_next(folder):
    print(outcome, flush=True)
"""


def test_two_processes_on_one_inbox_import_each_file_once(tmp_path):
    folder = tmp_path / "inbox"
    folder.mkdir()
    for number in range(20):
        lines = (f"ACME-{index},{number + 1}.{index:02},EUR" for index in range(50))
        drop(folder, f"{number:02}.csv", *lines)
    drop(folder, "bad.csv", "ACME-1,twelve,EUR")
    environment = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{tmp_path}/shop.sqlite3",
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(SITE), os.environ.get("PYTHONPATH", "")]),
    }
    manage = [sys.executable, SITE / "manage.py"]
    subprocess.run([*manage, "migrate", "-v", "0"], check=True, env=environment)
    outcomes = race(folder, environment)
    assert Counter(outcomes)["prices"] == 20
    assert len(list((folder / "done").iterdir())) == 20
    assert not list(folder.glob("*.csv"))
    bad = sorted(path.name for path in (folder / "bad").iterdir())
    assert bad == ["bad.csv", "bad.csv.reason"]


def race(folder: Path, environment: dict[str, str]) -> list[str]:
    """The last word of each line that the two racers print."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, folder],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    printed = "".join(racer.communicate(timeout=60)[0] for racer in racers)
    assert [racer.returncode for racer in racers] == [0, 0]
    return [line.split()[-1] for line in printed.splitlines()]


# Baskets


@pytest.fixture
def product(db) -> Product:
    prices.import_prices("monday.csv", csv("ACME-1,2.50,EUR"))
    Product.objects.update(in_stock=10)
    return Product.objects.get()


def forget(basket: Basket, minutes: int) -> None:
    Basket.objects.filter(pk=basket.pk).update(
        touched_at=timezone.now() - timedelta(minutes=minutes)
    )


def in_stock() -> int:
    return Product.objects.get().in_stock


def test_a_forgotten_basket_gives_its_stock_back_once(product):
    basket, fresh = Basket.objects.create(), Basket.objects.create()
    baskets.put(basket, product, 3)
    baskets.put(basket, product, 1)
    baskets.put(fresh, product, 2)
    forget(basket, minutes=31)
    assert in_stock() == 4
    assert baskets.expire(timedelta(minutes=30)) == 1
    assert baskets.expire(timedelta(minutes=30)) == 0
    assert in_stock() == 8
    with pytest.raises(baskets.BasketClosed):
        baskets.order(basket)


def test_an_ordered_basket_never_expires(product):
    basket = Basket.objects.create()
    baskets.put(basket, product, 3)
    baskets.order(basket)
    forget(basket, minutes=31)
    assert baskets.expire(timedelta(minutes=30)) == 0
    assert in_stock() == 7


def test_a_basket_that_the_customer_touches_at_the_last_moment_stays(product):
    basket = Basket.objects.create()
    baskets.put(basket, product, 3)
    assert not baskets.expire_one(basket.pk, timezone.now() - timedelta(minutes=30))
    assert in_stock() == 7


def test_more_than_there_is_cannot_be_put_in_a_basket(product):
    with pytest.raises(baskets.OutOfStock):
        baskets.put(Basket.objects.create(), product, 11)
    assert in_stock() == 10


def test_simulated_customers_keep_the_daemons_busy(product):
    assert customers.visit(20, Random(1)).startswith("20 baskets, ")
    states = Counter(Basket.objects.values_list("state", flat=True))
    assert set(states) == {"open", "ordered"}
    call_command("visit_shop", customers=1, stdout=StringIO())


# Reports


def test_a_report_counts_a_day_of_its_own_time_zone_and_is_written_once(product):
    for closed_at in (
        datetime(2026, 3, 1, 15, 59, 59, tzinfo=UTC),  # 23:59:59 on the first, in Shanghai
        datetime(2026, 3, 1, 16, 0, tzinfo=UTC),
        datetime(2026, 3, 2, 15, 59, 59, tzinfo=UTC),
        datetime(2026, 3, 2, 16, 0, tzinfo=UTC),
    ):
        basket = Basket.objects.create()
        baskets.put(basket, product, 2)
        baskets.order(basket)
        Basket.objects.filter(pk=basket.pk).update(closed_at=closed_at)
    PriceChange.objects.update(changed_at=datetime(2026, 3, 2, 1, tzinfo=UTC))
    for _ in range(2):
        reports.write_report(date(2026, 3, 2), SHANGHAI)
    report = DailyReport.objects.get()
    assert str(report) == "2026-03-02: 2 orders, 10.00"
    assert report.price_changes == 1


@pytest.mark.django_db
def test_a_day_without_anything_has_a_report_too():
    report = reports.write_report(date(2026, 3, 2), SHANGHAI)
    assert str(report) == "2026-03-02: 0 orders, 0.00"


def test_the_day_of_a_report_is_that_before_its_due_time_in_the_shops_zone(monkeypatch):
    due = datetime(2026, 3, 2, 19, 0, tzinfo=UTC)  # 03:00 on the third, in Shanghai
    assert reports.day_before(due, SHANGHAI) == date(2026, 3, 2)
    monkeypatch.setattr(reports.timezone, "now", lambda: due)
    assert reports.day_before(None, SHANGHAI) == date(2026, 3, 2)


# The REST view


@pytest.fixture
def shop(db, client: Client) -> Client:
    lines = [f"ACME-{number:03},1.00,EUR" for number in range(60)]
    prices.import_prices("monday.csv", csv(*lines, "NORD-001,2.00,EUR"))
    prices.import_prices("tuesday.csv", csv("NORD-001,3.00,EUR"))
    return client


def test_the_view_answers_the_price_of_a_product_and_what_it_was(shop):
    answer = shop.get("/prices/NORD-001/").json()
    assert (answer["amount"], answer["currency"], answer["supplier"]) == ("3.00", "EUR", "NORD")
    assert [each["amount"] for each in answer["history"]] == ["3.00", "2.00"]


def test_the_view_lists_the_prices_of_a_supplier_page_by_page(shop):
    answer = shop.get("/prices/?supplier=ACME&page=2").json()
    assert (answer["count"], answer["page"], answer["pages"]) == (60, 2, 2)
    assert [each["sku"] for each in answer["prices"]] == [f"ACME-{n:03}" for n in range(50, 60)]
    assert shop.get("/prices/").json()["count"] == 61


@pytest.mark.parametrize(
    "path", ["/prices/NONE-1/", "/prices/?supplier=NONE", "/prices/?page=9", "/prices/?page=x", "/"]
)
def test_the_view_says_in_json_what_it_does_not_have(shop, path):
    response = shop.get(path)
    assert response.status_code == 404
    assert response.json()["error"]


# Settings


@pytest.mark.parametrize(
    ("url", "host", "name"),
    [
        (
            "mysql://shop:s%40cret@%2Frun%2FMyData%2Fmysqld.sock/shop",
            "/run/MyData/mysqld.sock",
            "shop",
        ),
        ("postgres://shop:s%40cret@%2Ftmp%2FPg/shop", "/tmp/Pg", "shop"),
        ("postgres://shop:s%40cret@DB.example:6432/shop", "db.example", "shop"),
    ],
)
def test_a_database_url_may_name_a_host_or_a_socket(url, host, name):
    config = database(url)
    assert (config["HOST"], config["NAME"]) == (host, name)
    assert config["PASSWORD"] == "s@cret"


def test_sqlite_takes_its_lock_at_the_start_of_a_transaction_and_waits_for_it():
    for url in ("", "sqlite:////tmp/shop.sqlite3"):
        assert database(url)["OPTIONS"] == {"timeout": 20, "transaction_mode": "IMMEDIATE"}


def test_the_age_of_a_connection_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("CONN_MAX_AGE", "none")
    monkeypatch.setenv("CONN_HEALTH_CHECKS", "1")
    config = database("postgres://localhost/shop?pool=true")
    assert (config["CONN_MAX_AGE"], config["CONN_HEALTH_CHECKS"]) == (None, True)
    assert config["OPTIONS"] == {"pool": True}


def test_a_database_url_without_the_package_that_reads_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "dj_database_url", None)
    assert database("")["NAME"] == SITE / "shop.sqlite3"
    with pytest.raises(ImproperlyConfigured, match="pip install dj-database-url"):
        database("mysql://localhost/shop")


# The scheduled daemon


@pytest.mark.django_db
def test_housekeeping_does_what_its_three_jobs_say(shop, settings, mailoutbox):
    settings.SHOP_REPORT_TO = ["manager@example.com"]
    daemon = load_command_class("shop", "housekeeping")
    assert [job.name for job in jobs_of(type(daemon))] == [
        "expire_baskets",
        "average_prices",
        "report",
    ]
    assert daemon.expire_baskets() == 0
    assert daemon.average_prices() == "averages of 2 suppliers"
    daemon.report()
    (sent,) = mailoutbox
    assert sent.to == ["manager@example.com"]
    assert "0 baskets expired" in sent.body


# Notices


@committing
def test_an_order_and_its_notice_are_committed_together_and_the_notice_is_sent_once(
    client: Client, mailoutbox: list[EmailMessage]
) -> None:
    basket = Basket.objects.create()
    url = f"/baskets/{basket.pk}/order/"
    with woken_through("default", has_table=False):
        ordered = client.post(url, {"address": "ann@example.com"}).json()
    assert ordered["state"] == "ordered"
    assert Wake.objects.get(name="notices").times == 1
    again = client.post(url, {"address": "ann@example.com"})
    assert (again.status_code, again.json()["error"]) == (
        409,
        f"basket {basket.pk} has been ordered, or has expired",
    )
    assert client.post("/baskets/9999/order/").status_code == 404
    assert Notice.objects.get().sent_at is None
    sent = run_ticks("send_notices", 2, threads=1)
    assert [str(each.result) for each in sent] == ["1 row", "0 rows"]
    assert [mail.to for mail in mailoutbox] == [["ann@example.com"]]
    assert Notice.objects.get().sent_at is not None


@committing
def test_an_order_that_fails_leaves_no_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    basket = Basket.objects.create()

    def fail(**_: object) -> None:
        raise DatabaseError("no notice today")

    monkeypatch.setattr(Notice.objects, "create", fail)
    with pytest.raises(DatabaseError):
        baskets.order(basket, "ann@example.com")
    basket.refresh_from_db()
    assert basket.state == Basket.State.OPEN
