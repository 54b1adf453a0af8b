"""Labels: each line that a worker writes begins with its name.

The worker itself writes the label, in whole lines. The supervisor is not involved, so a file or a
terminal that blocks one worker does not block the others.
"""

from __future__ import annotations

import io
import os
import re
import select
import sys
from collections.abc import Iterator
from typing import Any

LONGEST_LINE = 16384
"""Bytes of an unfinished line that are buffered. A longer line is written in pieces."""

_PRIORITY = re.compile(rb"<\d>")  # sd-daemon(3): it must be at the start of the line
_OBJECT = re.compile(rb'\{"[^"]*":.*\}')  # a line of JSON: the label is added as a member


def label_output(label: str) -> None:
    """Put a label before each line that this process writes to ``sys.stdout`` and ``sys.stderr``.

    The two stream objects stay the same, because log handlers and commands already refer to them.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.flush()
            raw = Labelled(stream.fileno(), label, stream.name)
            unbuffered = stream.write_through  # python -u
            io.TextIOWrapper.__init__(
                stream,
                raw if unbuffered else io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=stream.line_buffering,
                write_through=unbuffered,
            )


def finish_lines() -> None:
    """Write unfinished lines before the process ends."""
    for stream in (sys.stdout, sys.stderr):
        raw = getattr(getattr(stream, "buffer", None), "raw", getattr(stream, "buffer", None))
        if isinstance(raw, Labelled):
            stream.flush()
            raw.finish()


class Labelled(io.RawIOBase):
    """Writes to a descriptor, with a label before each line."""

    def __init__(self, descriptor: int, label: str, name: str) -> None:
        self.name = name
        self._descriptor = descriptor
        self._name, self._label = label.encode(), f"{label} | ".encode()
        self._begun = b""

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        *lines, self._begun = (self._begun + bytes(data)).split(b"\n")
        self._write(lines)
        if len(self._begun) > LONGEST_LINE:
            self.finish()
        return len(data)

    def finish(self) -> None:
        """Write the unfinished line as a whole line."""
        begun, self._begun = self._begun, b""
        if begun:
            self._write([begun])

    def _write(self, lines: list[bytes]) -> None:
        for piece in _pieces([self._labelled(line) + b"\n" for line in lines]):
            while piece:
                piece = piece[os.write(self._descriptor, piece) :]

    def _labelled(self, line: bytes) -> bytes:
        if _OBJECT.fullmatch(line):
            return b'{"worker": "%s", %s' % (self._name, line[1:])
        priority = found[0] if (found := _PRIORITY.match(line)) else b""
        return priority + self._label + line[len(priority) :]


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """Join as many lines as a pipe takes in one write, so that no other worker's lines come
    between them."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > select.PIPE_BUF:
            yield piece
            piece = b""
        piece += line
    yield piece
