"""The bare site, with a cluster of django-q2 on the Redis that the benchmark hands over."""

import os

from lab.sites.bare.settings import *  # noqa: F403

INSTALLED_APPS = ["django_q", "lab.sites.bare"]
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
