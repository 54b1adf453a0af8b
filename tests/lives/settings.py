"""The sample site, with daemons that lead unusual lives."""

import json
import os

from config.settings import *  # noqa: F403
from config.settings import DATABASES, INSTALLED_APPS, database

INSTALLED_APPS = [*INSTALLED_APPS, "tests.lives", "tests.queues"]
DAEMONKIT = json.loads(os.environ.get("DAEMONKIT", "{}"))

if os.environ.get("POOL"):
    DATABASES["default"]["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 4, "timeout": 3}}

if os.environ.get("DIRECT_URL"):
    DATABASES["direct"] = database(os.environ["DIRECT_URL"])
