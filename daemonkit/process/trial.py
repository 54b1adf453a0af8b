"""Tries new code before a reload: a fresh interpreter imports and checks it.

It runs the same command with an environment variable set, and exits where a life would begin.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time

from daemonkit.errors import one_line
from daemonkit.process.origin import NOT_FOR_CHILDREN, TRIAL, Origin

_NOT_FOR_TRIALS = (*NOT_FOR_CHILDREN, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")

_LONGEST_REASON = 500


class Trial:
    """A trial process. It fails if it has not ended after ``seconds``."""

    def __init__(self, origin: Origin, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._output = tempfile.TemporaryFile()  # noqa: SIM115  end() closes it
        environment = {**origin.environment, TRIAL: "1"}
        for name in _NOT_FOR_TRIALS:
            environment.pop(name, None)
        self._failure = ""
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = subprocess.Popen(
                origin.command,
                executable=origin.program,
                env=environment,
                cwd=origin.folder,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                start_new_session=True,  # it gets no signals from the terminal
            )
        except OSError as error:
            self._failure = one_line(error)

    def reason_to_refuse(self) -> str | None:
        """Why the new code is refused; "" if it loads, None while the trial runs."""
        if self._process is None:
            return self._failure
        code = self._process.poll()
        if code is None and time.monotonic() < self._deadline:
            return None
        if code is None:
            self.end()
            return f"it did not load within stop_timeout of {self._seconds:g} s"
        reason = self._last_line() or f"its process ended with {code}"
        self.end()
        return "" if code == 0 else reason

    def end(self) -> None:
        """Kill the trial process and its children."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._output.close()

    def _last_line(self) -> str:
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[
            :_LONGEST_REASON
        ]
