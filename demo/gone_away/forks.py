"""Children that are forked during a unit of work."""

from __future__ import annotations

import os
import sys

from demo.gone_away.observer import Observer
from demo.gone_away.remedies import Remedy
from demo.gone_away.units import Outcome, count_failed, session


def child_exits(remedy: Remedy, observer: Observer) -> Outcome:
    def work() -> None:
        session()
        pid = os.fork()
        if not pid:
            sys.exit(0)
        os.waitpid(pid, 0)
        session()

    return ("parent fails",) if count_failed(remedy.decorate(work), 1) else ("unharmed",)


def child_works(remedy: Remedy, observer: Observer) -> Outcome:
    shared = []

    def work() -> None:
        mine = session()
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.write(writer, str(remedy.decorate(session)()).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            shared.append(int(answer.read()) == mine)
        os.waitpid(pid, 0)
        session()

    failed = count_failed(remedy.decorate(work), 1)
    if shared[0]:
        return ("shares the session",)
    return ("ends the parent's session",) if failed else ("own session",)
