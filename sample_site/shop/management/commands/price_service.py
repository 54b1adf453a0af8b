from collections.abc import Iterator
from contextlib import contextmanager

from django.core.management.base import CommandError, CommandParser

from daemonkit import BaseDaemonCommand, Every


class Command(BaseDaemonCommand):
    help = "Answer Thrift calls: the service of prices.thrift."
    schedule = Every(seconds=10)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=9090, help="0: any free port.")

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        from shop.rpc import PriceProcessor  # imported here: only this daemon needs thriftpy2
        from shop.thrift_server import ThriftServer

        host, port = self.options["host"], self.options["port"]
        try:
            server = ThriftServer(PriceProcessor(), host, port)
        except (OSError, OverflowError) as error:
            raise CommandError(f"price_service cannot listen on {host}:{port}: {error}") from error
        with server as self.server:
            self.stdout.write("listening on {}:{}".format(*server.address))
            self.stdout.flush()
            yield

    def tick(self) -> str:
        return f"calls answered: {self.server.take_calls()}, clients: {self.server.clients}"
