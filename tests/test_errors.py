"""How errors are classified: real errors of real servers, through every driver.

Nine clients get the same errors: mysqlclient, PyMySQL, psycopg 3 and psycopg2 alone, each of them
under Django, and psycopg's pool under Django.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import Error, IntegrityError, OperationalError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from daemonkit import Problem, classify
from daemonkit.errors import chain, one_line
from lab.processes import run_python
from lab.servers import Server
from lab.servers.base import free_port
from lab.waiting import eventually
from tests.kit.aliases import MakeAlias
from tests.kit.servers import MakeProxy

LOST, UNREACHABLE, MISCONFIGURED = Problem.LOST, Problem.UNREACHABLE, Problem.MISCONFIGURED
READ_ONLY, RETRY = Problem.READ_ONLY, Problem.RETRY


class Talk:
    """One session, over a driver's connection or one of Django's."""

    def __init__(self, server: Server, connection: Any) -> None:
        self.server = server
        self.connection = connection
        self.id = int(
            self.ask(by_vendor(server, "SELECT CONNECTION_ID()", "SELECT pg_backend_pid()"))
        )

    def ask(self, sql: str) -> Any:
        """Run one statement. Return the first value of its result, if it has one."""
        with contextlib.closing(self.connection.cursor()) as cursor:
            cursor.execute(sql)
            return cursor.fetchone()[0] if cursor.description else None

    def failing(self, sql: str = "SELECT 1") -> Exception:
        return failure(lambda: self.ask(sql))


class Client:
    """One way to talk to a server: a driver, alone or under Django."""

    def __init__(self, name: str, server: Server, alias: MakeAlias) -> None:
        self.driver, _, self.under = name.partition(" under ")
        self.server, self._alias = server, alias
        self._names = (f"{self.driver}_{number}" for number in range(99))
        self._bare: list[Any] = []
        self._patience = 10.0

    def talk(self, *, init: str = "", **settings: Any) -> Talk:
        """Begin a session. ``init`` is sent first; settings are those of DATABASES."""
        if self.driver == "PyMySQL":  # it does not close a unix socket that it cannot connect
            settings = {"socket": False, **settings}
        connection = self._django(settings) if self.under else self._driver(settings)
        talk = Talk(self.server, connection)
        if init:
            talk.ask(init)
        return talk

    def failing(self, **settings: Any) -> Exception:
        """Try to begin a session, and return the error."""
        self._patience = 0.2
        try:
            return failure(lambda: self.talk(**settings))
        finally:
            self._patience = 10.0

    def _django(self, settings: dict[str, Any]) -> Any:
        settings = {"OPTIONS": {}, **settings}
        if self.driver == "PyMySQL":
            settings["ENGINE"] = "lab.pymysql_backend"
        if self.driver == "psycopg2":
            settings["ENGINE"] = "lab.psycopg2_backend"
        if self.driver == "psycopg_pool":
            pool = {"min_size": 0, "max_size": 2, "timeout": self._patience}
            settings["OPTIONS"] = {"pool": pool, **settings["OPTIONS"]}
        return connections[self._alias(self.server, next(self._names), **settings)]

    def _driver(self, settings: dict[str, Any]) -> Any:
        names = {"NAME": by_vendor(self.server, "database", "dbname"), "HOST": "host"}
        options = dict(settings.pop("OPTIONS", {}))
        modules = {"mysqlclient": "MySQLdb", "PyMySQL": "pymysql"}
        options["driver"] = modules.get(self.driver, self.driver)
        for name, value in settings.items():
            options[names.get(name, name.lower())] = value
        self._bare.append(self.server.connect(**options))
        return self._bare[-1]

    def close(self) -> None:
        for connection in self._bare:
            with contextlib.suppress(Exception):
                connection.close()


def by_vendor(server: Server, mysql: Any, postgresql: Any) -> Any:
    return mysql if server.vendor == "mysql" else postgresql


def failure(action: Callable[[], Any]) -> Exception:
    try:
        action()
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


# The clients

ON_MARIADB = ["mysqlclient", "PyMySQL", "mysqlclient under Django", "PyMySQL under Django"]
ON_POSTGRESQL = ["psycopg", "psycopg under Django", "psycopg_pool under Django"]
ON_POSTGRESQL += ["psycopg2", "psycopg2 under Django"]

on_mariadb = pytest.mark.parametrize("client", ON_MARIADB, indirect=True)
on_postgresql = pytest.mark.parametrize("client", ON_POSTGRESQL, indirect=True)
under_django = pytest.mark.parametrize(
    "client", [name for name in ON_MARIADB + ON_POSTGRESQL if "under" in name], indirect=True
)


@pytest.fixture(params=ON_MARIADB + ON_POSTGRESQL)
def client(request: pytest.FixtureRequest, alias: MakeAlias) -> Iterator[Client]:
    fixture = "mariadb" if request.param in ON_MARIADB else "postgres"
    one = Client(request.param, request.getfixturevalue(fixture), alias)
    yield one
    one.close()


@pytest.fixture
def clients(server: Server, alias: MakeAlias) -> Iterator[list[Client]]:
    """All clients of one server, for errors that take long to provoke."""
    names = by_vendor(server, ON_MARIADB, ON_POSTGRESQL)
    yield (found := [Client(name, server, alias) for name in names])
    for each in found:
        each.close()


def meant(errors: list[Exception]) -> dict[str, Problem | None]:
    """The meaning of each error, by its text, so that a failing test shows the wrong one."""
    return {one_line(error): classify(error) for error in errors}


# Lost: the connection died under a statement


def while_it_runs(talk: Talk, trouble: Callable[[], Any]) -> Exception:
    """The error of a long query that is disturbed while it runs."""
    sleep = by_vendor(talk.server, "SELECT SLEEP(20)", "SELECT pg_sleep(20)")

    def make() -> None:
        eventually(lambda: any(row.query == sleep for row in talk.server.session_rows()))
        trouble()

    thread = threading.Thread(target=make)
    thread.start()
    try:
        return talk.failing(sleep)
    finally:
        thread.join()


def test_a_session_killed_in_the_middle_of_a_query_is_lost(client: Client) -> None:
    talk = client.talk()
    error = while_it_runs(talk, lambda: client.server.kill_session(talk.id))
    assert classify(error) is LOST, one_line(error)


def test_a_session_killed_while_idle_is_lost(client: Client) -> None:
    talk = client.talk()
    client.server.kill_session(talk.id)
    error = talk.failing()
    assert classify(error) is LOST, one_line(error)
    again = talk.failing()  # without a boundary in between it stays so
    assert classify(again) is LOST, one_line(again)


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
def test_a_session_that_mariadb_dropped_for_idleness_is_lost(
    clients: list[Client], server: Server
) -> None:
    talks = [client.talk(init="SET SESSION wait_timeout = 1") for client in clients]
    eventually(lambda: not server.sessions())
    lost = meant([talk.failing() for talk in talks])
    assert set(lost.values()) == {LOST}, lost


@on_postgresql
def test_a_session_that_postgresql_dropped_for_idleness_is_lost_57P05(client: Client) -> None:
    talk = client.talk(init="SET idle_session_timeout = '50ms'")
    eventually(lambda: talk.id not in client.server.sessions())
    error = talk.failing()
    assert sqlstate(error) == (None if client.driver == "psycopg2" else "57P05")
    assert classify(error) is LOST


@on_postgresql
def test_a_transaction_that_postgresql_dropped_for_idleness_is_lost_25P03(client: Client) -> None:
    talk = client.talk(init="SET idle_in_transaction_session_timeout = '50ms'")
    talk.ask("BEGIN")
    eventually(lambda: talk.id not in client.server.sessions())
    error = talk.failing()
    assert sqlstate(error) == (None if client.driver == "psycopg2" else "25P03")
    assert classify(error) is LOST


def sqlstate(error: Exception) -> str | None:
    links = list(chain(error))
    codes = [getattr(link, name, None) for name in ("sqlstate", "pgcode") for link in links]
    return next(filter(None, codes), None)


def test_a_server_that_stops_is_first_lost_and_then_unreachable(
    clients: list[Client], server: Server
) -> None:
    talks = [client.talk() for client in clients]
    server.stop()
    lost = meant([talk.failing() for talk in talks])
    assert set(lost.values()) == {LOST}, lost
    away = meant([client.failing() for client in clients])
    assert set(away.values()) == {UNREACHABLE}, away


def test_a_server_that_is_killed_in_the_middle_of_a_query_is_lost(
    clients: list[Client], server: Server
) -> None:
    errors: list[Exception] = []

    def sleep(talk: Talk) -> None:
        errors.append(talk.failing(by_vendor(server, "SELECT SLEEP(20)", "SELECT pg_sleep(20)")))

    talks = [
        client.talk() for client in clients if not client.under
    ]  # Django's stay on their thread
    threads = [threading.Thread(target=sleep, args=[talk]) for talk in talks]
    for thread in threads:
        thread.start()
    eventually(
        lambda: (
            sum("sleep" in str(row.query).lower() for row in server.session_rows()) == len(talks)
        )
    )
    last = next(client for client in clients if client.under).talk()
    errors.append(while_it_runs(last, server.kill))
    for thread in threads:
        thread.join()
    assert set(meant(errors).values()) == {LOST}, meant(errors)


@under_django
def test_a_loss_inside_atomic_is_lost_although_the_block_ends_in_unreachable(
    client: Client,
) -> None:
    talk = client.talk()

    def work() -> None:
        with transaction.atomic(using=talk.connection.alias):
            talk.ask("INSERT INTO entry (note) VALUES ('of unknown fate')")
            raise while_it_runs(talk, client.server.kill)

    error = failure(work)
    assert classify(error) is LOST
    if client.server.vendor == "mysql":  # Django reconnects to roll back; the 2013 stands behind
        codes = [link.args[0] for link in chain(error) if link.args]
        assert codes[0] in (2002, 2003)
        assert 2013 in codes


def test_an_error_raised_while_a_loss_is_handled_still_means_the_loss(client: Client) -> None:
    talk = client.talk()
    client.server.kill_session(talk.id)

    def handle_badly() -> None:
        try:
            talk.ask("SELECT 1")
        except Exception:
            raise KeyError("a bug in the error handling")  # noqa: B904

    def wrap() -> None:
        try:
            handle_badly()
        except KeyError as error:
            raise RuntimeError("the supplier's interface") from error

    assert classify(failure(wrap)) is LOST


@pytest.mark.parametrize("depth", [1, 2])
def test_a_loss_in_a_group_of_errors_is_a_loss(client: Client, depth: int) -> None:
    talk = client.talk()
    client.server.kill_session(talk.id)
    lost = talk.failing()

    async def work() -> None:
        raise lost

    async def together(depth: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(together(depth - 1) if depth else work())

    error = failure(lambda: asyncio.run(together(depth)))
    assert isinstance(error, ExceptionGroup)
    assert classify(error) is LOST, one_line(error)


def test_a_database_that_is_away_is_unreachable_in_a_group_and_behind_one(client: Client) -> None:
    group = ExceptionGroup("several", [ValueError(), client.failing(port=free_port())])
    assert classify(group) is UNREACHABLE, one_line(group)
    with pytest.raises(KeyError) as behind:
        raise KeyError("a bug in the error handling") from group
    assert classify(behind.value) is UNREACHABLE


def test_a_connection_that_was_closed_before_is_lost(client: Client) -> None:
    talk = client.talk()
    raw = talk.connection.connection if client.under else talk.connection
    raw.close()
    error = talk.failing()
    assert classify(error) is LOST, one_line(error)


def test_a_link_that_the_network_cuts_is_lost(client: Client, proxy: MakeProxy) -> None:
    network = proxy(client.server)
    talk = client.talk(port=network.port)
    network.cut(reset=True)
    error = talk.failing()
    assert classify(error) is LOST, one_line(error)


# Unreachable: no connection could be made, nothing was sent


def test_a_refused_port_is_unreachable(client: Client) -> None:
    error = client.failing(port=free_port())
    assert classify(error) is UNREACHABLE, one_line(error)


@pytest.mark.parametrize(  # psycopg alone has nothing that tells it from a loss
    "client", [name for name in ON_MARIADB + ON_POSTGRESQL if name != "psycopg"], indirect=True
)
def test_an_unknown_host_is_unreachable(client: Client) -> None:
    error = client.failing(socket=False, HOST="no-such-host.invalid")
    assert classify(error) is UNREACHABLE, one_line(error)


Connect = Callable[[BaseDatabaseWrapper], None]


def patiently(connect: Connect) -> Connect:
    """A retry helper without ``functools.wraps``."""

    def patient_connect(wrapper: BaseDatabaseWrapper) -> None:
        for _ in range(2):
            try:
                return connect(wrapper)
            except Exception as error:
                last = error
        raise last

    return patient_connect


def traced(connect: Connect) -> Connect:
    """A tracer's wrapper, with ``functools.wraps``."""

    @functools.wraps(connect)
    def wrapped(wrapper: BaseDatabaseWrapper) -> None:
        return connect(wrapper)

    return wrapped


