"""Error codes of databases, sorted by what they mean for a connection or a transaction."""

from __future__ import annotations

from daemonkit.problem import Problem

# MariaDB's mysqld_error.h and errmsg.h, MySQL's error reference. Codes, not texts, because texts
# differ: libmariadb says "Server has gone away", libmysqlclient "MySQL server has gone away".
_MYSQL_CODES = {
    Problem.LOST: {
        2006, 2013, 2055,  # gone away, lost during query, lost at a named system call
        2014, 2027,  # protocol out of order, often a connection shared over a fork
        5013, 5014,  # the same two in libmariadb
        1053, 1927, 3169,  # shutdown in progress, killed (MariaDB), killed (MySQL)
        1152, 1158, 1159, 1160, 1161, 1184,  # aborted, or cut while reading or writing packets
    },
    Problem.UNREACHABLE: {
        2002, 2003, 2005,  # no socket or refused, refused, unknown host
        1040, 1203, 1226, 1129,  # too many connections, of a user, of a resource; host blocked
        1047,  # Galera: this node is not ready
    },
    Problem.MISCONFIGURED: {
        1045, 1044, 1049, 1130,  # password, grant, database, host
        2026, 2059, 3118, 4151,  # TLS, authentication plugin, account locked (MySQL, MariaDB)
    },
    Problem.READ_ONLY: {1836, 3100, 1792},
    Problem.RETRY: {1205, 1213, 1020},
}  # fmt: skip
MYSQL = {code: problem for problem, codes in _MYSQL_CODES.items() for code in codes}
MYSQL_IDLE_TIMEOUT = 4031  # MySQL only: in MariaDB this code is about triggers
MYSQL_OPTION_PREVENTS = 1290  # generic: only the text tells --read-only from --secure-file-priv

# PostgreSQL's "Appendix A. Error Codes".
SQLSTATES = {
    "57P01": Problem.LOST,  # admin_shutdown: also pg_terminate_backend
    "57P02": Problem.LOST,  # crash_shutdown
    "57P04": Problem.LOST,  # database_dropped
    "57P05": Problem.LOST,  # idle_session_timeout
    "25P03": Problem.LOST,  # idle_in_transaction_session_timeout
    "25P04": Problem.LOST,  # transaction_timeout
    "57P03": Problem.UNREACHABLE,  # cannot_connect_now: starting up, or shutting down
    "53300": Problem.UNREACHABLE,  # too_many_connections
    "28000": Problem.MISCONFIGURED,
    "28P01": Problem.MISCONFIGURED,
    "3D000": Problem.MISCONFIGURED,
    "25006": Problem.READ_ONLY,
    "40001": Problem.RETRY,
    "40P01": Problem.RETRY,
    "55P03": Problem.RETRY,
}

PSYCOPG2_CLOSED = "connection already closed"
"""psycopg2's fixed text: it has no code for this, and one class for every misuse."""
