from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, register
from django.core.exceptions import ImproperlyConfigured

from daemonkit.exits import Exit

if TYPE_CHECKING:
    from daemonkit.signals import Announcer


class DaemonkitConfig(AppConfig):
    name = "daemonkit"
    verbose_name = "Daemons"
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if sys.argv[1:2] in (["run_daemon"], ["daemons"]):
            _refuse_a_missing_driver()

    def ready(self) -> None:
        from daemonkit import signals
        from daemonkit.connections import fork_guard, thread

        thread.install()
        fork_guard.install()
        signals.daemon_started.connect(_tell_systemd, dispatch_uid="daemonkit.listeners.systemd")
        register(_check_time_limits, "database", deploy=True)


# These functions import what they need when they are called, to keep start-up fast.


def _tell_systemd(daemon: Announcer, **_: Any) -> None:
    if "NOTIFY_SOCKET" in os.environ:
        from daemonkit.listeners import systemd

        systemd.begin(daemon)


def _check_time_limits(**arguments: Any) -> list[CheckMessage]:
    from daemonkit.checks import check_time_limits

    return check_time_limits(**arguments)


def _refuse_a_missing_driver() -> None:
    """Exit with one sentence and code 78 if a database driver is missing.

    Otherwise Django would end with a traceback: it loads the driver when it imports the models,
    before any command runs. App configs are created before that.
    """
    from django.db import connections

    for alias in connections:
        try:
            connections[alias]
        except ImproperlyConfigured as error:
            reason = " ".join(str(error).split())
            sys.stderr.write(f"DATABASES[{alias!r}]: {reason}\n")
            sys.exit(Exit.MISCONFIGURED)
