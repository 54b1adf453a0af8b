"""The recipes of docs/recipes.md, run from the page against real servers that fail."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from lab.processes import MANAGE_PY, ROOT, Daemon, child_environment
from lab.redis_server import Redis
from lab.servers import Server
from lab.servers.base import free_port
from lab.waiting import eventually
from tests.kit.processes import Manage

pytestmark = pytest.mark.one_python

PAGE = ROOT / "docs" / "recipes.md"
SETTINGS = """
import os

from config.settings import *

INSTALLED_APPS += ["depot"]
REDIS_URL = os.environ.get("REDIS_URL")
PRICES_URL = os.environ.get("PRICES_URL")
"""
SHORTER = {"ALIVE_SECONDS = 60": "ALIVE_SECONDS = 3", "DEAD_SECONDS = 60": "DEAD_SECONDS = 3"}
SHORTER |= {"Poll(idle=30)": "Poll(idle=0.2)"}
WITHIN = 30.0


def files() -> dict[str, str]:
    blocks = re.findall(r"^```python\n# (depot/\S+\.py)\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    return dict(blocks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project made of the page's files. Only its times are shorter."""
    folder = tmp_path_factory.mktemp("depot")
    for name, code in files().items():
        for long, short in SHORTER.items():
            code = code.replace(long, short)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(code)
    for package in ("depot", "depot/management", "depot/management/commands"):
        (folder / package / "__init__.py").touch()
    (folder / "depot_settings.py").write_text(SETTINGS)
    manage(folder, "sqlite:///:memory:", "makemigrations", "depot")
    return folder


def environment(folder: Path, url: str) -> dict[str, str | None]:
    paths = os.pathsep.join(map(str, (folder, ROOT)))
    return {"DJANGO_SETTINGS_MODULE": "depot_settings", "PYTHONPATH": paths, "DATABASE_URL": url}


