"""Private database servers, which a test may stop, freeze and kill as it likes."""

from tests.servers.base import DATABASE, PASSWORD, USER, Server, Session
from tests.servers.mariadb import MariaDB
from tests.servers.postgresql import PostgreSQL

__all__ = ["DATABASE", "PASSWORD", "USER", "MariaDB", "PostgreSQL", "Server", "Session"]
