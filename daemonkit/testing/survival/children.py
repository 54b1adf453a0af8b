"""Work in a forked child: it leaves the state of this process and its modules unchanged."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from typing import IO, Any

from daemonkit.testing.sessions import close_connections


class Child:
    """A forked child that does some work and sends the result, which must be picklable."""

    def __init__(self, work: Callable[[], Any]) -> None:
        close_connections()
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed in result()
        self._reader, writer = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about threads, which stay here
            self.pid = os.fork()
        if not self.pid:
            _live_as_child(work, writer, self._output)
        os.close(writer)

    def result(self, within: float) -> Any:
        """Wait for the result. Raises ``TimeoutError`` after ``within`` seconds, and
        ``ChildFailed`` with the child's output if it ended without a result."""
        try:
            sent = self._receive(time.monotonic() + within)
        except TimeoutError:
            os.kill(self.pid, signal.SIGKILL)
            raise
        finally:
            os.close(self._reader)
            status = os.waitpid(self.pid, 0)[1]
            output = self._read_output()
        if not sent:
            code = os.waitstatus_to_exitcode(status)
            raise ChildFailed(f"its process ended with {code}:\n{output}")
        return pickle.loads(sent)

    def _receive(self, deadline: float) -> bytes:
        received = b""
        while True:
            left = max(0.0, deadline - time.monotonic())
            if not select.select([self._reader], [], [], left)[0]:
                raise TimeoutError
            if not (part := os.read(self._reader, 1 << 16)):
                return received
            received += part

    def _read_output(self) -> str:
        self._output.seek(0)
        with self._output as output:
            return output.read().decode(errors="replace").strip()


class ChildFailed(Exception):
    """The child ended without a result. The text is its output."""


def in_child(work: Callable[[], Any], within: float) -> Any:
    """Run ``work`` in a forked child, and return its result. Raises as ``Child.result()``."""
    return Child(work).result(within)


def _live_as_child(work: Callable[[], Any], writer: int, output: IO[bytes]) -> None:
    code = 1
    try:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        sys.stdout = sys.stderr = open(os.dup(1), "w", buffering=1, errors="replace")  # noqa: SIM115, PTH123
        signal.signal(signal.SIGTERM, _ignore)  # a signal that the parent forwards is ignored
        result = pickle.dumps(work())
        with os.fdopen(writer, "wb") as pipe:
            pipe.write(result)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _ignore(*_: Any) -> None: ...
