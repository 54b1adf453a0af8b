"""Observe calls of stored procedures, for which Django does not call ``execute_wrappers``."""

from __future__ import annotations

import functools
from typing import Any

from django.db.backends.utils import CursorWrapper

from daemonkit.connections.link import link_of


def install() -> None:
    """Notify each link of its ``cursor.callproc()``. A second call does nothing."""
    original = CursorWrapper.callproc
    if getattr(original, "is_tracked", False):
        return

    @functools.wraps(original)
    def callproc(cursor: Any, *args: Any, **kwargs: Any) -> Any:
        if (link := link_of(cursor.db)) is not None:
            link.suspect()
        return original(cursor, *args, **kwargs)

    vars(callproc)["is_tracked"] = True
    setattr(CursorWrapper, "callproc", callproc)  # noqa: B010  mypy refuses it plain
