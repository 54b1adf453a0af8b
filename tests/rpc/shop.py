"""The sample shop on a real server, with a price file in it, and clients of its Thrift service."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import thriftpy2
from thriftpy2.rpc import make_client

from lab.processes import MANAGE_PY, ROOT, Daemon, child_environment, manage_command
from lab.servers import Server

idl = thriftpy2.load(str(ROOT / "sample_site/shop/prices.thrift"), module_name="prices_thrift")

DATABASE = "test_rpc"
DEADLINE = 10.0
"""Seconds after which a client calls a call hung."""


class Shop:
    """The shop's tables in a database of their own; ``prices`` is what the price file says."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.inbox = folder / "inbox"
        self.file = self.inbox / "done" / "prices-0001.csv"

    @property
    def url(self) -> str:
        return self.server.url_through(self.server.port, DATABASE)

    @property
    def prices(self) -> dict[str, str]:
        return read_prices(self.file)

    def open(self) -> None:
        self.server.create_database(DATABASE)
        self._run(manage_command("migrate", "-v", "0"))
        # A status would hold a session of its own, and these tests count sessions.
        for table in ("daemonkit_process", "daemonkit_order"):
            self.server.execute(f"DROP TABLE {table}", (), DATABASE)
        script = MANAGE_PY.with_name("make_price_files.py")
        self._run([sys.executable, str(script), str(self.inbox), "--files", "1", "--lines", "80"])
        self._run(manage_command("import_prices", "--once", "--inbox", str(self.inbox)))

    def close(self) -> None:
        self.server.drop_database(DATABASE)

    def _run(self, command: list[str]) -> None:
        environment = child_environment({"DATABASE_URL": self.url})
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def locked(self, sku: str) -> contextlib.AbstractContextManager[Any]:
        """Hold a product's price, so that who wants to change it waits."""
        return _locked(self.server, sku)

    def stuck(self, but: int) -> list[int]:
        """The sessions that wait for such a lock; ``but`` is the one that holds it."""
        rows = self.server.session_rows()
        return [row.id for row in rows if row.id != but and "FOR UPDATE" in (row.query or "")]


def read_prices(file: Path) -> dict[str, str]:
    return {line["sku"]: line["amount"] for line in csv.DictReader(io.StringIO(file.read_text()))}


@contextlib.contextmanager
def _locked(server: Server, sku: str) -> Iterator[int]:
    name = "database" if server.vendor == "mysql" else "dbname"
    raw = server.connect(**{name: DATABASE, "autocommit": False})
    with contextlib.closing(raw):
        cursor = raw.cursor()
        cursor.execute(
            "SELECT * FROM shop_price WHERE product_id ="
            " (SELECT id FROM shop_product WHERE sku = %s) FOR UPDATE",
            [sku],
        )
        cursor.fetchall()
        try:
            yield raw.thread_id() if server.vendor == "mysql" else raw.info.backend_pid
        finally:
            with contextlib.suppress(Exception):  # the server may have been killed
                raw.rollback()


def port_of(service: Daemon) -> int:
    return int(service.wait_for(re.compile(r"listening on .*:\d+$"), 20).rpartition(":")[2])


@contextlib.contextmanager
def connected(port: int) -> Iterator[Any]:
    """A client's connection."""
    client = make_client(idl.Prices, "127.0.0.1", port, timeout=int(DEADLINE * 1000))
    with contextlib.closing(client):
        yield client
