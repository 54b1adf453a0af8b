"""Django's MySQL backend on PyMySQL, beside the same one on mysqlclient in one process.

PyMySQL poses as ``MySQLdb`` (its ``install_as_MySQLdb()``) while a second copy of the backend is
imported; then everything is as it was.
"""

from __future__ import annotations

import importlib
import sys

import pymysql

BACKEND = "django.db.backends.mysql"


def poses(name: str) -> bool:
    return name.partition(".")[0] in ("MySQLdb", "_mysql") or f"{name}.".startswith(f"{BACKEND}.")


def backend_on_pymysql() -> type:
    parent = importlib.import_module("django.db.backends")
    original = getattr(parent, "mysql", None)
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if poses(name)}
    try:
        pymysql.install_as_MySQLdb()
        wrapper: type = importlib.import_module(f"{BACKEND}.base").DatabaseWrapper
        return wrapper
    finally:
        for name in list(sys.modules):
            if poses(name):
                del sys.modules[name]
        sys.modules.update(hidden)
        if original is not None:
            parent.mysql = original


DatabaseWrapper = backend_on_pymysql()
