"""Seeing calls of stored procedures, which Django sends past ``execute_wrappers``."""

from __future__ import annotations

import functools
from typing import Any

from django.db.backends.utils import CursorWrapper

from daemonkit.connections.link import link_of


def install() -> None:
    """Have each link hear of its ``cursor.callproc()``. May be called again."""
    original = CursorWrapper.callproc
    if getattr(original, "is_heard", False):
        return

    @functools.wraps(original)
    def callproc(cursor: Any, *args: Any, **kwargs: Any) -> Any:
        if (link := link_of(cursor.db)) is not None:
            link.suspect()
        return original(cursor, *args, **kwargs)

    vars(callproc)["is_heard"] = True
    setattr(CursorWrapper, "callproc", callproc)  # noqa: B010  mypy refuses it plain