def manage(folder: Path, url: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(MANAGE_PY), *arguments],
        env=child_environment({**environment(folder, url), "CONN_MAX_AGE": None}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


TABLES: dict[str, list[str]] = {}
"""The statements that make the tables, by the vendor of the database."""


def make_tables(folder: Path, server: Server) -> None:
    if server.vendor not in TABLES:
        sql = manage(folder, server.url, "sqlmigrate", "depot", "0001")
        lines = [line for line in sql.splitlines() if not line.startswith("--")]
        statements = "\n".join(lines).split(";")
        TABLES[server.vendor] = [each for each in map(str.strip, statements)
                                 if each and each not in ("BEGIN", "COMMIT")]  # fmt: skip
    connection = server.connect(autocommit=True)
    with contextlib.closing(connection), contextlib.closing(connection.cursor()) as cursor:
        for statement in TABLES[server.vendor]:
            cursor.execute(statement)


# What a recipe reads from


class Source:
    """Where a recipe reads from. What is fed are numbers."""

    environment: dict[str, str | None] = {}
    fed = 0

    def feed(self, count: int) -> None:
        for _ in range(count):
            self.fed += 1
            self.put(self.fed)

    def put(self, number: int) -> None:
        raise NotImplementedError

    def kill_sessions(self) -> None: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...
    def remove(self) -> None: ...

    def check_empty(self) -> None:
        """Fail if something is left that should be gone."""


class RedisSource(Source):
    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        redis.client.flushall()
        self.environment = {"REDIS_URL": redis.url}

    def kill_sessions(self) -> None:
        self.redis.client.client_kill_filter(_type="normal", skipme=True)

    def stop(self) -> None:
        self.redis.kill()

    def start(self) -> None:
        if not self.redis.is_running:
            self.redis.start()

    def remove(self) -> None:
        self.start()


class ListSource(RedisSource):
    def put(self, number: int) -> None:
        self.redis.client.lpush("orders", f"m{number}")

    def check_empty(self) -> None:
        assert not self.redis.client.llen("orders")
        assert not self.redis.client.keys("orders:taken:*")


class StreamSource(RedisSource):
    def put(self, number: int) -> None:
        self.redis.client.xadd("payments", {"amount": f"m{number}"})

    def check_empty(self) -> None:
        (group,) = self.redis.client.xinfo_groups("payments")
        assert group["pending"] == 0


class ListenSource(Source):
    def __init__(self, server: Server) -> None:
        self.server = server

    def put(self, number: int) -> None:
        self.server.execute(
            f"INSERT INTO depot_parcel (address, is_shipped) VALUES ('m{number}', false);"
            "NOTIFY parcels"
        )


class PricesSource(Source):
    """An API that gives three changes at a time."""

    def __init__(self) -> None:
        self.changes: list[dict[str, object]] = []
        self.address = ("127.0.0.1", free_port())
        self.environment = {"PRICES_URL": "http://{}:{}/".format(*self.address)}
        self.start()

    def put(self, number: int) -> None:
        self.changes.append({"article": f"m{number}", "cents": number})

    def start(self) -> None:
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                since = int(parse_qs(urlsplit(self.path).query)["since"][0])
                found = source.changes[since : since + 3]
                answer = {"changes": found, "next": str(since + len(found))}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None: ...

        self.api = ThreadingHTTPServer(self.address, Handler)
        threading.Thread(target=self.api.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.api.shutdown()
        self.api.server_close()

    def remove(self) -> None:
        self.stop()


# A recipe on a database


class Recipe:
    """A recipe on its servers, and the processes that run it."""

    def __init__(self, name: str, folder: Path, server: Server, source: Source, start: Manage):
        self.name, self.server, self.source = name, server, source
        self._environment = {**environment(folder, server.url), **source.environment}
        self._start = start
        self.table, self.column, self.where = {
            "order_list": ("depot_order", "message", ""),
            "payment_stream": ("depot_payment", "amount", ""),
            "ship_parcels": ("depot_parcel", "address", "WHERE is_shipped"),
            "fetch_prices": ("depot_price", "article", ""),
        }[name]

    def start(self) -> Daemon:
        # The tables are made without django_migrations, so there is nothing to wait for.
        daemon = self._start("run_daemon", self.name, env=self._environment)
        daemon.wait_for(" started: ", within=WITHIN)
        return daemon

    def stored(self) -> list[str]:
        rows = self.server.execute(f"SELECT {self.column} FROM {self.table} {self.where}")
        return sorted(row[0] for row in rows)

    def all_stored(self) -> None:
        """Wait until everything that was fed is stored, and is stored once."""
        expected = sorted(f"m{number}" for number in range(1, self.source.fed + 1))
        eventually(lambda: len(self.stored()) >= len(expected), WITHIN, f"{self.name} stores all")
        assert self.stored() == expected

    def feed(self, count: int = 5) -> None:
        self.source.feed(count)
        self.all_stored()

    @contextlib.contextmanager
    def in_mid_work(self) -> Iterator[None]:
        """A tick has taken something and waits to store it, until the block ends."""
        session = self.server.connect(autocommit=False)
        with contextlib.closing(session), contextlib.closing(session.cursor()) as cursor:
            is_postgres = self.server.vendor == "postgresql"
            if is_postgres:
                cursor.execute(f"LOCK TABLE {self.table} IN EXCLUSIVE MODE")
            else:
                cursor.execute(f"LOCK TABLES {self.table} WRITE")
            if self.name == "ship_parcels":
                self.server.execute("NOTIFY parcels")  # its table is locked
            else:
                self.source.feed(2)
            eventually(self._is_waiting, WITHIN, "a tick waits for the lock")
            yield

    def _is_waiting(self) -> bool:
        if self.server.vendor == "postgresql":
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        else:
            waiting = ("SELECT 1 FROM information_schema.processlist"
                       " WHERE state LIKE 'Waiting for table%'")  # fmt: skip
        return bool(self.server.execute(waiting))

    def ends(self, daemon: Daemon) -> None:
        """It ends with 0 at SIGTERM, and has left nothing behind."""
        assert daemon.stop(within=WITHIN) == 0, daemon.output
        self.all_stored()
        self.source.check_empty()


@pytest.fixture(scope="module")
def redis() -> Iterator[Redis]:
    if reason := Redis.why_missing():
        pytest.skip(reason)
    server = Redis(is_durable=True)
    yield server
    server.remove()


KINDS = [
    ("order_list", "mariadb"),
    ("order_list", "postgres"),
    ("payment_stream", "mariadb"),
    ("payment_stream", "postgres"),
    ("ship_parcels", "postgres"),
    ("fetch_prices", "mariadb"),
    ("fetch_prices", "postgres"),
]


WITH_A_SOURCE = [each for each in KINDS if each[0] != "ship_parcels"]
"""Those that read from somewhere else than the database."""


def ids(kinds: list[tuple[str, str]]) -> list[str]:
    return ["-".join(each) for each in kinds]


@pytest.fixture(params=KINDS, ids=ids(KINDS))
def recipe(request: pytest.FixtureRequest, folder: Path, manage: Manage) -> Iterator[Recipe]:
    name, vendor = request.param
    server: Server = request.getfixturevalue(vendor)
    make_tables(folder, server)
    sources = {"order_list": ListSource, "payment_stream": StreamSource}
    source: Source
    if name in sources:
        source = sources[name](request.getfixturevalue("redis"))
    else:
        source = ListenSource(server) if name == "ship_parcels" else PricesSource()
    yield Recipe(name, folder, server, source, manage)
    source.remove()


def failed_ticks(daemon: Daemon) -> int:
    return len(re.findall(r" tick \d+ failed ", daemon.so_far))


def test_the_page_has_a_recipe_of_each_kind() -> None:
    names = {Path(name).stem for name in files()}
    assert names == {"models", *(name for name, _ in KINDS)}
    assert all(any(long in code for code in files().values()) for long in SHORTER)


def test_idle_sessions_that_are_killed_cost_one_failed_tick_at_most(recipe: Recipe) -> None:
    daemon = recipe.start()
    recipe.feed()
    for kill in (recipe.server.kill_sessions, recipe.source.kill_sessions):
        before = failed_ticks(daemon)
        kill()
        recipe.feed()
        assert failed_ticks(daemon) - before <= 1, daemon.so_far
    recipe.ends(daemon)


@pytest.mark.parametrize(
    "recipe", [("ship_parcels", "postgres")], indirect=True, ids=["ship_parcels"]
)
def test_a_listen_session_that_is_killed_costs_one_failed_tick_and_hears_again(
    recipe: Recipe,
) -> None:
    daemon = recipe.start()
    recipe.feed()
    for count in (1, 2):
        recipe.server.kill_sessions()
        eventually(lambda count=count: failed_ticks(daemon) == count, WITHIN, "a tick fails")
        recipe.feed()
        assert failed_ticks(daemon) == count, daemon.so_far
    recipe.ends(daemon)


def test_a_database_that_is_down_between_two_ticks(recipe: Recipe) -> None:
    daemon = recipe.start()
    recipe.feed()
    recipe.server.stop()
    if not isinstance(recipe.source, ListenSource):
        recipe.source.feed(2)
    eventually(lambda: failed_ticks(daemon) >= 1, WITHIN, "a tick finds no database")
    recipe.server.start()
    recipe.all_stored()
    recipe.feed()
    recipe.ends(daemon)


@pytest.mark.parametrize("recipe", WITH_A_SOURCE, indirect=True, ids=ids(WITH_A_SOURCE))
def test_a_source_that_is_down_between_two_ticks(recipe: Recipe) -> None:
    daemon = recipe.start()
    recipe.feed()
    recipe.source.stop()
    eventually(lambda: failed_ticks(daemon) >= 1, WITHIN, "a tick finds no source")
    recipe.source.start()
    recipe.feed()
    recipe.ends(daemon)


@pytest.mark.parametrize("recipe", WITH_A_SOURCE, indirect=True, ids=ids(WITH_A_SOURCE))
def test_it_starts_while_its_source_is_away(recipe: Recipe) -> None:
    recipe.source.feed(5)
    recipe.source.stop()
    daemon = recipe.start()
    eventually(lambda: failed_ticks(daemon) >= 1, WITHIN, "a tick finds no source")
    recipe.source.start()
    recipe.all_stored()
    recipe.ends(daemon)


def test_servers_that_go_down_during_a_tick(recipe: Recipe) -> None:
    daemon = recipe.start()
    recipe.feed()
    with recipe.in_mid_work():
        recipe.server.kill()
    daemon.wait_for(re.compile(r" tick \d+ failed "), within=WITHIN)
    recipe.server.start()
    recipe.all_stored()
    with recipe.in_mid_work():
        recipe.source.stop()
    recipe.source.start()
    recipe.feed()
    recipe.ends(daemon)


def test_sighup_and_sigterm_when_idle_and_in_mid_work(recipe: Recipe) -> None:
    daemon = recipe.start()
    recipe.feed()
    daemon.signal(signal.SIGHUP)
    daemon.wait_for(" started: ", within=WITHIN, count=2)
    recipe.feed()
    with recipe.in_mid_work():
        daemon.signal(signal.SIGHUP)
        daemon.wait_for(" reloads: ", within=WITHIN, count=2)
    daemon.wait_for(" started: ", within=WITHIN, count=3)
    recipe.feed()
    with recipe.in_mid_work():
        daemon.signal(signal.SIGTERM)
        daemon.wait_for(" stops: ", within=WITHIN)
    assert daemon.wait(WITHIN) == 0
    assert failed_ticks(daemon) == 0, daemon.output
    again = recipe.start()
    recipe.feed()
    began = time.monotonic()
    recipe.ends(again)
    assert time.monotonic() - began < 10


def test_it_starts_while_its_servers_are_away(recipe: Recipe) -> None:
    recipe.source.feed(5)
    recipe.server.stop()
    recipe.source.stop()
    daemon = recipe.start()
    daemon.wait_for(re.compile(r"waits for the database|failed after"), within=WITHIN)
    recipe.server.start()
    recipe.source.start()
    recipe.all_stored()
    recipe.ends(daemon)


def test_what_a_killed_copy_had_taken_is_stored_by_another_one(recipe: Recipe) -> None:
    killed = recipe.start()
    recipe.feed()
    with recipe.in_mid_work():
        killed.signal(signal.SIGKILL)
        killed.wait()
    other = recipe.start()
    recipe.all_stored()
    recipe.ends(other)


def test_two_copies_store_everything_once_also_when_one_is_killed_in_mid_work(
    recipe: Recipe,
) -> None:
    killed, other = recipe.start(), recipe.start()
    recipe.feed(40)
    with recipe.in_mid_work():
        killed.signal(signal.SIGKILL)
        killed.wait()
    recipe.feed(40)
    assert failed_ticks(other) == 0, other.so_far
    recipe.ends(other)
