"""``python -m tests.leader_nemesis --minutes 3 --server mariadb``: three candidates in trouble.

They append (epoch, number) under guard. Meanwhile a nemesis stops, kills and cuts off whoever
leads, kills sessions, and freezes and stops the server. A fourth process was handed an epoch each
time, and writes later. Whatever happens: no two epochs interleave, every acknowledged write is
there, and one process leads within the lease and a second.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lab.processes import Daemon, manage_command
from lab.proxy import Proxy
from lab.servers import MariaDB, PostgreSQL, Server
from lab.waiting import eventually
from tests.kit.processes import LIVES

SERVERS: dict[str, type[Server]] = {"mariadb": MariaDB, "postgres": PostgreSQL}
PATIENT = 30.0
_LOST = re.compile(r"WARNING \S+ no longer leads")
_SAYS_WHO_LEADS = re.compile(r"(INFO|WARNING) \S+ (leads|stands by)")


class Candidate:
    """A process that would lead, its road to the server, and those that it was before."""

    def __init__(self, server: Server, lease: float) -> None:
        self.server, self.lease = server, lease
        self.proxy = Proxy(("127.0.0.1", server.port))
        self.lives: list[Daemon] = []
        self.writes: list[tuple[int, int]] = []
        self._read = 0
        self.start()

    @property
    def daemon(self) -> Daemon:
        return self.lives[-1]

    @property
    def lines(self) -> list[str]:
        return [line for life in self.lives for line in list(life.lines)]

    def start(self) -> None:
        lease = f"{self.lease:g}s"  # it is in the middle of a guarded write most of the time
        arguments = "run_daemon", "leading", "--every", "5ms", "--dawdle", "0.01", "--lease", lease
        self.live(*arguments)

    def live(self, *arguments: str) -> None:
        self.acknowledged()
        self._read = 0
        command = manage_command(*arguments, manage_py=LIVES)
        env = {"DATABASE_URL": self.server.url_through(self.proxy.port)}
        self.lives.append(Daemon(command, env=env))

    def acknowledged(self) -> list[tuple[int, int]]:
        """The writes, by epoch and number, of which it has said that they are done."""
        if self.lives:
            new = self.daemon.lines[self._read :]
            self._read += len(new)
            found = [re.fullmatch(r"wrote (\d+) (\d+)", line) for line in new]
            self.writes += [(int(match[1]), int(match[2])) for match in found if match]
        return self.writes

    def is_settled(self) -> bool:
        """Whether it leads, or has seen who does."""
        said = [line for line in self.daemon.lines if _SAYS_WHO_LEADS.search(line)]
        return bool(said) and "no longer leads" not in said[-1]

    def close(self) -> None:
        for life in self.lives:
            life.end()
        self.proxy.close()


class Handed(Candidate):
    """The process that was handed an epoch."""

    def start(self) -> None:
        self.live("handed_on")


@dataclass
class Tally:
    """What happened: how often which trouble, and how long until a process led, in seconds."""

    troubles: Counter[str] = field(default_factory=Counter)
    takeovers: list[float] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    writes: int = 0
    acknowledged: int = 0
    epochs: int = 0
    refused: int = 0
    failed: int = 0

    def __str__(self) -> str:
        troubles = ", ".join(f"{number} {name}" for name, number in sorted(self.troubles.items()))
        takeovers = f"{len(self.takeovers)} takeovers{_longest(self.takeovers)}"
        return (
            f"{sum(self.troubles.values())} troubles ({troubles}); {self.epochs} epochs, "
            f"{self.writes} writes, {self.acknowledged} acknowledged, {self.refused} refused as "
            f"stale, {self.failed} failed; {takeovers}; "
            f"{len(self.recoveries)} recoveries{_longest(self.recoveries)}"
        )


def _longest(seconds: list[float]) -> str:
    return f", the longest {max(seconds):.2f} s" if seconds else ""


class Nemesis:
    """Troubles, by a seed, one after the other."""

    def __init__(self, server: Server, *, lease: float, seed: int) -> None:
        self.server, self.lease = server, lease
        self.random = random.Random(seed)
        self.candidates: list[Candidate] = []
        self.handed: Candidate | None = None
        self.tally = Tally()
        self.troubles: list[Callable[[], None]] = [
            self.freeze_the_leader,
            self.freeze_the_leader,
            self.kill_the_leader,
            self.kill_the_leader,
            self.cut_the_leader_off,
            self.cut_the_leader_off,
            self.kill_a_standby,
            self.freeze_a_standby,
            self.kill_all_sessions,
            self.stop_the_server,
            self.freeze_the_server,
        ]

    def run(self, seconds: float) -> Tally:
        """Trouble them for so long. Raises ``AssertionError`` if a promise was broken."""
        end = time.monotonic() + seconds
        with self.campaign():
            plan: list[Callable[[], None]] = []
            while time.monotonic() < end:
                self.settle()
                if not plan:  # all of them, in an order of chance
                    plan = self.random.sample(self.troubles, len(self.troubles))
                trouble = plan.pop()
                self.tally.troubles[trouble.__name__.replace("_", " ")] += 1
                trouble()
            self.settle()
            for candidate in self.candidates:
                assert candidate.daemon.stop(within=PATIENT) == 0
            assert self.handed is not None
            assert self.handed.daemon.stop(within=PATIENT) == -signal.SIGTERM
            self.verify()
        return self.tally

    @contextlib.contextmanager
    def campaign(self) -> Iterator[None]:
        try:
            for _ in range(3):
                self.candidates.append(Candidate(self.server, self.lease))
            self.handed = Handed(self.server, self.lease)
            yield
        except AssertionError as error:
            self.server.thaw()
            raise AssertionError(f"{error}\n{self.report()}") from error
        finally:
            self.server.thaw()
            for process in self.processes:
                process.close()

    @property
    def processes(self) -> list[Candidate]:
        return [*self.candidates, self.handed] if self.handed else self.candidates

    def settle(self) -> None:
        for candidate in self.candidates:
            assert candidate.daemon.is_running, candidate.daemon.so_far[-3000:]
            eventually(candidate.is_settled, PATIENT, f"{candidate.daemon} is settled")
        self.progress(self.epoch())

    def progress(self, epoch: int) -> None:
        """Wait for one more acknowledged write, of this epoch or a later one."""
        before = {id(each): len(each.acknowledged()) for each in self.candidates}

        def more() -> bool:
            new = [
                write
                for each in self.candidates
                for write in each.acknowledged()[before[id(each)] :]
            ]
            return any(write[0] >= epoch for write in new)

        eventually(more, PATIENT, f"a write of epoch {epoch}")

    # The troubles

    def freeze_the_leader(self) -> None:
        leader = self.leader()
        with self.taken_over():
            leader.daemon.signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(0, self.lease / 2))
        leader.daemon.signal(signal.SIGCONT)
        leader.daemon.wait_for(_LOST, PATIENT, count=self.terms(leader))

    def kill_the_leader(self) -> None:
        leader = self.leader()
        with self.taken_over():
            leader.daemon.signal(signal.SIGKILL)
        leader.start()

    def cut_the_leader_off(self) -> None:
        leader = self.leader()
        stall = self.random.choice([leader.proxy.stall, leader.proxy.drop])
        with self.taken_over():
            stall()
        leader.daemon.wait_for(_LOST, PATIENT, count=self.terms(leader))
        leader.proxy.resume()
        leader.proxy.cut()  # last: a login of which half was dropped would hang for a minute

    def kill_a_standby(self) -> None:
        standby = self.standby()
        standby.daemon.signal(signal.SIGKILL)
        standby.start()

    def freeze_a_standby(self) -> None:
        standby = self.standby()
        standby.daemon.signal(signal.SIGSTOP)
        time.sleep(self.random.uniform(self.lease / 2, self.lease * 1.5))
        standby.daemon.signal(signal.SIGCONT)

    def kill_all_sessions(self) -> None:
        for _ in range(3):
            self.server.kill_sessions()
            time.sleep(self.random.uniform(0, 0.2))

    def stop_the_server(self) -> None:
        self.server.kill() if self.random.random() < 0.3 else self.server.stop()
        time.sleep(self.random.uniform(0, self.lease))
        self.server.start()
        self.recovered()

    def freeze_the_server(self) -> None:
        self.server.freeze()
        time.sleep(self.random.uniform(self.lease / 2, self.lease * 1.5))
        self.server.thaw()
        self.recovered()

    # What must hold

    @contextlib.contextmanager
    def taken_over(self) -> Iterator[None]:
        before, begun = self.epoch(), time.monotonic()
        yield
        eventually(lambda: self.epoch() > before, PATIENT, "taken over")
        self.tally.takeovers.append(time.monotonic() - begun)
        self.progress(before + 1)

    def recovered(self) -> None:
        begun = time.monotonic()
        self.progress(self.epoch())
        self.tally.recoveries.append(time.monotonic() - begun)

    def verify(self) -> None:
        rows = self.server.execute("SELECT note FROM entry ORDER BY id")
        writes = [tuple(int(number) for number in row[0].split()) for row in rows]
        acknowledged = self.acknowledged()
        epochs = [write[0] for write in writes]
        tally = self.tally
        tally.writes, tally.acknowledged = len(writes), len(acknowledged)
        tally.epochs = len(set(epochs))
        lines = [line for process in self.processes for line in process.lines]
        tally.refused = sum(line.startswith("stale") for line in lines)
        tally.failed = sum(" failed after " in line for line in lines)
        mixed = [pair for pair in itertools.pairwise(writes) if pair[0][0] > pair[1][0]]
        assert not mixed, f"epochs interleave: {mixed}"
        assert len(set(writes)) == len(writes), "a write is there twice"
        lost = set(acknowledged) - set(writes)
        assert not lost, f"acknowledged, and not there: {sorted(lost)}"
        late = [seconds for seconds in tally.takeovers if seconds > self.lease + 1]
        assert not late, f"takeovers took {late} s"

    # Looking

    def acknowledged(self) -> list[tuple[int, int]]:
        return [write for process in self.processes for write in process.acknowledged()]

    def row(self) -> tuple[str, int]:
        rows = self.server.execute("SELECT holder, epoch FROM daemonkit_lease")
        return (rows[0][0], int(rows[0][1])) if rows else ("", 0)

    def epoch(self) -> int:
        return self.row()[1]

    def leader(self) -> Candidate:
        def found() -> Candidate | None:
            pid = self.row()[0].split(":")[1:2]
            pids = {str(candidate.daemon.pid): candidate for candidate in self.candidates}
            return pids.get(pid[0]) if pid else None

        candidate = eventually(found, PATIENT, "a process leads")
        assert candidate is not None
        return candidate

    def standby(self) -> Candidate:
        leader = self.leader()
        return self.random.choice([each for each in self.candidates if each is not leader])

    def terms(self, candidate: Candidate) -> int:
        """How many times its process has come to lead."""
        return sum("leads, epoch" in line for line in candidate.daemon.lines)

    def report(self) -> str:
        """Where everybody stands: SIGUSR1 writes the stacks."""
        for process in self.candidates:
            if process.daemon.is_running:
                process.daemon.signal(signal.SIGUSR1)
                with contextlib.suppress(AssertionError):  # it may be frozen
                    process.daemon.wait_for("(most recent call first)", within=1)
        tails = [[repr(each.daemon), *each.daemon.lines[-60:]] for each in self.processes]
        rows = [str(row) for row in self.server.session_rows()]
        return "\n".join([*itertools.chain(*tails), str(self.row()), *rows])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.leader_nemesis", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--server", choices=SERVERS, default="mariadb")
    parser.add_argument("--lease", type=float, default=1.5, help="seconds")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    server = SERVERS[options.server]()
    try:
        server.start()
        command = manage_command("migrate", "daemonkit", "-v", "0", manage_py=LIVES)
        assert Daemon(command, env={"DATABASE_URL": server.url}).wait(60) == 0
        nemesis = Nemesis(server, lease=options.lease, seed=options.seed)
        try:
            nemesis.run(options.minutes * 60)
        finally:
            print(nemesis.tally, flush=True)
    finally:
        server.remove()


if __name__ == "__main__":
    sys.exit(main())
