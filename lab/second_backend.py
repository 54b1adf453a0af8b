"""A second copy of one of Django's backends, with another driver, in the same process."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any


def import_again(backend: str, drivers: tuple[str, ...], choose: Callable[[], object]) -> type:
    """Import a backend (``"mysql"``) a second time, and return its ``DatabaseWrapper``.

    The modules of its possible ``drivers`` are hidden during the import, and ``choose()`` makes one
    of them available. Afterwards ``sys.modules`` is restored.
    """
    package = f"django.db.backends.{backend}"

    def is_hidden(name: str) -> bool:
        return name.partition(".")[0] in drivers or f"{name}.".startswith(f"{package}.")

    parent: Any = importlib.import_module("django.db.backends")
    original = getattr(parent, backend, None)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if is_hidden(name)}
    try:
        choose()
        wrapper: type = importlib.import_module(f"{package}.base").DatabaseWrapper
        return wrapper
    finally:
        for name in list(sys.modules):
            if is_hidden(name):
                del sys.modules[name]
        sys.modules.update(hidden)
        if original is not None:
            setattr(parent, backend, original)
