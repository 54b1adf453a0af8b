"""Whether a daemon that a shell has started writes its status and takes orders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from daemonkit import conf
from daemonkit.connections.private_session import PrivateSessions
from daemonkit.daemon import Daemon
from daemonkit.exits import Exit

if TYPE_CHECKING:
    from daemonkit.status.steering import Steering


def steering_of(daemon: Daemon, sessions: PrivateSessions) -> Steering | None:
    """What writes the status of this daemon; None where the project does not want it, or has no
    database. Raises ``CommandError`` (exit code 78)."""
    if not apps.is_installed("daemonkit"):
        return None
    try:
        engine = settings.DATABASES[conf.database()]["ENGINE"] if conf.status() else ""
    except ImproperlyConfigured as error:
        raise CommandError(str(error), returncode=Exit.MISCONFIGURED) from None
    if engine in ("", conf.NO_DATABASE):
        return None
    from daemonkit.status.steering import Steering  # not where it is off

    return Steering(daemon, sessions.ledger)
