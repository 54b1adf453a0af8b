"""Real processes: ``manage.py`` in its own process group, with its output collected."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from signal import SIGTERM
from textwrap import dedent
from typing import IO

import psutil

from lab.waiting import eventually

ROOT = Path(__file__).resolve().parent.parent
MANAGE_PY = ROOT / "sample_site" / "manage.py"

# Variables of ours and of pytest: a daemon under test must start as a user's does.
NOT_INHERITED = (
    "DJANGO_SETTINGS_MODULE",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONUNBUFFERED",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
)


def run_python(script: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """Run a script, which may be indented, in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-c", dedent(script)],
        env=child_environment(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def is_alive(process: psutil.Process) -> bool:
    """Whether a process is alive. A zombie is not (PID 1 of a container may never reap it)."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_stopped(process: psutil.Process) -> bool:
    """Whether every thread has stopped: SIGSTOP reaches them one after the other."""
    tasks = Path(f"/proc/{process.pid}/task")
    if not tasks.exists():
        return bool(process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE))
    with contextlib.suppress(OSError):  # a thread has ended meanwhile
        stats = [(task / "stat").read_text() for task in tasks.iterdir()]
        return all(stat.rpartition(")")[2].split()[0] in "TZ" for stat in stats)
    return False


def child_environment(changes: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return the environment for a child; a value of None removes a variable."""
    environment = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    paths = [str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    environment["PYTHONPATH"] = os.pathsep.join(paths)
    for name, value in (changes or {}).items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return environment


class Daemon:
    """A command that runs as a process; its session id is its pid."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str | None] | None = None,
        cwd: Path | str | None = None,
    ) -> None:
        self.command = list(command)
        self.lines: list[str] = []  # both outputs, in the order of their arrival
        self._changed = threading.Condition()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            self.command,
            env=child_environment(env),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.pid = self.process.pid
        self._waited_for = False
        self._outputs: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._readers = [self._read("stdout"), self._read("stderr")]

    def __repr__(self) -> str:
        return f"<Daemon {self.pid}: {' '.join(self.command[1:])}>"

    # Output

    @property
    def output(self) -> str:
        """Both outputs of a process that has ended, approximately in the order of their lines."""
        return self._whole(self.lines)

    @property
    def stdout(self) -> str:
        return self._whole(self._outputs["stdout"])

    @property
    def stderr(self) -> str:
        return self._whole(self._outputs["stderr"])

    @property
    def so_far(self) -> str:
        """What has been read of both outputs until now. Use ``wait_for()`` for later lines."""
        return "\n".join(self.lines)

    def _whole(self, lines: list[str]) -> str:
        """Join the lines of a process that has ended. Otherwise some may be missing, in a race."""
        assert self._waited_for, f"{self!r} has not been waited for: its output is incomplete"
        return "\n".join(lines)

    def wait_for(
        self, pattern: str | re.Pattern[str], within: float = 10.0, *, count: int = 1
    ) -> str:
        """Return the ``count``-th line that contains a text, or that a regex matches.

        Lines from before the call count. Fails at once if the process has ended without the line.
        """
        deadline = time.monotonic() + within
        with self._changed:
            while len(found := [line for line in self.lines if _holds(line, pattern)]) < count:
                left = deadline - time.monotonic()
                if left <= 0 or not self._may_print_more():
                    raise AssertionError(self._report(f"printed {pattern!r} {len(found)} times"))
                self._changed.wait(min(left, 0.1))
            return found[count - 1]

    def _may_print_more(self) -> bool:
        return any(reader.is_alive() for reader in self._readers)

    def _read(self, name: str) -> threading.Thread:
        stream: IO[str] = getattr(self.process, name)
        reader = threading.Thread(target=self._collect, args=(stream, self._outputs[name]))
        reader.daemon = True
        reader.start()
        return reader

    def _collect(self, stream: IO[str], lines: list[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    lines.append(line.rstrip("\n"))
                    self.lines.append(line.rstrip("\n"))
                    self._changed.notify_all()

    def _report(self, what: str) -> str:
        state = "running" if self.is_running else f"ended with {self.process.returncode}"
        return f"{self!r} ({state}) {what}; its output:\n{self.so_far}"

    # Life

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def signal_group(self, signum: int) -> None:
        """Signal the whole group, as a terminal's Ctrl-C and systemd do."""
        os.killpg(self.pid, signum)

    def wait(self, within: float = 10.0) -> int:
        """Return the exit code (negative: the signal), with all output read."""
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(self._report(f"has not ended within {within:g} s")) from None
        deadline = time.monotonic() + 1  # a child that lives on may hold the pipes open
        for reader in self._readers:
            reader.join(max(0, deadline - time.monotonic()))
        self._waited_for = True
        return code

    def stop(self, signum: int = SIGTERM, within: float = 10.0) -> int:
        """Signal, and return the exit code."""
        self.signal(signum)
        return self.wait(within)

    def family(self) -> list[psutil.Process]:
        """Return the living processes of this one's session."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            return os.getsid(process.pid) == self.pid and is_alive(process)
        return False

    def _survivors(self) -> list[psutil.Process]:
        """Return the processes that outlive their parent, after a moment to end."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: not self.family(), within=1)
        return self.family()

    def end(self) -> list[psutil.Process]:
        """Kill all remaining processes. Return the orphans of a daemon that had already ended."""
        orphans = [] if self.is_running else self._survivors()
        for process in [*self.family(), *self.family()]:  # twice: one may fork meanwhile
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(10)
        eventually(lambda: not self.family(), what=f"{self!r} and its children are gone")
        for reader in self._readers:
            reader.join(5)
        return orphans


def _holds(line: str, pattern: str | re.Pattern[str]) -> bool:
    return pattern in line if isinstance(pattern, str) else bool(pattern.search(line))


def manage_command(*arguments: str, manage_py: Path | str = MANAGE_PY) -> list[str]:
    return [sys.executable, str(manage_py), *arguments]
