"""A site on a database in memory."""

SECRET_KEY = "only-for-soaks"
USE_TZ = True
INSTALLED_APPS = ["daemonkit", "soaks.lives"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
