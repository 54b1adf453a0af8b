"""A few statements that mean the same on every database."""

import time

from django.db import connection


def session() -> int:
    """The id under which the server knows us; 0 for SQLite."""
    functions = {"mysql": "CONNECTION_ID()", "postgresql": "pg_backend_pid()", "sqlite": "0"}
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {functions[connection.vendor]}")
        return int(cursor.fetchone()[0])


def note(text: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO entry (note) VALUES (%s)", [text])


def sleep(seconds: float) -> None:
    """Sit in the driver; SQLite has no statement for that."""
    if connection.vendor == "sqlite":
        time.sleep(seconds)
        return
    function = "SLEEP" if connection.vendor == "mysql" else "pg_sleep"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {function}({seconds})")


def say(text: str) -> None:
    print(text, flush=True)
