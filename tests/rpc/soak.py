"""The Thrift service for minutes, on both servers: ``python -m tests.rpc.soak --minutes 3``.

A quiet half: the servers hang up on sessions that are idle for a second, while clients pause up to
two; no call may fail. A rough half: sessions and servers are killed at random; every answer is
right, or the service's own exception. Exits with 1 if that is not so.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from lab.processes import ROOT, Daemon, manage_command
from lab.servers import MariaDB, PostgreSQL, Server
from lab.waiting import eventually
from tests.rpc.shop import Shop, port_of

CLIENTS = 4


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.rpc.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3, help="on each server")
    options = parser.parse_args()
    results = [soak(kind(), options.minutes * 60) for kind in (MariaDB, PostgreSQL)]
    sys.exit(0 if all(results) else 1)


def soak(server: Server, seconds: float) -> bool:
    try:
        server.start()
        with tempfile.TemporaryDirectory() as folder:
            shop = Shop(server, Path(folder))
            shop.open()
            return run(shop, seconds)
    finally:
        server.remove()


def run(shop: Shop, seconds: float) -> bool:
    environment = {"DATABASE_URL": shop.url, "CONN_MAX_AGE": "none"}
    command = manage_command("run_daemon", "price_service", "--port", "0")
    service = Daemon(command, env=environment)
    port = port_of(service)
    try:
        shop.server.set_idle_timeout(1)
        quiet = half("quiet", shop, service, port, seconds / 2, 0.05, lambda: time.sleep(0.5))
        shop.server.set_idle_timeout(None)
        rough = half("rough", shop, service, port, seconds / 2, 0.001, Rough(shop.server))
        well = not any(seen["unavailable"] for seen in quiet)
        well &= not any(seen["wrong"] or seen["hung_up"] for seen in quiet + rough)
        code = service.stop()
        eventually(lambda: not shop.server.sessions())
        print(f"{shop.server!r}: {'well' if well else 'NOT WELL'}, exit code {code}", flush=True)
        return well and code == 0
    finally:
        service.end()


def half(
    name: str,
    shop: Shop,
    service: Daemon,
    port: int,
    seconds: float,
    pauses: float,
    meanwhile: Callable[[], None],
) -> list[dict[str, Any]]:
    options = ["--seconds", str(seconds), "--pauses", str(pauses), "--number"]
    command = [sys.executable, "-m", "tests.rpc.hammer", str(port), str(shop.file), *options]
    clients = [Daemon([*command, str(number)], cwd=ROOT) for number in range(CLIENTS)]
    try:
        for client in clients:
            client.wait_for("connected", 20)
        while any(client.is_running for client in clients):
            meanwhile()
        for client in clients:
            assert client.wait() == 0, client.output
        seen = [json.loads(client.stdout.splitlines()[-1]) for client in clients]
        print(f"{shop.server!r}, {name}: {summary(seen)}; {held_by(service)}", flush=True)
        return seen
    finally:
        for client in clients:
            client.end()


class Rough:
    """Now and then a session is killed, and more rarely the server."""

    def __init__(self, server: Server) -> None:
        self.server, self.random = server, random.Random(1)
        self.next_outage = time.monotonic() + 15

    def __call__(self) -> None:
        if time.monotonic() > self.next_outage:
            self.server.kill()
            time.sleep(self.random.uniform(0, 2))
            self.server.start()
            self.next_outage = time.monotonic() + 20
        for session in self.server.sessions():
            if self.random.random() < 0.3:
                self.server.kill_session(session)
        time.sleep(self.random.uniform(0, 0.3))


def summary(seen: list[dict[str, Any]]) -> str:
    faults = [fault for each in seen for fault in (*each["wrong"], each["hung_up"]) if fault]
    return (
        f"{sum(each['right'] for each in seen)} right, "
        f"{sum(each['unavailable'] for each in seen)} unavailable, {len(faults)} wrong "
        f"{faults[:5]}, slowest {max(each['slowest'] for each in seen):.2f} s"
    )


def held_by(service: Daemon) -> str:
    process = psutil.Process(service.pid)
    memory = process.memory_info().rss / 2**20
    descriptors = process.num_fds()
    return f"{memory:.0f} MB, {descriptors} descriptors, {process.num_threads()} threads"


if __name__ == "__main__":
    main()
