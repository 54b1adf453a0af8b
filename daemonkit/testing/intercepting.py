"""Intercept every query and every COMMIT of an alias, between Django and the driver."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from django.db import connections
from django.db.backends.signals import connection_created

from daemonkit.connections.wrappers import Wrapper
from daemonkit.testing.sessions import wrappers_of


class Interceptor(Protocol):
    """An object that is called in place of each query and COMMIT."""

    def on_query(
        self,
        execute: Callable[..., Any],
        sql: Any,
        params: Any,
        many: bool,
        context: dict[str, Any],
    ) -> Any:
        """An execute wrapper, as ``connection.execute_wrapper()`` takes them."""

    def on_commit(self, wrapper: Wrapper, commit: Callable[[], None]) -> None:
        """Called in place of a wrapper's ``commit()``."""


@contextlib.contextmanager
def intercepting(alias: str, interceptor: Interceptor) -> Iterator[None]:
    """Intercept all connections of an alias, also those that are opened while the block runs."""
    intercepted: list[Wrapper] = []

    def intercept(connection: Wrapper, **_: Any) -> None:
        if connection.alias != alias or _is_private(connection) or connection in intercepted:
            return
        intercepted.append(connection)
        connection.execute_wrappers.append(interceptor.on_query)
        commit = connection.commit
        connection.commit = lambda: interceptor.on_commit(connection, commit)

    for wrapper in wrappers_of(alias):
        intercept(wrapper)
    connection_created.connect(intercept, weak=False)
    try:
        yield
    finally:
        connection_created.disconnect(intercept)
        for wrapper in intercepted:
            wrapper.__dict__.pop("commit", None)
            with contextlib.suppress(ValueError):
                wrapper.execute_wrappers.remove(interceptor.on_query)


def _is_private(wrapper: Wrapper) -> bool:
    """Whether it is daemonkit's private session, or a copy, which no unit of work uses."""
    return wrapper.settings_dict is not connections.settings[wrapper.alias]
