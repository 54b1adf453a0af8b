"""The shop's settings. Those that differ from machine to machine come from the environment."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent


def switched_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}


def secret(name: str) -> str:
    """A secret from the folder where systemd puts credentials, or else from the environment."""
    file = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere"), name.lower())
    return file.read_text().strip() if file.is_file() else os.environ.get(name, "")


def connection_age() -> int | None:
    age = os.environ.get("CONN_MAX_AGE", "0").lower()
    return None if age == "none" else int(age)


def database(url: str) -> dict[str, Any]:
    """SQLite beside manage.py, or what the URL says."""
    config = parsed(url) if url else sqlite(BASE_DIR / "shop.sqlite3")
    if config["ENGINE"] == "django.db.backends.sqlite3":
        # Several daemons write. Each waits for the lock when its transaction starts, not later.
        config["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            **config.get("OPTIONS", {}),
        }
    config["CONN_MAX_AGE"] = connection_age()
    config["CONN_HEALTH_CHECKS"] = switched_on("CONN_HEALTH_CHECKS")
    return config


def sqlite(path: Path) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": path}


def parsed(url: str) -> dict[str, Any]:
    try:
        import dj_database_url  # not needed for the default, SQLite
    except ImportError as error:
        message = "DATABASE_URL needs a package: pip install dj-database-url"
        raise ImproperlyConfigured(message) from error
    config: dict[str, Any] = dict(dj_database_url.parse(url))
    host = urlsplit(url).netloc.rpartition("@")[2]
    if host.upper().startswith("%2F"):
        config["HOST"] = unquote(host)  # the parser lowers a host's name, but a path has capitals
    return config


SECRET_KEY = os.environ.get("SECRET_KEY", "good enough for development, and for nothing else")
DEBUG = switched_on("DEBUG")
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "localhost,127.0.0.1").split(",")

INSTALLED_APPS = [
    "django.contrib.sessions",
    "daemonkit",
    "shop",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
]
ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

DATABASES = {"default": database(secret("DATABASE_URL"))}
SILENCED_SYSTEM_CHECKS = ["models.W037"]  # MySQL leaves out the partial index, as it should
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

TIME_ZONE = "UTC"
USE_TZ = True

SHOP_INBOX = Path(os.environ.get("SHOP_INBOX", BASE_DIR / "inbox"))
MAILERS = {"default": {"BACKEND": "django.core.mail.backends.console.EmailBackend"}}
SHOP_REPORT_TO = os.environ.get("SHOP_REPORT_TO", "").split()
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL", "")
