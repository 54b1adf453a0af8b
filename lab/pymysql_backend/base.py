"""Django's MySQL backend on PyMySQL, beside the same one on mysqlclient in one process."""

from __future__ import annotations

import pymysql

from lab.second_backend import import_again

DatabaseWrapper = import_again("mysql", ("MySQLdb", "_mysql"), pymysql.install_as_MySQLdb)
