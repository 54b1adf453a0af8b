"""An action of ``manage.py daemons``: its options, and what it does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from django.core.management.base import OutputWrapper


@dataclass(frozen=True)
class Request:
    """The options that were typed, and the streams for the result."""

    options: dict[str, Any]
    stdout: OutputWrapper
    stderr: OutputWrapper
    daemon_options: Sequence[str] = field(default=())
    """The arguments after ``--``: the options of daemons."""

    @property
    def wants_json(self) -> bool:
        return bool(self.options["format"] == "json")

    def print(self, text: str) -> None:
        self.stdout.write(text)

    def print_json(self, value: Any) -> None:
        self.print(json.dumps(value, indent=2, default=str))

    def print_table(self, rows: Sequence[tuple[str, ...]]) -> None:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            self.print("  ".join([*cells, row[-1]]).rstrip())


class Action:
    """A sub-command of ``manage.py daemons``."""

    name: ClassVar[str]
    help: ClassVar[str]
    has_format: ClassVar[bool] = False
    """Whether it takes ``--format json``."""

    def add_arguments(self, parser: Any) -> None:
        """Add its own arguments."""

    def run(self, request: Request) -> None:
        """Run the action, and print the result. Raises ``CommandError``."""
        raise NotImplementedError
