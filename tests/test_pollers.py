"""A poller works off the rows of a queryset, in transactions or under leases."""

from __future__ import annotations

import contextlib
import logging
import uuid
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.db.models import Exists, Manager, OuterRef, QuerySet
from django.utils import timezone

from daemonkit import ModelPoller, Poll, signals
from daemonkit.models import PollerRow
from daemonkit.pollers.batch import Batch
from daemonkit.pollers.queue import Queue
from tests.kit.aliases import MakeAlias
from tests.kit.queues import SENT, let_pauses_end, poller, queue_tables, queues, rows, tick
from tests.queues.models import Effect, Express, Letter, Line, Parcel, Tagged

__all__ = ["queues"]

CLAIMS = pytest.mark.parametrize("claim", ["transaction", "lease"])


def letters(alias: str, *kinds: str) -> list[Letter]:
    return [Letter.objects.using(alias).create(kind=kind) for kind in kinds]


def unsent(alias: str) -> QuerySet[Letter]:
    return Letter.objects.using(alias).filter(sent=None).order_by("pk")


def sent(alias: str) -> list[str]:
    found = Letter.objects.using(alias).exclude(sent=None).order_by("pk")
    return list(found.values_list("kind", flat=True))


class Post:
    """``process()`` for letters: notes what it did in the same database, and may fail."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.seen: list[str] = []

    def __call__(self, letter: Letter) -> None:
        self.seen.append(letter.kind)
        Effect.objects.using(self.alias).create(letter=str(letter.pk))
        if letter.kind == "bad":
            raise RuntimeError("no such address")

    @property
    def effects(self) -> list[str]:
        found = Effect.objects.using(self.alias).order_by("letter")
        return sorted(found.values_list("letter", flat=True))


# How a row leaves the queue


@CLAIMS
def test_rows_are_processed_in_their_order_and_leave_as_the_class_says(
    queues: str, claim: str
) -> None:
    letters(queues, "a", "b", "c")
    post = Post(queues)
    command = poller(unsent(queues), post, done=SENT, claim=claim, batch_size=2)
    assert tick(command, 3) == ["2 rows", "1 row", "0 rows"]
    assert post.seen == ["a", "b", "c"]
    assert sent(queues) == ["a", "b", "c"]
    assert rows(queues) == {}


@CLAIMS
def test_done_delete_deletes_them(queues: str, claim: str) -> None:
    letters(queues, "a", "b")
    command = poller(unsent(queues), Post(queues), done="delete", claim=claim)
    assert tick(command) == ["2 rows"]
    assert not Letter.objects.using(queues).exists()


@CLAIMS
def test_process_may_make_them_leave_itself(queues: str, claim: str) -> None:
    letters(queues, "a", "b")

    def send(letter: Letter) -> None:
        letter.sent = 1
        letter.save()

    assert tick(poller(unsent(queues), send, claim=claim)) == ["2 rows"]
    assert sent(queues) == ["a", "b"]


@CLAIMS
def test_process_may_delete_the_row(queues: str, claim: str) -> None:
    letters(queues, "a", "b")
    assert tick(poller(unsent(queues), lambda row: row.delete(), claim=claim)) == ["2 rows"]
    assert tick(poller(unsent(queues), lambda row: row.delete(), claim=claim)) == ["0 rows"]


@CLAIMS
def test_a_row_that_stays_in_the_queue_has_failed_and_its_writes_are_not_repeated(
    queues: str, claim: str
) -> None:
    letters(queues, "a")
    post = Post(queues)
    command = poller(unsent(queues), post, claim=claim)
    assert tick(command, 2) == ["0 rows, 1 failed", "0 rows"]
    (row,) = PollerRow.objects.using(queues)
    assert "still in the queue" in row.error
    if claim == "transaction":
        assert post.effects == []  # rolled back


@CLAIMS
def test_a_batch_may_be_processed_together(queues: str, claim: str) -> None:
    letters(queues, "a", "b", "c")
    batches: list[list[str]] = []

    def process_batch(self: ModelPoller, found: list[Letter]) -> None:
        batches.append([each.kind for each in found])

    attributes = {"process_batch": process_batch, "done": SENT, "claim": claim, "batch_size": 2}
    assert tick(poller(unsent(queues), **attributes), 2) == ["2 rows", "1 row"]
    assert batches == [["a", "b"], ["c"]]


@pytest.mark.parametrize("done", [SENT, "delete"])
def test_done_is_one_statement_for_a_batch(queues: str, done: Any) -> None:
    for tag in "abcde":
        Tagged.objects.using(queues).create(tag=tag)
    waiting = Tagged.objects.using(queues).filter(sent=None).order_by("pk")
    statements: list[str] = []

    def witness(execute: Any, sql: str, *rest: Any) -> Any:
        statements.append(sql.partition(" ")[0])
        return execute(sql, *rest)

    command = poller(waiting, lambda row: None, done=done)
    with connections[queues].execute_wrapper(witness):
        assert tick(command) == ["5 rows"]
    assert statements.count("UPDATE" if done is SENT else "DELETE") == 1
    assert statements.count("SAVEPOINT") == 0


# Failures


@CLAIMS
def test_a_bad_row_fails_alone_waits_and_becomes_a_dead_letter(queues: str, claim: str) -> None:
    good, bad, last = letters(queues, "good", "bad", "last")
    post, dead = Post(queues), list[tuple[str, int]]()
    command = poller(unsent(queues), post, done=SENT, claim=claim, max_attempts=3)

    def on_dead(key: str, attempts: int, error: Exception, **_: Any) -> None:
        assert str(error) == "no such address"
        dead.append((key, attempts))

    signals.row_dead.connect(on_dead)
    try:
        assert tick(command, 2) == ["2 rows, 1 failed", "0 rows"]
        assert rows(queues) == {str(bad.pk): (1, False)}
        for _ in range(2):
            let_pauses_end(queues)
            assert tick(command) == ["0 rows, 1 failed"]
        let_pauses_end(queues)
        assert tick(command) == ["0 rows"]
    finally:
        signals.row_dead.disconnect(on_dead)
    assert dead == [(str(bad.pk), 3)]
    assert rows(queues) == {str(bad.pk): (3, True)}
    assert sent(queues) == ["good", "last"]
    if claim == "transaction":
        assert post.effects == sorted([str(good.pk), str(last.pk)])


@CLAIMS
def test_a_failed_row_that_succeeds_later_leaves_nothing_behind(queues: str, claim: str) -> None:
    letters(queues, "a")
    fails = [True]

    def process(letter: Letter) -> None:
        if fails.pop():
            raise RuntimeError("try later")

    command = poller(unsent(queues), process, done=SENT, claim=claim)
    assert tick(command) == ["0 rows, 1 failed"]
    let_pauses_end(queues)
    fails.append(False)
    assert tick(command) == ["1 row"]
    assert rows(queues) == {}


@CLAIMS
def test_a_bad_row_of_a_batch_that_is_processed_together_is_found(queues: str, claim: str) -> None:
    _, bad, _ = letters(queues, "good", "bad", "last")

    def process_batch(self: ModelPoller, found: list[Letter]) -> None:
        if any(each.kind == "bad" for each in found):
            raise RuntimeError("no such address")

    command = poller(unsent(queues), process_batch=process_batch, done=SENT, claim=claim)
    assert tick(command) == ["2 rows, 1 failed"]
    assert rows(queues) == {str(bad.pk): (1, False)}
    assert sent(queues) == ["good", "last"]


def test_what_a_failed_row_wanted_done_on_commit_is_not_done(queues: str) -> None:
    letters(queues, "good", "bad")
    hooks: list[str] = []

    def process(letter: Letter) -> None:
        transaction.on_commit(lambda: hooks.append(letter.kind), using=queues)
        if letter.kind == "bad":
            raise RuntimeError("no such address")

    assert tick(poller(unsent(queues), process, done=SENT)) == ["1 row, 1 failed"]
    assert hooks == ["good"]


def test_an_error_of_the_database_in_a_row_is_that_rows_failure(queues: str) -> None:
    letters(queues, "good", "bad", "last")

    def process(letter: Letter) -> None:
        if letter.kind == "bad":
            Letter(pk=letter.pk).save(using=queues, force_insert=True)

    assert tick(poller(unsent(queues), process, done=SENT)) == ["2 rows, 1 failed"]
    assert sent(queues) == ["good", "last"]
    (row,) = PollerRow.objects.using(queues)
    assert "IntegrityError" in row.error


def test_failures_are_logged_with_their_row_and_the_last_with_its_traceback(
    queues: str, caplog: pytest.LogCaptureFixture
) -> None:
    (bad,) = letters(queues, "bad")
    command = poller(unsent(queues), Post(queues), done=SENT, max_attempts=2)
    tick(command)
    let_pauses_end(queues)
    tick(command)
    first, last = [each for each in caplog.records if "row" in each.message]
    what = f"post_letters: row {bad.pk} failed, attempt"
    assert first.levelno == logging.WARNING
    assert first.message.startswith(f"{what} 1 of 2, again in ")
    assert first.message.endswith("s: RuntimeError: no such address")
    assert last.levelno == logging.ERROR
    assert last.exc_info
    assert last.message.startswith(f"{what} 2 of 2: it is a dead letter now")


# Deadlocks and lost sessions cost no attempt


def test_a_swallowed_deadlock_rolls_the_whole_transaction_back_and_costs_no_attempt(
    queues: str,
) -> None:
    if connections[queues].vendor == "sqlite":
        return  # it has no deadlocks
    letters(queues, "a", "b", "c")
    post, deadlocks = Post(queues), [True]

    def process(letter: Letter) -> None:
        post(letter)
        if letter.kind == "b" and deadlocks:
            deadlocks.clear()
            swallow_deadlock(queues)

    command = poller(unsent(queues), process, done=SENT)
    assert tick(command) == ["3 rows"]
    assert post.seen == ["a", "b", "a", "b", "c"]
    assert len(post.effects) == 3
    assert rows(queues) == {}


def swallow_deadlock(alias: str) -> None:
    """Let the server report a deadlock, and catch it."""
    statement = {
        "mysql": "SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'deadlock'",
        "postgresql": "DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$",
    }[connections[alias].vendor]
    with contextlib.suppress(OperationalError), connections[alias].cursor() as cursor:
        cursor.execute(statement)


# What was done by others between two steps


def test_a_row_that_has_failed_elsewhere_since_the_first_select_is_left_alone(queues: str) -> None:
    one, other = letters(queues, "a", "b")
    post = Post(queues)
    command = poller(unsent(queues), post, done=SENT)
    queue = command.queue()
    candidates = queue.candidates(10)
    command.attempts.note_failure(str(one.pk), 1, "elsewhere", 60.0)
    queue.candidates = lambda *_, **__: candidates  # type: ignore[method-assign]
    command.queue = lambda: queue  # type: ignore[method-assign]
    assert tick(command) == ["1 row"]
    assert post.seen == [other.kind]


@CLAIMS
def test_a_row_that_has_left_the_queue_since_the_first_select_is_left_alone(
    queues: str, claim: str
) -> None:
    one, other = letters(queues, "a", "b")
    post = Post(queues)
    command = poller(unsent(queues), post, done=SENT, claim=claim)
    queue = command.queue()
    candidates = queue.candidates(10)
    Letter.objects.using(queues).filter(pk=one.pk).update(sent=2)
    queue.candidates = lambda *_, **__: candidates  # type: ignore[method-assign]
    command.queue = lambda: queue  # type: ignore[method-assign]
    assert tick(command) == ["1 row"]
    assert post.seen == [other.kind]
    assert rows(queues) == {}


@pytest.mark.parametrize("kind", ["mariadb", "postgres"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_rows_that_another_worker_has_locked_are_skipped_for_the_next(
    kind: str, batch_size: int, request: pytest.FixtureRequest, alias: MakeAlias
) -> None:
    server = request.getfixturevalue(kind)
    name, other = alias(server), alias(server, "other")
    with queue_tables(name):
        letters(name, *"abcdefgh")
        post = Post(name)
        with transaction.atomic(using=other):
            locked = unsent(other).filter(kind__in=["a", "b", "c"]).select_for_update()
            assert len(locked) == 3
            command = poller(unsent(name), post, done=SENT, batch_size=batch_size)
            assert tick(command) == ["1 row" if batch_size == 1 else "3 rows"]
        assert post.seen == ["d", "e", "f"][:batch_size]


@pytest.mark.parametrize("kind", ["mariadb", "postgres"])
def test_a_tick_examines_fewer_rows_than_ten_times_the_batch(
    kind: str, request: pytest.FixtureRequest, alias: MakeAlias
) -> None:
    """On a table of which few rows are due, with many dead letters behind them."""
    name = alias(request.getfixturevalue(kind))
    with queue_tables(name):
        fill(name, done=30_000, due=100, dead=3_000)
        if kind == "postgres":
            run(name, "CREATE INDEX unsent ON queues_letter (id) WHERE sent IS NULL")
        for table in ("queues_letter", PollerRow._meta.db_table):
            run(name, f"ANALYZE {'TABLE' if kind == 'mariadb' else ''} {table}")
        command = poller(unsent(name), lambda row: None, done=SENT, batch_size=100)
        queue = command.queue()
        if kind == "mariadb":
            before = handler_reads(name)
            candidates = queue.candidates(100)
            with transaction.atomic(using=name):
                assert len(queue.lock(candidates)) == 100
            examined = handler_reads(name) - before
        else:
            plans: list[str] = []

            def explain(execute: Any, sql: str, params: Any, many: Any, context: Any) -> Any:
                execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", params, many, context)
                plans.append(context["cursor"].fetchone()[0][0]["Plan"])
                return execute(sql, params, many, context)

            with connections[name].execute_wrapper(explain):
                candidates = queue.candidates(100)
            examined = sum(map(rows_of, plans))
            assert len(candidates) == 100
    assert 100 <= examined < 1000, plans if kind == "postgres" else examined


def handler_reads(alias: str) -> int:
    """How many rows this session has read. The question itself reads a few."""
    return sum(int(count) for _, count in run(alias, "SHOW SESSION STATUS LIKE 'Handler_read%'"))


def rows_of(plan: Any) -> int:
    """The rows that a plan of PostgreSQL has returned, and those that its filters have removed."""
    read = plan["Actual Rows"] * plan["Actual Loops"] if "Scan" in plan["Node Type"] else 0
    read += plan.get("Rows Removed by Filter", 0) * plan["Actual Loops"]
    return int(read) + sum(map(rows_of, plan.get("Plans", [])))


def run(alias: str, sql: str) -> list[tuple[Any, ...]]:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


def fill(alias: str, *, done: int, due: int, dead: int) -> None:
    kinds = [Letter(sent=1)] * done + [Letter()] * due + [Letter()] * dead
    Letter.objects.using(alias).bulk_create(
        [Letter(sent=each.sent) for each in kinds], batch_size=2000
    )
    keys = unsent(alias).values_list("pk", flat=True)[due:]
    PollerRow.objects.using(alias).bulk_create(
        [
            PollerRow(
                poller="post_letters",
                key=str(key),
                attempts=20,
                dead=True,
                not_before=timezone.now(),
            )
            for key in keys
        ],
        batch_size=2000,
    )


# Candidates that are read ahead


def test_while_batches_are_quick_one_select_finds_candidates_for_several(queues: str) -> None:
    letters(queues, *["a"] * 20)
    post = Post(queues)
    command = poller(unsent(queues), post, done=SENT, batch_size=2)
    selects: list[int] = []
    candidates = Queue.candidates

    def counted(self: Queue, count: int, **options: Any) -> Any:
        selects.append(count)
        return candidates(self, count, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Queue, "candidates", counted)
        patch.setattr("daemonkit.pollers.ahead.KEPT_SECONDS", 60.0)
        assert tick(command, 10) == ["2 rows"] * 10
    assert selects == [2, 8, 8, 8]
    assert sent(queues) == ["a"] * 20
    assert len(post.effects) == 20


def test_rows_that_fail_or_leave_after_they_were_read_ahead_are_left_alone(queues: str) -> None:
    made = letters(queues, *"abcdefgh")
    command = poller(unsent(queues), Post(queues), done=SENT, batch_size=2)
    seen: list[str] = []

    def process(self: ModelPoller, letter: Letter) -> None:
        seen.append(letter.kind)
        if letter.kind == "d":  # e to h have been read
            self.attempts.note_failure(str(made[4].pk), 9, "elsewhere", None)  # type: ignore[attr-defined]
            Letter.objects.using(queues).filter(kind="f").update(sent=2)

    type(command).process = process  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("daemonkit.pollers.ahead.KEPT_SECONDS", 60.0)
        assert tick(command, 4) == ["2 rows", "2 rows", "2 rows", "0 rows"]
    assert seen == list("abcdgh")


# Kinds of tables


def test_a_custom_manager_may_hide_the_rows_that_are_done(queues: str) -> None:
    """``done`` and the locks do not depend on the default manager of the model."""
    letters(queues, "a", "b")
    Letter.objects.using(queues).create(kind="hidden", sent=7)

    class Unsent(Manager[Letter]):
        def get_queryset(self) -> QuerySet[Letter]:
            return super().get_queryset().filter(sent=None)

    manager = Unsent()
    manager.model = Letter
    for claim in ("transaction", "lease"):
        command = poller(
            manager.using(queues).order_by("pk"), Post(queues), done=SENT, claim=claim, batch_size=1
        )
        assert tick(command) == ["1 row"]
    assert tick(command) == ["0 rows"]
    assert sent(queues) == ["a", "b", "hidden"]


def test_a_second_alias_is_chosen_by_the_router_for_writing(queues: str, settings: Any) -> None:
    """The queryset names no database: rows, failures and locks are where the router writes."""

    class Router:
        def db_for_read(self, model: Any, **hints: Any) -> str:
            raise AssertionError("a replica may lag")

        def db_for_write(self, model: Any, **hints: Any) -> str:
            return queues

    _, bad = letters(queues, "a", "bad")
    settings.DATABASE_ROUTERS = [Router()]
    queryset = Letter.objects.filter(sent=None).order_by("pk")
    assert tick(poller(queryset, Post(queues), done=SENT)) == ["1 row, 1 failed"]
    assert rows(queues) == {str(bad.pk): (1, False)}


@CLAIMS
def test_a_uuid_is_a_key(queues: str, claim: str) -> None:
    keys = sorted(uuid.uuid4() for _ in range(3))
    for key in keys:
        Parcel.objects.using(queues).create(pk=key)
    check_kind(queues, Parcel.objects.using(queues), claim, bad=keys[1])


@CLAIMS
def test_a_composite_primary_key_is_a_key(queues: str, claim: str) -> None:
    keys = [("A", 1), ("A", 2), ("B", 1)]
    for order, number in keys:
        Line.objects.using(queues).create(order=order, number=number)
    check_kind(queues, Line.objects.using(queues), claim, bad=("A", 2))


@CLAIMS
def test_a_text_is_a_key_and_upper_case_another_one(queues: str, claim: str) -> None:
    for tag in ("Straße", "a,b", "x"):
        Tagged.objects.using(queues).create(tag=tag)
    check_kind(queues, Tagged.objects.using(queues), claim, bad="Straße")


@CLAIMS
def test_multi_table_inheritance(queues: str, claim: str) -> None:
    made = [Express.objects.using(queues).create() for _ in range(3)]
    check_kind(queues, Express.objects.using(queues), claim, bad=made[1].pk)


@CLAIMS
def test_select_related_and_a_nullable_relation(queues: str, claim: str) -> None:
    (letter,) = letters(queues, "a")
    made = [Parcel.objects.using(queues).create(letter=each) for each in (letter, None, letter)]
    check_kind(queues, Parcel.objects.using(queues).select_related("letter"), claim, made[1].pk)


@CLAIMS
def test_a_condition_on_another_table_as_a_subquery(queues: str, claim: str) -> None:
    (letter,) = letters(queues, "a")
    made = [Parcel.objects.using(queues).create(letter=letter) for _ in range(3)]
    open_letter = Letter.objects.using(queues).filter(pk=OuterRef("letter"), sent=None)
    queryset = Parcel.objects.using(queues).filter(Exists(open_letter))
    check_kind(queues, queryset, claim, made[1].pk)


def check_kind(alias: str, queryset: QuerySet[Any], claim: str, bad: Any) -> None:
    """Three rows, of which one fails at first."""
    fails = [True]

    def process(row: Any) -> None:
        if row.pk == bad and fails:
            raise RuntimeError("bad")

    command = poller(queryset.filter(sent=None).order_by("pk"), process, done=SENT, claim=claim)
    assert tick(command, 2) == ["2 rows, 1 failed", "0 rows"]
    assert len(rows(alias)) == 1
    fails.clear()
    let_pauses_end(alias)
    assert tick(command, 2) == ["1 row", "0 rows"]
    assert rows(alias) == {}


def test_two_pollers_on_one_table_do_not_see_each_others_failures(queues: str) -> None:
    letters(queues, "bad")
    tick(poller(unsent(queues), Post(queues), done=SENT))
    other = poller(unsent(queues), lambda row: None, done=SENT, __module__="shop.print_letters")
    assert tick(other) == ["1 row"]


# Pace and stops


def test_it_looks_again_at_once_while_there_is_a_backlog_and_then_ever_less_often() -> None:
    assert ModelPoller.schedule == Poll(idle=1, cap=15)
    schedule = Poll(idle=1, cap=15)
    assert bool(schedule.judge(Batch(done=1)))
    assert bool(schedule.judge(Batch(failed=1)))
    pauses = [
        schedule._pause(schedule.judge(Batch(empty_ticks=n)).empty_ticks) for n in range(1, 8)
    ]
    assert pauses == [1, 2, 4, 8, 15, 15, 15]


@CLAIMS
def test_when_it_must_stop_it_commits_what_is_done_and_leaves_the_rest(
    queues: str, claim: str
) -> None:
    letters(queues, *"abcd")
    post = Post(queues)

    def process(letter: Letter) -> None:
        post(letter)
        if letter.kind == "b":
            command.life.ask_to_stop("a test")

    command = poller(unsent(queues), process, done=SENT, claim=claim)
    assert tick(command) == ["2 rows"]
    assert sent(queues) == ["a", "b"]
    assert post.seen == ["a", "b"]
    assert rows(queues) == {}


def test_the_backlog_is_counted_up_to_a_limit_and_without_dead_letters(queues: str) -> None:
    made = letters(queues, *"abcde")
    command = poller(unsent(queues), lambda row: None, done=SENT)
    assert command.backlog() == 5
    assert command.backlog(limit=3) == 3
    command.attempts.note_failure(str(made[0].pk), 1, "", 60.0)
    command.attempts.note_failure(str(made[1].pk), 9, "", None)
    assert command.backlog() == 3


# What is left behind


def test_rows_about_deleted_rows_are_pruned(queues: str) -> None:
    made = letters(queues, "a", "b", "c")
    command = poller(unsent(queues), lambda row: None, done=SENT)
    for each in made:
        command.attempts.note_failure(str(each.pk), 3, "", None)
    made[0].delete()
    Letter.objects.using(queues).filter(pk=made[1].pk).update(sent=1)
    PollerRow.objects.using(queues).update(not_before="2020-01-01T00:00:00Z")
    tick(command)
    assert sorted(rows(queues)) == sorted([str(made[1].pk), str(made[2].pk)])  # still dead letters


def test_a_failed_row_that_has_left_the_queue_by_itself_is_pruned(queues: str) -> None:
    (letter,) = letters(queues, "a")
    command = poller(unsent(queues), lambda row: None, done=SENT)
    command.attempts.note_failure(str(letter.pk), 3, "", 0.0)
    Letter.objects.using(queues).update(sent=1)
    let_pauses_end(queues)
    tick(command)
    assert rows(queues) == {}


# Isolation


@pytest.mark.parametrize("kind", ["mariadb", "postgres"])
def test_a_batch_runs_under_read_committed_whatever_the_connections_own_level(
    kind: str, request: pytest.FixtureRequest, alias: Any
) -> None:
    server = request.getfixturevalue(kind)
    if kind == "mariadb":
        options: dict[str, Any] = {"isolation_level": "repeatable read"}
        ask = "SELECT trx_isolation_level FROM information_schema.innodb_trx " \
              "WHERE trx_mysql_thread_id = CONNECTION_ID()"  # fmt: skip
    else:
        options = {"options": "-c default_transaction_isolation=serializable"}
        ask = "SHOW transaction_isolation"
    name = alias(server, OPTIONS=options)
    levels = []

    def process(letter: Letter) -> None:
        with connections[name].cursor() as cursor:
            cursor.execute(ask)
            levels.append(cursor.fetchone()[0].lower())

    if kind == "mariadb":
        server.execute("GRANT PROCESS ON *.* TO daemonkit")
    with queue_tables(name):
        letters(name, "a")
        assert tick(poller(unsent(name), process, done=SENT)) == ["1 row"]
    assert levels == ["read committed"]


def test_a_poller_is_not_run_inside_a_transaction(queues: str) -> None:
    letters(queues, "a")
    command = poller(unsent(queues), lambda row: None, done=SENT)
    with (
        transaction.atomic(using=queues),
        pytest.raises(Exception, match="durable atomic block"),
    ):
        tick(command)
