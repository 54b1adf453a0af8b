"""A contestant's process."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from lab.processes import ROOT


class ContestantProcess:
    """A contestant that runs, and is asked over its pipes, a line of JSON each."""

    def __init__(self, command: list[str], *, site: str, database: Mapping[str, Any]) -> None:
        self.process = subprocess.Popen(
            command,
            env=environment(
                DJANGO_SETTINGS_MODULE=f"lab.sites.{site}.settings",
                BENCHMARK_DATABASE=json.dumps(database),
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def tell(self, what: Any) -> None:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args} ended with {self.process.wait()}")
        return json.loads(line)

    def ask(self, **what: Any) -> Any:
        self.tell(what)
        return self.hear()


def environment(**changes: str) -> dict[str, str]:
    """A child's environment, in which Python keeps its compiled files, as everywhere in earnest."""
    inherited = {
        name: value for name, value in os.environ.items()
        if name not in ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "NOTIFY_SOCKET", "WATCHDOG_USEC")
    }  # fmt: skip
    return {**inherited, "PYTHONPATH": str(ROOT), **changes}
