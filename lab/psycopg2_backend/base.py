"""Django's PostgreSQL backend on psycopg2, beside the same one on psycopg 3 in one process."""

from __future__ import annotations

import sys

from lab.second_backend import import_again


def choose_psycopg2() -> None:
    sys.modules["psycopg"] = None  # type: ignore[assignment]  # Django tries it first


DatabaseWrapper = import_again("postgresql", ("psycopg",), choose_psycopg2)
