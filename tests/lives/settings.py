"""The sample site, with daemons that lead unusual lives."""

import json
import os

from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "tests.lives"]
DAEMONKIT = json.loads(os.environ.get("DAEMONKIT", "{}"))
