"""Whether a transaction is open in the session of a driver's connection, however it was begun.

The drivers differ in this. psycopg, psycopg2 and sqlite3 report it without a round trip. The client
library of MySQL does not, so the server is asked after any statement that is not a plain one.
"""

from __future__ import annotations

from typing import Any

from daemonkit.connections import statements

_IDLE, _CLOSED = 0, 4
"""libpq's PQTRANS_IDLE and PQTRANS_UNKNOWN."""

_NO_SUCH_SAVEPOINT = 1305


class Session:
    """A session of an unknown kind, which is assumed to be idle."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def seems_idle(self) -> bool:
        """Whether no transaction can be open. Never raises and never asks the server."""
        return True

    def is_in_transaction(self) -> bool:
        """Whether a transaction is open. Asks the server if necessary, and then raises what the
        driver raises."""
        return not self.seems_idle()

    def seemed_in_transaction(self) -> bool:
        """Whether a transaction was open in a session that no longer answers."""
        return not self.seems_idle()

    def was_rolled_back(self) -> None:
        """Note that a ROLLBACK has just been answered."""

    def is_closed(self) -> bool:
        """Whether the driver's connection was closed without Django. Only for drivers with which
        Django does not check that itself."""
        return False

    def is_ready(self) -> bool:
        """Whether the connection is open and all results have been read. Never asks the server."""
        return True


class PostgreSQLSession(Session):
    """A session of psycopg or psycopg2: libpq keeps the status from the last answer."""

    def __init__(self, raw: Any, source: Any) -> None:
        super().__init__(raw)
        self._source = source

    def seems_idle(self) -> bool:
        return self._source.transaction_status in (_IDLE, _CLOSED)

    def is_ready(self) -> bool:
        return bool(self._source.transaction_status == _IDLE)


class SQLiteSession(Session):
    """A session of SQLite, which has no server: the library knows its state."""

    def seems_idle(self) -> bool:
        try:
            return not self._raw.in_transaction
        except Exception:
            return True  # it is closed

    def is_closed(self) -> bool:
        try:
            return self._raw.in_transaction is None
        except Exception:
            return True


class MySQLSession(Session):
    """A session of MySQL or MariaDB. If it has sent only plain statements, it is idle."""

    def __init__(self, raw: Any, *, autocommit: bool) -> None:
        super().__init__(raw)
        self._autocommit = autocommit
        self._has_begun = False
        self.is_suspect = False
        # Only mysqlclient's: PyMySQL's method of this name would wait for an answer.
        self._next_result = raw.next_result if hasattr(raw, "store_result") else None

    def note_statement(self, sql: Any) -> None:
        """Note a statement that is about to be sent. Not called for a plain one in autocommit."""
        self.suspect()
        self._has_begun = statements.leaves_open(sql, was_open=self._has_begun)

    def suspect(self) -> None:
        """Ask the server next time: any statement may have been sent."""
        self.is_suspect = True

    def seems_idle(self) -> bool:
        return not self.is_suspect

    def is_in_transaction(self) -> bool:
        if self.is_suspect:
            self.is_suspect = self._ask()
            self._has_begun = self._has_begun and self.is_suspect
        return self.is_suspect

    def seemed_in_transaction(self) -> bool:
        return self._has_begun

    def was_rolled_back(self) -> None:
        self._has_begun = False
        self.is_suspect = self._autocommit and not self._raw.get_autocommit()

    def is_ready(self) -> bool:
        try:
            if self._next_result is not None:
                return bool(self._next_result() == -1)  # it raises on a closed handle, too
            return bool(self._raw.open)
        except Exception:
            return False

    def _ask(self) -> bool:
        if self._autocommit and not self._raw.get_autocommit():
            return True
        if "mariadb" in str(self._raw.get_server_info()).lower():
            return answers_in_transaction(self._raw)
        return has_savepoints(self._raw)


def answers_in_transaction(raw: Any) -> bool:
    """Ask MariaDB. MySQL has no such variable."""
    with raw.cursor() as cursor:
        cursor.execute("SELECT 1 FROM DUAL WHERE @@in_transaction")
        return cursor.fetchone() is not None


def has_savepoints(raw: Any) -> bool:
    """Ask MySQL, or MariaDB: outside of a transaction a savepoint is gone at once.

    Error 1305 (ER_SP_DOES_NOT_EXIST in both servers' mysqld_error.h) says so.
    """
    with raw.cursor() as cursor:
        try:
            cursor.execute("SAVEPOINT daemonkit")
            cursor.execute("RELEASE SAVEPOINT daemonkit")
        except Exception as error:
            if error.args[:1] == (_NO_SUCH_SAVEPOINT,):
                return False
            raise
    return True


def session_of(raw: Any, *, vendor: str, autocommit: bool) -> Session:
    """The session of a driver's connection. ``autocommit`` is AUTOCOMMIT in DATABASES."""
    if raw is None:
        return Session(raw)
    if hasattr(raw, "pgconn"):
        return PostgreSQLSession(raw, raw.pgconn)
    if hasattr(getattr(raw, "info", None), "transaction_status"):
        return PostgreSQLSession(raw, raw.info)
    if hasattr(raw, "in_transaction"):
        return SQLiteSession(raw)
    if vendor == "mysql":
        return MySQLSession(raw, autocommit=autocommit)
    return Session(raw)
