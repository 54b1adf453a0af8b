"""A site without daemonkit, on the database that the benchmark hands over."""

import json
import os

SECRET_KEY = "only-for-benchmarks"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["lab.sites.bare"]
DATABASES = {"default": json.loads(os.environ["BENCHMARK_DATABASE"])}
_SILENT = {"handlers": ["nowhere"], "level": "INFO", "propagate": False}
LOGGING = {  # a project that has configured its log; what it costs to write is a row of its own
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"nowhere": {"class": "logging.NullHandler"}},
    "loggers": {"daemonkit": _SILENT, "psycopg.pool": _SILENT},
}
