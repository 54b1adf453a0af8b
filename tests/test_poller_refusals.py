"""What a poller's class, queryset or database lacks is refused in one sentence with the mend."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.db.models import Count
from django.db.models.functions import Now

from daemonkit import Exit, ModelPoller
from daemonkit.models import PollerRow
from tests.kit.queues import SENT, poller, queues, rows, tick
from tests.queues.models import Letter, Parcel

__all__ = ["queues"]

WAITING = Letter.objects.filter(sent=None).order_by("pk")


def both(self: ModelPoller, rows: list[Any]) -> None: ...


async def coroutine(self: ModelPoller, row: Any) -> None: ...


def generator(self: ModelPoller, row: Any) -> Any:
    yield row


def without_row(self: ModelPoller) -> None: ...


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"queryset": None}, "has no queryset: write queryset = "),
        ({"queryset": Letter.objects.order_by("pk")[:5]}, "is sliced: say batch_size instead"),
        ({"queryset": WAITING.distinct()}, r"distinct\(\), .*: write the condition as Exists"),
        ({"queryset": WAITING.order_by()}, r"has no order: write \.order_by\('pk'\)"),
        ({"queryset": WAITING.order_by("?")}, r"random order: write \.order_by\('pk'\)"),
        ({"queryset": WAITING.union(WAITING)}, r"is a union, .*: write Q"),
        ({"queryset": WAITING.annotate(Count("parcel"))}, r"aggregate, .*: write a Subquery"),
        ({"queryset": WAITING.values("pk")}, r"gives values\(\): leave them out"),
        ({"batch_size": 0}, r"batch_size .* takes a whole number above zero, not 0"),
        ({"max_attempts": 0}, r"max_attempts .* takes a whole number above zero, not 0"),
        ({"claim": "leases"}, "write claim = 'transaction' or 'lease'"),
        ({"threads": 8}, "has 8 threads, and one transaction is for one thread: write claim ="),
        ({"claim": "lease", "claim_seconds": 0.5}, "claim_seconds of 0.5 s is too short"),
        ({"done": "deleted"}, "done = 'deleted': write done = 'delete', or the values"),
        ({"done": {"sent_at": Now()}}, "done = {'sent_at': ...}, and Letter has no such field"),
        ({"process_batch": both}, r"has process\(\) and process_batch\(\): write one"),
        ({"tick": lambda self: None}, r"has a tick\(\): write process\(row\) instead"),
        ({"batchsize": 5}, "says batchsize = 5, which is no setting: write batch_size"),
    ],
)
def test_an_incomplete_or_wrong_class_is_refused(attributes: Any, sentence: str) -> None:
    members = {"queryset": WAITING, **attributes}
    command = poller(members.pop("queryset"), lambda row: None, **{"done": SENT, **members})
    with pytest.raises(CommandError, match=sentence) as refused:
        tick(command)
    assert refused.value.returncode == Exit.USAGE


@pytest.mark.parametrize(
    ("process", "sentence"),
    [
        (coroutine, r"process\(\) is async, .*: write def"),
        (generator, r"process\(\) is a generator, .*: no yield"),
        (without_row, r"process\(\) is called with the row besides self"),
    ],
)
def test_a_process_that_cannot_be_called_is_refused(process: Any, sentence: str) -> None:
    command = poller(WAITING, lambda row: None, done=SENT)
    type(command).process = process
    with pytest.raises(CommandError, match=sentence) as refused:
        tick(command)
    assert refused.value.returncode == Exit.USAGE


def test_a_class_without_process_is_refused() -> None:
    with pytest.raises(CommandError, match=r"has no process\(row\); write one"):
        tick(poller(WAITING))


def test_a_queryset_that_a_method_makes_is_refused_when_the_life_begins(queues: str) -> None:
    def get_queryset(self: ModelPoller) -> Any:
        return Letter.objects.using(queues)

    command = poller(None, lambda row: None, get_queryset=get_queryset)  # type: ignore[arg-type]
    with pytest.raises(CommandError, match="has no order") as refused:
        tick(command)
    assert refused.value.returncode == Exit.USAGE


def test_the_missing_table_is_refused_with_78_and_how_to_make_it(queues: str) -> None:
    table = PollerRow._meta.db_table
    with connections[queues].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO hidden_away")
    try:
        command = poller(WAITING.using(queues), lambda row: None, done=SENT)
        with pytest.raises(CommandError) as refused:
            tick(command)
    finally:
        with connections[queues].cursor() as cursor:
            cursor.execute(f"ALTER TABLE hidden_away RENAME TO {table}")
    assert refused.value.returncode == Exit.MISCONFIGURED
    assert str(refused.value) == (
        f"post_letters needs the table {table}: "
        f"run `manage.py migrate daemonkit --database {queues}`"
    )


def test_two_workers_on_sqlite_are_refused() -> None:
    command = poller(WAITING, lambda row: None, done=SENT)
    with pytest.raises(CommandError, match="one writer at a time: run one worker") as refused:
        call_command(command, workers=2)
    assert refused.value.returncode == Exit.USAGE


def test_a_join_is_refused_where_its_rows_would_be_locked_too(queues: str) -> None:
    joined = Parcel.objects.using(queues).filter(letter__sent=None).order_by("pk")
    command = poller(joined.filter(letter__kind="a", sent=None), lambda row: None, done=SENT)
    if connections[queues].vendor != "mysql":
        assert tick(command) == ["0 rows"]
        return
    with pytest.raises(CommandError, match=r"joins queues_letter, .*: write .* Exists") as refused:
        tick(command)
    assert refused.value.returncode == Exit.USAGE


# Dead letters, from the command line


@pytest.fixture
def dead(queues: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A poller with the dead letters 1, 2 and 3, which ``daemons dead-letters`` finds."""
    made = [Letter.objects.using(queues).create() for _ in range(3)]
    waiting = Letter.objects.using(queues).filter(sent=None).order_by("pk")
    command = poller(waiting, lambda row: None, done=SENT)
    for each in made:
        command.attempts.note_failure(str(each.pk), 20, "RuntimeError: no such address", None)
    monkeypatch.setattr(
        "daemonkit.management.actions.dead_letters.find_daemon", lambda name: command
    )
    return command, [str(each.pk) for each in made]


