"""The unit templates, which can also be deployed by hand, and how a unit is made from one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]
TEMPLATES = (_PACKAGE / "systemd" / "templates", _PACKAGE.parent / "systemd")
"""The folders of the templates in the wheel and in a checkout."""


def render(template: str, head: Sequence[str], changes: Mapping[str, Sequence[str]]) -> str:
    """Return a template with another head and other lines for some settings.

    A setting whose new lines are empty is removed with its comment.
    """
    body = read_template(template).partition("\n\n")[2]
    lines = [*head, ""]
    for comment, line in _settings(body):
        key, _, value = line.partition("=")
        name = "Environment=PROJECT" if value.startswith("PROJECT=") else key
        changed = changes.get(name, [line])
        if name == "Environment=PROJECT" and name in changes:
            comment = []
        lines += [*comment, *changed] if changed else []
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).rstrip() + "\n")


def _settings(body: str) -> Iterator[tuple[list[str], str]]:
    """Yield each line of a unit that is not a comment, with the comment above it."""
    comment: list[str] = []
    for line in body.splitlines():
        if line.startswith("#"):
            comment.append(line)
        else:
            yield comment, line
            comment = []


def read_template(name: str) -> str:
    for folder in TEMPLATES:
        if (folder / name).is_file():
            return (folder / name).read_text()
    raise FileNotFoundError(f"{name} is neither in {TEMPLATES[0]} nor in {TEMPLATES[1]}")