@under_django
@pytest.mark.parametrize("wrap", [patiently, traced])
def test_another_packages_wrapper_around_connect_changes_no_meaning(
    client: Client,
    proxy: MakeProxy,
    wrap: Callable[[Connect], Connect],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(BaseDatabaseWrapper, "connect", wrap(BaseDatabaseWrapper.connect))
    network = proxy(client.server)
    target, network.target = network.target, ("127.0.0.1", free_port())
    error = client.failing(port=network.port)
    assert classify(error) is UNREACHABLE, one_line(error)
    network.target = target
    talk = client.talk(port=network.port)
    client.server.kill_session(talk.id)
    error = talk.failing()
    assert classify(error) is LOST, one_line(error)


@pytest.mark.parametrize("wrapping", ["functools.wraps", "no functools.wraps"])
def test_daemonkit_starts_after_another_package_has_wrapped_connect(wrapping: str) -> None:
    script = f"""
        import functools
        from django.db.backends.base.base import BaseDatabaseWrapper

        connect = BaseDatabaseWrapper.connect

        def patient_connect(wrapper):
            return connect(wrapper)

        if {wrapping == "functools.wraps"}:
            patient_connect = functools.wraps(connect)(patient_connect)
        BaseDatabaseWrapper.connect = patient_connect

        import django
        from django.conf import settings
        sqlite = {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
        settings.configure(DATABASES={{"default": sqlite}}, INSTALLED_APPS=["daemonkit"])
        django.setup()
        from daemonkit import Problem, classify, fresh_connections
        from django.db import OperationalError, connection
        from django.utils.asyncio import async_unsafe

        with fresh_connections:
            connection.ensure_connection()
        assert BaseDatabaseWrapper.connect is patient_connect

        @async_unsafe  # as Django's cursor() and commit() are
        def lose():
            raise OperationalError(2013, "Lost connection to MySQL server during query")

        try:
            lose()
        except OperationalError as error:
            assert classify(error) is Problem.LOST
    """
    ran = run_python(script)
    assert ran.returncode == 0, ran.stderr


@under_django
def test_a_server_that_closes_the_socket_in_the_handshake_is_unreachable(
    client: Client, proxy: MakeProxy
) -> None:
    network = proxy(client.server)
    network.target = ("127.0.0.1", free_port())  # no server: the proxy accepts, and closes
    error = client.failing(port=network.port)
    assert classify(error) is UNREACHABLE, one_line(error)


@pytest.mark.parametrize(
    ("client", "timeout"),
    [("mysqlclient under Django", 1), ("psycopg under Django", 2)],
    indirect=["client"],
)
def test_a_server_that_does_not_answer_in_the_handshake_is_unreachable(
    client: Client, timeout: int, proxy: MakeProxy
) -> None:
    network = proxy(client.server)
    network.stall()
    error = client.failing(port=network.port, OPTIONS={"connect_timeout": timeout})
    assert classify(error) is UNREACHABLE, one_line(error)


@on_mariadb
def test_too_many_connections_are_unreachable_1040(client: Client) -> None:
    client.server.configure("max_connections", 10)
    others = [client.server.connect() for _ in range(10)]
    error = client.failing()
    for other in others:
        other.close()
    assert error.args[0] == 1040
    assert classify(error) is UNREACHABLE


@on_mariadb
def test_too_many_connections_of_one_user_are_unreachable_1226(client: Client) -> None:
    limit = "ALTER USER daemonkit@'%' WITH MAX_USER_CONNECTIONS "
    client.server.execute(f"{limit} 1", (), None)
    try:
        client.talk()
        error = client.failing()
    finally:
        client.server.execute(f"{limit} 0", (), None)
    assert error.args[0] == 1226
    assert classify(error) is UNREACHABLE


@on_postgresql
def test_too_many_clients_are_unreachable(client: Client) -> None:
    client.server.execute("ALTER ROLE daemonkit CONNECTION LIMIT 1", (), None)
    try:
        client.talk()
        error = client.failing()
    finally:
        client.server.execute("ALTER ROLE daemonkit CONNECTION LIMIT -1", (), None)
    assert classify(error) is UNREACHABLE, one_line(error)


def test_a_pool_that_is_exhausted_is_unreachable(postgres: Server, alias: MakeAlias) -> None:
    name = alias(postgres, OPTIONS={"pool": {"min_size": 1, "max_size": 1, "timeout": 0.2}})
    with connections[name].cursor():
        second = connections[name].copy()
        error = failure(second.ensure_connection)
    assert classify(error) is UNREACHABLE, one_line(error)


# Misconfigured: the server proves that the settings are wrong


@on_mariadb
def test_settings_that_mariadb_refuses_are_misconfigured(client: Client) -> None:
    wrong = [{"PASSWORD": "wrong"}, {"USER": "nobody"}, {"NAME": "mysql"}, {"NAME": "test_missing"}]
    errors = [client.failing(**settings) for settings in wrong]
    assert [error.args[0] for error in errors] == [1045, 1045, 1044, 1049]
    assert [classify(error) for error in errors] == [MISCONFIGURED] * 4


@on_mariadb
def test_a_locked_account_is_misconfigured_4151(client: Client) -> None:
    client.server.execute("ALTER USER daemonkit@'%' ACCOUNT LOCK", (), None)
    try:
        error = client.failing()
    finally:
        client.server.execute("ALTER USER daemonkit@'%' ACCOUNT UNLOCK", (), None)
    assert error.args[0] == 4151
    assert classify(error) is MISCONFIGURED


@on_postgresql
def test_psycopg_has_no_code_for_a_refused_login_so_it_is_unreachable(client: Client) -> None:
    wrong = [{"PASSWORD": "wrong"}, {"USER": "nobody"}, {"NAME": "missing"}]
    errors = [client.failing(**settings) for settings in wrong]
    assert [sqlstate(error) for error in errors] == [None] * 3
    assert [classify(error) for error in errors] == [UNREACHABLE] * 3, meant(errors)


# Read-only: the session is alive, but useless


@on_mariadb
def test_a_server_that_has_become_read_only_is_read_only_1290(client: Client) -> None:
    talk = client.talk()
    client.server.configure("read_only", 1)
    error = talk.failing("INSERT INTO entry (note) VALUES ('a')")
    assert error.args[0] == 1290
    assert classify(error) is READ_ONLY
    assert talk.ask("SELECT 1") == 1


@on_mariadb
def test_a_read_only_transaction_is_read_only_1792(client: Client) -> None:
    talk = client.talk(init="SET SESSION TRANSACTION READ ONLY")
    error = talk.failing("INSERT INTO entry (note) VALUES ('a')")
    assert error.args[0] == 1792
    assert classify(error) is READ_ONLY


@on_postgresql
def test_a_server_that_has_become_read_only_is_read_only_25006(client: Client) -> None:
    client.server.configure("default_transaction_read_only", "on")
    talk = client.talk()
    error = talk.failing("INSERT INTO entry (note) VALUES ('a')")
    assert sqlstate(error) == "25006"
    assert classify(error) is READ_ONLY
    assert talk.ask("SELECT 1") == 1


def test_1290_of_another_option_is_no_failover(mariadb: Server) -> None:
    error = failure(lambda: mariadb.execute("SET GLOBAL max_user_connections = 1"))
    assert error.args[0] == 1290
    assert classify(error) is None


# Retry: the transaction must be retried, the connection is healthy


def test_a_lock_wait_timeout_means_retry(client: Client) -> None:
    limit = "SET {} = {}".format(
        *by_vendor(client.server, ("innodb_lock_wait_timeout", 0), ("lock_timeout", "'50ms'"))
    )
    client.server.execute("INSERT INTO entry (note) VALUES ('fought for')")
    holder, waiter = client.talk(), client.talk(init=limit)
    holder.ask("BEGIN")
    holder.ask("UPDATE entry SET note = 'held'")
    error = waiter.failing("UPDATE entry SET note = 'wanted'")
    holder.ask("ROLLBACK")
    assert by_vendor(client.server, 1205, "55P03") in (error.args[0], sqlstate(error))
    assert classify(error) is RETRY
    assert waiter.ask("SELECT 1") == 1


@pytest.mark.parametrize("client", ["mysqlclient", "PyMySQL", "psycopg"], indirect=True)
def test_a_deadlock_means_retry(client: Client) -> None:
    client.server.execute("INSERT INTO entry (note) VALUES ('first'), ('second')")
    if client.server.vendor == "postgresql":
        client.server.configure("deadlock_timeout", "50ms")
    one, other = client.talk(), client.talk()
    for talk, row in ((one, 1), (other, 2)):
        talk.ask("BEGIN")
        talk.ask(f"UPDATE entry SET note = 'held' WHERE id = {row}")
    errors: list[Exception] = []

    def want(talk: Talk, row: int) -> None:
        try:
            talk.ask(f"UPDATE entry SET note = 'wanted' WHERE id = {row}")
        except Exception as error:
            errors.append(error)
        talk.ask("ROLLBACK")

    thread = threading.Thread(target=want, args=(one, 2))
    thread.start()
    want(other, 1)
    thread.join()
    assert [classify(error) for error in errors] == [RETRY], errors
    assert by_vendor(client.server, 1213, "40P01") in (errors[0].args[0], sqlstate(errors[0]))


@on_postgresql
def test_a_serialization_failure_means_retry_40001(client: Client) -> None:
    client.server.execute("INSERT INTO entry (note) VALUES ('counted')")
    late, early = client.talk(), client.talk()
    late.ask("BEGIN ISOLATION LEVEL REPEATABLE READ")
    late.ask("SELECT note FROM entry")
    early.ask("UPDATE entry SET note = 'changed'")
    error = late.failing("UPDATE entry SET note = 'changed, too'")
    late.ask("ROLLBACK")
    assert sqlstate(error) == "40001"
    assert classify(error) is RETRY


@on_mariadb
def test_a_row_that_has_changed_since_it_was_read_means_retry_1020(client: Client) -> None:
    client.server.execute("INSERT INTO entry (note) VALUES ('counted')")
    late, early = client.talk(init="SET innodb_snapshot_isolation = ON"), client.talk()
    late.ask("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    late.ask("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    early.ask("UPDATE entry SET note = 'changed'")
    error = late.failing("UPDATE entry SET note = 'changed, too'")
    late.ask("ROLLBACK")
    assert error.args[0] == 1020
    assert classify(error) is RETRY


# None of these


BUGS = [
    "SELEC 1",
    "SELECT missing FROM entry",
    "SELECT * FROM missing",
    "INSERT INTO entry (id, note) VALUES (1, 'again')",
    "INSERT INTO entry (id, note) VALUES (NULL, NULL, NULL)",
]


def test_a_bug_is_no_problem_of_the_database(client: Client) -> None:
    client.server.execute("INSERT INTO entry (id, note) VALUES (1, 'there')")
    talk = client.talk()
    found = meant([talk.failing(sql) for sql in BUGS])
    assert set(found.values()) == {None}, found
    assert talk.ask("SELECT 1") == 1


def test_a_bug_is_no_problem_of_sqlite(alias: MakeAlias) -> None:
    with connections[alias(None)].cursor() as cursor:
        cursor.execute("INSERT INTO entry (id, note) VALUES (1, 'there')")
        for sql in BUGS:
            with pytest.raises(Error) as caught:
                cursor.execute(sql)
            assert classify(caught.value) is None


def test_a_locked_sqlite_file_has_no_connection_that_could_be_lost(alias: MakeAlias) -> None:
    name = alias(None, OPTIONS={"timeout": 0})
    holder = connections[name].copy()
    with connections[name].cursor() as cursor, contextlib.closing(holder):
        holder.cursor().execute("BEGIN EXCLUSIVE")
        error = failure(lambda: cursor.execute("INSERT INTO entry (note) VALUES ('a')"))
    assert "locked" in str(error)
    assert classify(error) is None


def test_a_missing_sqlite_file_is_not_unreachable(alias: MakeAlias) -> None:
    name = alias(None)
    connections[name].settings_dict["NAME"] = "/nowhere/shop.sqlite3"
    assert classify(failure(connections[name].ensure_connection)) is None


def test_a_statement_timeout_leaves_the_connection_healthy(client: Client) -> None:
    limit, code = by_vendor(
        client.server,
        ("SET SESSION max_statement_time = 0.05", 1969),
        ("SET statement_timeout = '50ms'", "57014"),
    )
    talk = client.talk(init=limit)
    error = talk.failing(by_vendor(client.server, "SELECT SLEEP(9)", "SELECT pg_sleep(9)"))
    assert code in (error.args[0], sqlstate(error))
    assert classify(error) is None
    assert talk.ask("SELECT 1") == 1


@on_mariadb
def test_a_killed_query_leaves_the_connection_healthy_1317(client: Client) -> None:
    talk = client.talk()
    kill = f"KILL QUERY {talk.id}"
    error = while_it_runs(talk, lambda: client.server.execute(kill, (), None))
    assert error.args[0] == 1317
    assert classify(error) is None


@on_mariadb
def test_4031_is_about_triggers_on_mariadb(client: Client) -> None:
    trigger = "CREATE TRIGGER b BEFORE INSERT ON entry FOR EACH ROW FOLLOWS a SET NEW.note = ''"
    error = client.talk().failing(trigger)
    assert error.args[0] == 4031
    assert classify(error) is None


def test_4031_is_a_session_dropped_for_idleness_on_mysql(mariadb: Server, alias: MakeAlias) -> None:
    wrapper = connections[alias(mariadb)]
    wrapper.ensure_connection()
    error = OperationalError(
        4031, "The client was disconnected by the server because of inactivity."
    )
    assert classify(error) is None
    wrapper.mysql_is_mariadb = False  # there is no MySQL here to ask
    assert classify(error) is LOST


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError(2013, "no error of a database"),
        KeyError(1045),
        IntegrityError(),
        Error("text"),
    ],
)
def test_an_error_of_no_database_means_nothing(error: Exception | None) -> None:
    assert classify(error) is None


