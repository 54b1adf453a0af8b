"""Warns of signal handlers that a tick has replaced."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping

logger = logging.getLogger("daemonkit")

_EFFECTS: dict[object, str] = {
    signal.SIG_IGN: "is lost",
    signal.SIG_DFL: "ends the process at once",
}


def warn(daemon: str, handlers: Mapping[signal.Signals, object]) -> None:
    for signum, handler in handlers.items():
        effect = _EFFECTS.get(handler, f"calls {handler!r}") if handler else "calls C code"
        logger.warning(
            "%s: a tick has replaced the handler of %s, which %s until the tick has ended",
            daemon,
            signum.name,
            effect,
        )
