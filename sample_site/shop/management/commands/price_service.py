from django.core.management.base import CommandParser

from daemonkit import BaseDaemonCommand


class Command(BaseDaemonCommand):
    help = "Answer Thrift calls: the service of prices.thrift."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--port", type=int, default=9090, help="0: any free port.")

    def serve(self) -> None:
        from shop.rpc import PriceProcessor  # imported here: only this daemon needs thriftpy2
        from shop.thrift_server import ThriftServer

        host, port = self.options["host"], self.options["port"]
        with self.listen(f"[{host}]:{port}" if ":" in host else f"{host}:{port}") as listener:
            self.stdout.write("listening on {}:{}".format(*listener.getsockname()))
            self.stdout.flush()
            ThriftServer(PriceProcessor(), listener).serve()
