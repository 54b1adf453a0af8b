"""The pytest plugin: what a project's tests find as fixtures once daemonkit is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # pytest loads this file before Django has its settings
    from daemonkit.testing import DaemonUnderTest, FakeClock, Gates, NotifySocket


@pytest.fixture
def daemon() -> Callable[..., DaemonUnderTest]:
    """Return ``daemon(Command or "name", clock=..., **options)``: a daemon on a fake clock.

    Ask for ``db`` or ``transactional_db`` besides, as for any test that uses the database.
    """
    from daemonkit.testing import DaemonUnderTest

    return DaemonUnderTest


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that stands at 1970-01-01 until somebody waits."""
    from daemonkit.testing import FakeClock

    return FakeClock()


@pytest.fixture
def gates() -> Iterator[Gates]:
    """The gates at which the daemons of this test can be held."""
    from daemonkit.testing import Gates

    with Gates() as gates:
        yield gates


@pytest.fixture
def notify_socket() -> Iterator[NotifySocket]:
    """systemd's end of the notify socket, to which the daemons of this test speak."""
    from daemonkit.testing import NotifySocket

    with NotifySocket() as notify_socket:
        yield notify_socket
