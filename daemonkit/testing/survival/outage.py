"""A database that cannot be reached: its settings point to a port on which no server listens."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from django.db import connections

from daemonkit.testing.sessions import kill_all_sessions

_POOL_SECONDS = 0.5
"""How long a pool tries to connect. Its own default is half a minute."""


class Outage:
    """Makes the database of an alias unreachable, and reachable again. It changes the settings, so
    use it in a child process."""

    def __init__(self, alias: str) -> None:
        self._alias = alias
        self._settings: dict[str, Any] = connections.settings[alias]
        self._own: dict[str, Any] = {}

    def begin(self) -> None:
        kill_all_sessions(self._alias)
        self._own = dict(self._settings)
        options = dict(self._own["OPTIONS"])
        options.pop("unix_socket", None)
        if isinstance(options.get("pool"), dict):
            options["pool"] = {**options["pool"], "timeout": _POOL_SECONDS}
        away = {"HOST": "127.0.0.1", "PORT": _free_port(), "OPTIONS": options}
        self._settings.update(away)
        self._close_pool()

    def end(self) -> None:
        self._settings.update(self._own)
        self._close_pool()

    def _close_pool(self) -> None:
        """Close Django's pool, which keeps the settings with which it was opened."""
        close_pool = getattr(connections[self._alias], "close_pool", None)
        if close_pool is not None:
            with contextlib.suppress(Exception):
                close_pool()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
