"""The pytest plugin: fixtures for a project's tests, available once daemonkit is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # pytest loads this file before Django has its settings
    from daemonkit.testing import DaemonUnderTest, FakeClock, Gates, NotifySocket


@pytest.fixture
def daemon() -> Callable[..., DaemonUnderTest]:
    """Return ``daemon(Command or "name", clock=..., **options)``: a daemon on a fake clock.

    Also request ``db`` or ``transactional_db``, as in any test that uses the database.
    """
    from daemonkit.testing import DaemonUnderTest

    return DaemonUnderTest


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that stands at 1970-01-01 until the daemon waits."""
    from daemonkit.testing import FakeClock

    return FakeClock()


@pytest.fixture
def gates() -> Iterator[Gates]:
    """The gates at which this test can hold its daemons."""
    from daemonkit.testing import Gates

    with Gates() as gates:
        yield gates


@pytest.fixture
def notify_socket() -> Iterator[NotifySocket]:
    """A notify socket that this test reads in place of systemd."""
    from daemonkit.testing import NotifySocket

    with NotifySocket() as notify_socket:
        yield notify_socket
