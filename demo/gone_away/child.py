"""One process of the measurements, which prints what came of it as JSON.

``python -m demo.gone_away.child faults REMEDY`` tries each fault on one remedy,
``python -m demo.gone_away.child settings CARE...`` each combination of settings on some cares.
GONE_AWAY holds the entry for DATABASES.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

import django
from django.conf import settings


def main(what: str, *names: str) -> None:
    warnings.simplefilter("ignore")  # a process that has threads forks: on purpose
    database = json.loads(os.environ["GONE_AWAY"])
    set_up(names[0], database)
    print(json.dumps(faults(*names) if what == "faults" else by_settings(names)))


def set_up(name: str, database: dict[str, Any]) -> None:
    """Set Django up for a remedy. Only daemonkit's own process has it installed."""
    from demo.gone_away.remedies import REMEDIES
    from demo.gone_away.settings_matrix import aliases

    settings.configure(
        DATABASES={"default": {**database, **REMEDIES[name].settings}, **aliases(database)},
        INSTALLED_APPS=["daemonkit"] if name == "daemonkit" else [],
        LOGGING={
            "version": 1,
            "handlers": {"nowhere": {"class": "logging.NullHandler"}},
            "loggers": {"daemonkit": {"handlers": ["nowhere"], "propagate": False}},
        },
    )
    django.setup()


def faults(name: str) -> dict[str, Any]:
    from demo.gone_away.faults import FAULTS, suffer
    from demo.gone_away.observer import observer
    from demo.gone_away.remedies import REMEDIES

    return {fault: suffer(FAULTS[fault], REMEDIES[name], observer()) for fault in FAULTS}


def by_settings(cares: tuple[str, ...]) -> dict[str, Any]:
    from demo.gone_away.observer import observer
    from demo.gone_away.settings_matrix import measure

    return measure(cares, observer())


if __name__ == "__main__":
    main(*sys.argv[1:])
