"""``daemons check``: connect to every database, and say what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.management.base import CommandError

from daemonkit.checks import Answer, ask_databases
from daemonkit.errors import Problem
from daemonkit.exits import Exit
from daemonkit.management.actions.action import Action, Request


class CheckDatabases(Action):
    name = "check"
    help = "connect to every database, and say what is missing"
    has_format = True

    def run(self, request: Request) -> None:
        answers = list(ask_databases())
        if request.wants_json:
            request.print_json([_as_json(answer) for answer in answers])
        else:
            for answer in answers:
                request.print(f"{answer.alias}: {answer.text}")
                for advice in answer.advice:
                    request.print(f"  {advice}: it limits the wait on a half-open link")
        _refuse_bad([answer for answer in answers if not answer.ok])


def _as_json(answer: Answer) -> dict[str, Any]:
    return {
        "alias": answer.alias,
        "ok": answer.ok,
        "text": answer.text,
        "advice": answer.advice,
    }


def _refuse_bad(bad: Sequence[Answer]) -> None:
    if bad:
        is_proven = all(answer.problem is Problem.MISCONFIGURED for answer in bad)
        raise CommandError(
            f"no connection to {', '.join(answer.alias for answer in bad)}",
            returncode=Exit.MISCONFIGURED if is_proven else Exit.TICK_FAILED,
        )
