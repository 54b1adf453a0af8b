"""A bare loop and a daemonkit loop, side by side, on a private MariaDB that ends their sessions.

Exit code 0 if the bare loop fails and the other one does not, as they should.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from lab.servers import MariaDB
from lab.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 37  # of a column; two columns and the separator fit into 80 characters

SECOND_ACT = """\
The bare loop goes on like this until somebody restarts it.

Second: wait_timeout. MariaDB now ends sessions that are idle for one second
(the default is eight hours: a quiet night). Both loops are restarted and tick
every two seconds."""

RED, GREEN, BOLD, PLAIN = ("\033[31m", "\033[32m", "\033[1m", "\033[0m")


@dataclass
class Loop:
    """One of the two processes, and the lines that it has printed: one for each tick."""

    command: tuple[str, ...]
    server: MariaDB
    lines: list[str] = field(default_factory=list)

    def __enter__(self) -> Loop:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        database = json.dumps(self.server.settings(socket=False))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "django", *self.command],
            env=inherited | {"DJANGO_SETTINGS_MODULE": "demo.settings", "DEMO_DATABASE": database},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # Ctrl-C is for us, who then end it
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()

    def hear(self) -> str:
        """Wait for the line of the next tick."""
        assert self.process.stdout
        line = self.process.stdout.readline().strip() or "(it has ended)"
        self.lines.append(line)
        return line

    @property
    def session(self) -> int:
        """The session of the last tick that succeeded."""
        return self.sessions[-1]

    @property
    def sessions(self) -> list[int]:
        found = [re.search(r"session (\d+)", line) for line in self.lines]
        return list(dict.fromkeys(int(match[1]) for match in found if match))

    @property
    def failures(self) -> list[str]:
        return [line for line in self.lines if "session" not in line]

    @property
    def has_failed(self) -> bool:
        """Whether the last tick failed."""
        return self.lines[-1:] == self.failures[-1:]


@contextlib.contextmanager
def side_by_side(server: MariaDB, seconds: float) -> Iterator[tuple[Loop, Loop]]:
    """Run both processes, which tick every ``seconds``."""
    bare = Loop(("bare_loop", f"--seconds={seconds:g}"), server)
    kept = Loop(("run_daemon", "daemonkit_loop", f"--every={seconds:g}s"), server)
    with bare, kept:
        yield bare, kept


def killed(server: MariaDB) -> tuple[Loop, Loop]:
    narrate("First: KILL. Both loops tick every second, and each keeps its connection.")
    with side_by_side(server, 1) as (bare, kept):
        show_ticks(bare, kept, 3)
        narrate(f"MariaDB kills both sessions: KILL {bare.session}; KILL {kept.session};")
        server.kill_sessions()
        show_ticks(bare, kept, 3)
    return bare, kept


def timed_out(server: MariaDB) -> tuple[Loop, Loop]:
    narrate(SECOND_ACT)
    server.set_idle_timeout(1)
    with side_by_side(server, 2) as (bare, kept):
        show_ticks(bare, kept, 1)
        lost = {bare.session, kept.session}
        eventually(lambda: not lost & server.sessions(), within=10, every=0.1)
        narrate(f"MariaDB has timed out both sessions, {bare.session} and {kept.session}.")
        show_ticks(bare, kept, 3)
    return bare, kept


def show_ticks(bare: Loop, kept: Loop, count: int) -> None:
    for _ in range(count):
        left, right = (textwrap.wrap(loop.hear(), WIDTH) for loop in (bare, kept))
        for cells in zip_longest(left, right, fillvalue=""):
            columns = (
                paint(cell.ljust(WIDTH), RED if loop.has_failed else GREEN)
                for cell, loop in zip(cells, (bare, kept), strict=True)
            )
            print(f"  {' | '.join(columns)}".rstrip(), flush=True)


def narrate(text: str) -> None:
    print(f"\n{paint(text, BOLD)}\n", flush=True)


def paint(text: str, colour: str) -> str:
    return (
        f"{colour}{text}{PLAIN}" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text
    )


def summary(acts: list[tuple[Loop, Loop]]) -> bool:
    """Print two lines. Returns whether the bare loop failed and the other one did not."""
    bare = [failure for loop, _ in acts for failure in loop.failures]
    kept = [failure for _, loop in acts for failure in loop.failures]
    ticks = sum(len(loop.lines) for _, loop in acts)
    codes = sorted({code for failure in bare for code in re.findall(r"\((20\d\d),", failure)})
    print(f"\nbare loop: {len(bare)} of {ticks} ticks failed, with {' and '.join(codes)}.")
    print(f"daemonkit: {len(kept)} of {ticks} ticks failed. It got a new session each time.")
    all_lost = all(loop.failures for loop, _ in acts)
    return all_lost and bool(codes) and not kept and all(len(loop.sessions) > 1 for _, loop in acts)


def main() -> int:
    if missing := MariaDB.why_missing():
        print(f"The demo needs a MariaDB of its own. {missing}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    server = MariaDB()
    try:
        print("Starting a private MariaDB ...", flush=True)
        server.start()
        server.execute("INSERT INTO entry (note) VALUES ('one'), ('two'), ('three')")
        print(f"\n  {'a bare loop'.ljust(WIDTH)} | with daemonkit\n  {'-' * WIDTH} | {'-' * WIDTH}")
        as_expected = summary([killed(server), timed_out(server)])
    finally:
        server.remove()
    print(f"\n({time.monotonic() - started:.0f} seconds.)")
    return 0 if as_expected else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
