"""The tables of docs/gone-away.md and docs/gone-away.zh.md: the same results in two languages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from demo.gone_away import words
from demo.gone_away.settings_matrix import KILLS, TIMEOUTS, alias
from demo.gone_away.words import Language
from lab.processes import ROOT

Results: TypeAlias = Mapping[str, Any]
"""{"faults": by remedy and fault, "settings": by decorator and alias}."""

PAGES = {"en": ROOT / "docs/gone-away.md", "zh": ROOT / "docs/gone-away.zh.md"}


def faults_table(results: Results, language: Language) -> str:
    head = ["", *(text.in_language(language) for text in words.REMEDIES.values())]
    rows = [
        [
            text.in_language(language),
            *(outcome(results["faults"][remedy][fault], language) for remedy in words.REMEDIES),
        ]
        for fault, text in words.FAULTS.items()
    ]
    return markdown(head, rows)


def outcome(found: Sequence[Any], language: Language) -> str:
    name, *numbers = found
    return words.OUTCOMES[name].in_language(language).format(*numbers)


def settings_table(results: Results, language: Language) -> str:
    found = results["settings"]
    head = [
        text.in_language(language) for text in (*words.SETTINGS_HEADS, *words.DECORATORS.values())
    ]
    rows = [
        [
            f"`{max_age}`",
            words.CHECKS[checks].in_language(language),
            *(failures(found[decorator][alias(max_age, checks)]["failed"], language)
              for decorator in words.DECORATORS),
        ]
        for max_age in (0, 300, None)
        for checks in (False, True)
    ]  # fmt: skip
    held = (found[decorator][alias(0, False)]["held"] for decorator in words.DECORATORS)
    answers = [words.HELD[answer].in_language(language) for answer in held]
    return markdown(head, [*rows, [words.HELD_AT_ZERO.in_language(language), "", *answers]])


def failures(failed: int, language: Language) -> str:
    return words.LOSSES_FAILED.in_language(language).format(failed, KILLS + TIMEOUTS)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(
        "| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)
    )


TABLES = {"faults": faults_table, "settings": settings_table}


def with_tables(text: str, results: Results, language: Language) -> str:
    """Return a page's text with new tables between its markers."""
    for name, table in TABLES.items():
        before, begin, rest = text.partition(f"<!-- table: {name} -->\n")
        old, end, after = rest.partition("<!-- end of table -->")
        if not (begin and end) or re.search("<!--", old):
            raise ValueError(f"the page has no place for the table {name!r}")
        text = "".join((before, begin, table(results, language), "\n", end, after))
    return text
