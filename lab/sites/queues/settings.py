"""The bare site, with Celery or django-q2 on the Redis that the benchmark starts.

Each of the two has an environment of its own, so django-q2 is not installed beside Celery.
"""

import os
from importlib.util import find_spec

from lab.sites.bare.settings import *  # noqa: F403

INSTALLED_APPS = [*(["django_q"] if find_spec("django_q") else []), "lab.sites.bare"]
REDIS_URL = os.environ["BENCHMARK_REDIS"]
Q_CLUSTER = {
    "name": "benchmark",
    "workers": int(os.environ["BENCHMARK_WORKERS"]),
    "redis": REDIS_URL,
    "timeout": 60,
    "retry": 120,
    "guard_cycle": 0.5,  # its default
    "poll": 0.2,  # its default, for its broker on Redis as well
    "log_level": "ERROR",
    "catch_up": False,
    "save_limit": -1,
}
