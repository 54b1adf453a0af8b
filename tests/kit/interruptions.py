"""Raise an exception at a chosen step of some packages' code, as a signal handler may."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import Enum
from types import FrameType
from typing import Any


class Interruption(BaseException):
    """The exception of a signal handler."""


class Steps(Enum):
    """Where to raise."""

    SIGNALS = "at the start of a function and after each call of C code: where Python runs handlers"
    LINES = "before each line: more places than a signal handler has"
    INSTRUCTIONS = "before each instruction of Python's"


class Interrupter:
    """Counts the steps of an action in the code of some folders, and raises at step ``number``.

    After a run ``place`` is the place where it raised; it is empty if there were fewer steps.
    """

    def __init__(self, *folders: str, steps: Steps = Steps.LINES, number: int = -1) -> None:
        self.folders, self.steps, self.number = folders, steps, number
        self.counted = 0
        self.place = ""

    def run(self, action: Callable[[], object]) -> None:
        by_signals = self.steps is Steps.SIGNALS
        sys.setprofile(self._profile) if by_signals else sys.settrace(self._trace)
        try:
            action()
        finally:
            sys.setprofile(None) if by_signals else sys.settrace(None)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event in ("call", "c_return") and self._is_ours(frame):
            self._step(frame, event)

    def _trace(self, frame: FrameType, event: str, _: object) -> Any:
        if not self._is_ours(frame):
            return None
        frame.f_trace_opcodes = self.steps is Steps.INSTRUCTIONS
        self._step(frame, event)
        return self._trace_inside

    def _trace_inside(self, frame: FrameType, event: str, _: object) -> Any:
        if event in ("line", "opcode"):
            self._step(frame, event)
        return self._trace_inside

    def _is_ours(self, frame: FrameType) -> bool:
        return any(folder in frame.f_code.co_filename for folder in self.folders)

    def _step(self, frame: FrameType, event: str) -> None:
        self.counted += 1
        if self.counted == self.number + 1:
            self.place = f"{event} {frame.f_code.co_qualname}:{frame.f_lineno}"
            raise Interruption(self.place)


def count_steps(action: Callable[[], object], *folders: str, steps: Steps = Steps.LINES) -> int:
    counter = Interrupter(*folders, steps=steps)
    counter.run(action)
    return counter.counted