def test_dead_letters_are_listed(dead: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, keys = dead
    call_command("daemons", "dead-letters", "post_letters", "--limit", "2")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == keys[:2]
    assert "20 attempts" in lines[0]
    assert lines[0].endswith("RuntimeError: no such address")
    assert lines[2] == "The oldest 2; --limit shows more."


def test_a_dead_letter_is_tried_again(
    dead: Any, queues: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command, keys = dead
    assert tick(command) == ["0 rows"]
    call_command("daemons", "dead-letters", "post_letters", "--retry", keys[1])
    assert "1 dead letter of post_letters will be tried again" in capsys.readouterr().out
    assert tick(command) == ["1 row"]
    assert sorted(rows(queues)) == sorted([keys[0], keys[2]])
    call_command("daemons", "dead-letters", "post_letters", "--retry", "all")
    assert tick(command) == ["2 rows"]


def test_a_dropped_dead_letter_leaves_the_queue_as_done_says(dead: Any, queues: str) -> None:
    command, keys = dead
    call_command("daemons", "dead-letters", "post_letters", "--drop", keys[0])
    assert sorted(rows(queues)) == sorted(keys[1:])
    assert Letter.objects.using(queues).get(sent=1).pk == int(keys[0])
    call_command("daemons", "dead-letters", "post_letters", "--drop", "all")
    assert rows(queues) == {}
    assert tick(command) == ["0 rows"]


def test_dead_letters_that_cannot_be_dropped_or_found_are_refused(dead: Any) -> None:
    command, _ = dead
    with pytest.raises(CommandError, match="no dead letter 999: ") as refused:
        call_command("daemons", "dead-letters", "post_letters", "--retry", "999")
    assert refused.value.returncode == Exit.USAGE
    type(command).done = None
    with pytest.raises(CommandError, match=r"only process\(\) knows how a row leaves the queue"):
        call_command("daemons", "dead-letters", "post_letters", "--drop", "all")


def test_a_plain_loop_has_no_dead_letters() -> None:
    with pytest.raises(CommandError, match="expire_baskets is no ModelPoller"):
        call_command("daemons", "dead-letters", "expire_baskets")
