"""One process of the measurements. It prints its results as JSON.

``python -m demo.gone_away.child faults REMEDY`` measures all faults with one remedy,
``python -m demo.gone_away.child settings DECORATOR...`` all settings with some decorators.
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
    warnings.simplefilter("ignore")  # Python warns of a fork with threads
    set_up(json.loads(os.environ["GONE_AWAY"]), with_daemonkit=names == ("daemonkit",))
    print(json.dumps(faults(*names) if what == "faults" else by_settings(names)))


def set_up(database: dict[str, Any], *, with_daemonkit: bool) -> None:
    """Set Django up. Only a process that measures daemonkit has it in INSTALLED_APPS."""
    settings.configure(
        DATABASES={"default": database},
        INSTALLED_APPS=["daemonkit"] if with_daemonkit else [],
        LOGGING={
            "version": 1,
            "handlers": {"nowhere": {"class": "logging.NullHandler"}},
            "loggers": {"daemonkit": {"handlers": ["nowhere"], "propagate": False}},
        },
    )
    django.setup()


def faults(name: str) -> dict[str, Any]:
    from django.db import connections

    from demo.gone_away.faults import FAULTS, try_fault
    from demo.gone_away.observer import observer
    from demo.gone_away.remedies import REMEDIES

    remedy = REMEDIES[name]
    connections.settings["default"].update(remedy.settings)
    return {fault: try_fault(FAULTS[fault], remedy, observer()) for fault in FAULTS}


def by_settings(decorators: tuple[str, ...]) -> dict[str, Any]:
    from django.db import connections

    from demo.gone_away.observer import observer
    from demo.gone_away.settings_matrix import aliases, measure

    connections.settings.update(aliases(connections.settings["default"]))
    return measure(decorators, observer())


if __name__ == "__main__":
    main(*sys.argv[1:])
