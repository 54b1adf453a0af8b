"""The checks of new code, in the process that tries it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from daemonkit.errors import classify


class Checked(Protocol):
    """A command that is tried."""

    options: Mapping[str, Any]

    def get_check_kwargs(self, options: Any) -> Any: ...
    @property
    def check(self) -> Any: ...


def check_without_database(command: Checked) -> None:
    """Run the system checks without a database: an outage says nothing about the code."""
    arguments = dict(command.get_check_kwargs(dict(command.options)))
    try:
        command.check(**{**arguments, "databases": []})
    except Exception as error:
        if classify(error) is None:
            raise
