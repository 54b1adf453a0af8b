"""The table of wake-ups, for ``daemonkit.wake()`` in the process of a test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from django.test import override_settings

from daemonkit.models import Wake
from daemonkit.waking import sender
from daemonkit.waking.sender import Sender
from tests.kit.tables import empty_table


@contextlib.contextmanager
def woken_through(name: str, *, has_table: bool = True) -> Iterator[str]:
    """``wake()`` in this process uses the alias, which has the table."""
    with override_settings(DAEMONKIT={"database": name}), contextlib.ExitStack() as stack:
        if has_table:
            stack.enter_context(empty_table(Wake, name))
        yield name
        sender._sender.flush(5)
        sender._sender = Sender()  # another test means another server by the same alias
