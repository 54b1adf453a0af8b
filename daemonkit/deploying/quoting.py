"""Quoting by the rules of systemd.unit(5), systemd.syntax(7) and systemd.service(5)."""

from __future__ import annotations

import re
from collections.abc import Sequence


def one_line(text: str) -> str:
    return " ".join(text.split("\n"))


def escape_specifiers(text: str) -> str:
    return text.replace("%", "%%")


def quoted_word(text: str) -> str:
    """Quote one word of a line that systemd splits into words."""
    escaped = escape_specifiers(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    plain = re.fullmatch(r"[\w%@:+=,./\\-]+", escaped) and escaped == escape_specifiers(text)
    return escaped if plain else f'"{escaped}"'


def quoted_command(words: Sequence[str]) -> str:
    """Quote a command line. systemd expands variables in the arguments, not in the program's
    path."""
    program, *arguments = words
    return " ".join(
        [quoted_word(program), *(quoted_word(each.replace("$", "$$")) for each in arguments)]
    )