def test_errors_that_go_in_circles_are_walked_once() -> None:
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__context__, one.__context__ = other, one, one
    assert list(chain(one)) == [one, other]
    assert classify(one) is None


# In one line


def test_an_error_of_many_lines_is_one_line() -> None:
    assert one_line(ValueError("first\n  second\tthird ")) == "ValueError: first second third"
    assert one_line(ValueError()) == "ValueError"


def test_the_errors_of_a_group_are_named_in_its_line_and_of_many_the_first_three() -> None:
    inner = ExceptionGroup("inner", [KeyError("a")])
    group = ExceptionGroup("unhandled errors", [OperationalError(2002, "refused"), inner])
    assert one_line(group) == (
        "ExceptionGroup: unhandled errors: OperationalError: (2002, 'refused'); "
        "ExceptionGroup: inner: KeyError: 'a'"
    )
    many = BaseExceptionGroup("", [KeyboardInterrupt(number) for number in range(5)])
    assert one_line(many) == (
        "BaseExceptionGroup: KeyboardInterrupt: 0; KeyboardInterrupt: 1; KeyboardInterrupt: 2; "
        "and 2 more"
    )


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Numeric(Exception):
    def __str__(self) -> str:
        return 42  # type: ignore[return-value]


def test_an_error_whose_text_fails_is_named_all_the_same() -> None:
    assert one_line(Mute()) == "Mute: (its text failed with RuntimeError)"
    assert one_line(Numeric()) == "Numeric: (its text failed with TypeError)"
    group = ExceptionGroup("two", [Mute(), KeyError("b")])
    assert one_line(group).endswith("two: Mute: (its text failed with RuntimeError); KeyError: 'b'")
