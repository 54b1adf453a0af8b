from __future__ import annotations

import sys
from typing import Any

from django.apps import AppConfig
from django.core.checks import register
from django.core.exceptions import ImproperlyConfigured

from daemonkit.exits import Exit


class DaemonkitConfig(AppConfig):
    name = "daemonkit"
    verbose_name = "Daemons"
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if sys.argv[1:2] in (["run_daemon"], ["daemons"]):
            _refuse_a_missing_driver()

    def ready(self) -> None:
        from daemonkit import checks, forking, threads
        from daemonkit.systemd import notify

        threads.install()
        forking.install()
        notify.install()
        register(checks.check_time_limits, "database", deploy=True)


def _refuse_a_missing_driver() -> None:
    """One sentence and exit code 78 instead of the traceback with which Django's start would end.

    It loads the driver while it loads the models, before any command of ours can run. We come
    first: app configs are made before models are imported.
    """
    from django.db import connections

    for alias in connections:
        try:
            connections[alias]
        except ImproperlyConfigured as error:
            reason = " ".join(str(error).split())
            sys.stderr.write(f"DATABASES[{alias!r}]: {reason}\n")
            sys.exit(Exit.MISCONFIGURED)
