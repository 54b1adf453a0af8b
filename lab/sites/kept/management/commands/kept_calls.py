"""A Thrift service under fresh_connections, which is a daemon's serve()."""

from daemonkit import BaseDaemonCommand, fresh_connections
from lab.sites.calls import serve, with_care


class Command(BaseDaemonCommand):
    wait_for_migrations = False

    def serve(self) -> None:
        serve(with_care(fresh_connections)(), self.listen("127.0.0.1:0"))
