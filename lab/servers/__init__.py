"""Private database servers, which a test may stop, freeze and kill."""

from lab.servers.base import DATABASE, PASSWORD, USER, Server, Session
from lab.servers.mariadb import MariaDB
from lab.servers.postgresql import PostgreSQL

__all__ = ["DATABASE", "PASSWORD", "USER", "MariaDB", "PostgreSQL", "Server", "Session"]
