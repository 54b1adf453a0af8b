"""What a contestant is: a program that does the same work as others, in a process of its own."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from lab.contestants.environments import python_with, versions_of
from lab.contestants.process import ContestantProcess


class Contestant:
    """One contestant: its name, its site, its packages, and the management command it runs."""

    name: ClassVar[str]
    site: ClassVar[str] = "bare"
    """Its Django site, a package in lab/sites."""
    packages: ClassVar[str] = ""
    """Its file in requirements/contestants; "" for one that needs none of its own."""

    def __init__(self, *command: str, name: str = "") -> None:
        self.command = command
        self.label = name or self.name

    @property
    def python(self) -> str:
        """The Python that runs it. Raises ``RuntimeError`` if its packages cannot be installed."""
        return python_with(self.packages) if self.packages else sys.executable

    @property
    def versions(self) -> list[str]:
        return versions_of(self.packages) if self.packages else []

    def start(self, database: Mapping[str, Any], *options: str) -> ContestantProcess:
        """Start it on a database: a context manager, at whose end the process is killed."""
        # No checks: on MySQL they connect, while the benchmark may be killing sessions.
        command = [self.python, "-m", "django", *self.command, *options, "--skip-checks"]
        return ContestantProcess(command, site=self.site, database=database)


@contextlib.contextmanager
def contest(
    contestants: Sequence[Contestant], database: Mapping[str, Any]
) -> Iterator[dict[str, ContestantProcess]]:
    """The processes of several contestants, by their labels, all of which have started."""
    with contextlib.ExitStack() as stack:
        yield {each.label: stack.enter_context(each.start(database)) for each in contestants}
