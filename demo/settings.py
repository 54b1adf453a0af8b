"""The demo's settings. Both loops keep their connection."""

import json
import os

SECRET_KEY = "only-for-the-demo"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["daemonkit", "demo"]
DATABASES = {"default": {**json.loads(os.environ["DEMO_DATABASE"]), "CONN_MAX_AGE": None}}
