"""The requirements of an election: a database with row locks, and daemonkit's table in it."""

from __future__ import annotations

from django.core.management.base import CommandError
from django.db import ProgrammingError, connections

from daemonkit import conf
from daemonkit.connections.tables import how_to_migrate
from daemonkit.errors import one_line
from daemonkit.exits import Exit


def refuse_where_none_can_lead(name: str) -> None:
    """Raise ``CommandError`` (exit code 2) if daemonkit's database does not support leases."""
    vendor = connections[conf.database()].vendor
    if vendor not in ("mysql", "postgresql"):
        raise CommandError(_no_leader(name, vendor), returncode=Exit.USAGE)


def require_table(name: str) -> None:
    """Raise ``CommandError`` (exit code 78) if the table of leases is missing."""
    from daemonkit.models import Lease  # models cannot be loaded before the apps are

    alias = conf.database()
    try:
        Lease.objects.using(alias).filter(name=name).first()
    except ProgrammingError as error:
        raise CommandError(
            f"{name} needs the table {Lease._meta.db_table} to have one leader: "
            f"{how_to_migrate(alias)} ({one_line(error)})",
            returncode=Exit.MISCONFIGURED,
        ) from error


def _no_leader(name: str, vendor: str) -> str:
    if vendor == "sqlite":
        return (
            f"{name} cannot have a leader on SQLite, which serves one host: run one systemd unit, "
            f"which starts it once, and remove leader = True or use --no-leader"
        )
    return f"{name} can have a leader on MySQL, MariaDB and PostgreSQL, not on {vendor}"
