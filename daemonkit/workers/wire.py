"""The protocol between a supervisor and its workers, encoded and decoded without I/O.

A supervisor writes orders, a worker writes reports. Each is one line of JSON, short enough for a
single atomic write to a pipe.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum

TEXT_LENGTH = 200
"""A longer text is cut off after this many characters."""


class Verb(StrEnum):
    """What a supervisor can order."""

    STOP = "stop"
    FORCE = "force"


class News(StrEnum):
    """What a worker can report."""

    READY = "ready"
    PULSE = "pulse"
    IDLE = "idle"
    """It waits for its next tick: from now on it must report its pulse."""
    BUSY = "busy"
    BEAT = "beat"
    """A tick has made progress, which the text describes."""
    FIRST_SUCCESS = "first success"
    WAITS = "waits"
    """It could not open, for the reason in the text, and tries again after ``seconds``."""
    AWAITS_MIGRATIONS = "awaits migrations"
    """It cannot open until the migrations that the text names are applied."""
    LEADERSHIP = "leadership"
    """It leads or stands by. The text says which."""
    LIMIT = "limit"
    """It has reached a limit, and waits for its replacement."""
    DISMISSED = "dismissed"
    """An order has stopped it for good, for the reason in the text."""

    NOTHING_DUE = "nothing due"
    """A successor would have nothing to do, for the reason in the text."""
    FINISHED = "finished"
    """The daemon has finished, for the reason in the text: all its workers must end."""


@dataclass(frozen=True)
class Order:
    verb: Verb
    reason: str

    def encode(self) -> bytes:
        return _line({"verb": self.verb, "reason": one_line(self.reason)})

    @classmethod
    def decode(cls, line: bytes) -> Order:
        fields = json.loads(line)
        return cls(Verb(fields["verb"]), fields["reason"])


@dataclass(frozen=True)
class Report:
    """``ticks`` and ``failed`` count all ticks of the worker so far."""

    news: News
    ticks: int = 0
    failed: int = 0
    text: str = ""
    seconds: float = 0.0

    def encode(self) -> bytes:
        return _line({**asdict(self), "text": one_line(self.text)})

    @classmethod
    def decode(cls, line: bytes) -> Report:
        fields = json.loads(line)
        return cls(**{**fields, "news": News(fields["news"])})


class LineBuffer:
    """Joins the pieces that are read from a pipe into whole lines."""

    def __init__(self) -> None:
        self._begun = b""

    def lines(self, data: bytes) -> list[bytes]:
        *lines, self._begun = (self._begun + data).split(b"\n")
        return lines


def one_line(text: str) -> str:
    return " ".join(text.split())[:TEXT_LENGTH]


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields).encode() + b"\n"
