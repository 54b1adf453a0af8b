"""Gives orders to the processes of a daemon. Raises the errors of the database."""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence

from django.db import transaction

from daemonkit import conf
from daemonkit.models import Order
from daemonkit.process.identity import host_name
from daemonkit.status.account import State
from daemonkit.status.database_time import Now, SecondsSince
from daemonkit.status.reading import Seen, read
from daemonkit.status.rows import Verb

ORDER_SECONDS = 60.0
"""How long an order to run, stop or reload holds."""

TEXT_LENGTH = 300
"""Characters of a reason that are kept."""

_DEAF = (State.SILENT, State.ENDED, State.STOPPING)


def who() -> str:
    """Who gives the orders: USER@HOST."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may give its user no name
        user = "somebody"
    return f"{user}@{host_name()}"


def receivers(daemon: str, host: str = "") -> list[Seen]:
    """The processes of a daemon, on this host or on all, that read orders."""
    return [p for p in read([daemon]) if p.state not in _DEAF and host in ("", p.host)]


def pause(daemon: str, job: str, seconds: float | None, why: str) -> None:
    """Pause a daemon, or a job of it, for so many seconds; None: until it is resumed. Replaces an
    earlier pause."""
    with transaction.atomic(using=conf.database()):
        resume(daemon, job)
        _give(Verb.PAUSE, daemon, seconds, job=job, why=" ".join(why.split())[:TEXT_LENGTH])


def resume(daemon: str, job: str) -> bool:
    """End the pause of a daemon, or of a job of it. False if there is none."""
    pauses = Order.objects.using(conf.database()).filter(daemon=daemon, verb=Verb.PAUSE)
    found = pauses.annotate(age=SecondsSince("until")).order_by("pk")
    held = {pk: age for pk, details, age in found.values_list("pk", "details", "age")
            if json.loads(details)["job"] == job}  # fmt: skip
    if held:
        pauses.filter(pk__in=list(held)).delete()
    return any(age is None or age < 0 for age in held.values())


def order(verb: Verb, daemon: str, *, job: str = "", host: str = "") -> int:
    """Give an order to run, stop or reload, which holds for a minute. Returns its key."""
    return _give(verb, daemon, ORDER_SECONDS, job=job, host=host)


def _give(verb: Verb, daemon: str, seconds: float | None, **details: str) -> int:
    row = Order.objects.using(conf.database()).create(
        daemon=daemon,
        verb=verb,
        given=Now(),
        until=None if seconds is None else Now(seconds),
        details=json.dumps({**details, "by": who()}),
    )
    return int(row.pk)


def taken_by(key: int) -> str:
    """Who has taken an order to run; "" if nobody has yet."""
    found = Order.objects.using(conf.database()).filter(pk=key)
    return next(iter(found.values_list("taken_by", flat=True)), "")


def withdraw(key: int) -> bool:
    """Take an order to run back. False if somebody has taken it."""
    return bool(Order.objects.using(conf.database()).filter(pk=key, taken_by="").delete()[0])


def places(processes: Sequence[Seen]) -> str:
    """Where they are, for people."""
    shown = ", ".join(each.place for each in processes[:5])
    more = len(processes) - 5
    return f"{shown} and {more} more" if more > 0 else shown
