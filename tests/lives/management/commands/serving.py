"""A server that answers each line, of the kind and at the address that its options say."""

import os
import socketserver
import time

from django.db import connection

from daemonkit import BaseDaemonCommand, fresh_connections, release_connections
from tests.lives.sql import say


@fresh_connections
def answer(line: str) -> str:
    if line.startswith("sleep "):
        time.sleep(float(line.split()[1]))
    if line != "plain":
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    return f"{line} {os.getpid()}\n"


class Lines(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            try:
                text = answer(line.decode().strip())
            except Exception as error:
                text = f"failed: {error!r}\n"
            self.wfile.write(text.encode())

    def finish(self):
        super().finish()
        release_connections()


class Command(BaseDaemonCommand):
    pulse = 0.5

    def add_arguments(self, parser):
        parser.add_argument("address", nargs="?", default="127.0.0.1:0")
        parser.add_argument("--kind", default="lines")

    def serve(self):
        getattr(self, self.options["kind"])()

    def lines(self):
        with socketserver.ThreadingTCPServer(None, Lines, bind_and_activate=False) as server:
            server.socket.close()
            server.socket = self.listen(self.options["address"])
            server.daemon_threads = False
            say(f"listening on {server.socket.getsockname()}")
            self.on_stop(server.shutdown)
            server.serve_forever(poll_interval=0.02)

    def returns(self):
        say("returns")

    def fails(self):
        raise ValueError("out of paper")

    def deaf(self):
        self.listen(self.options["address"])
        say("deaf")
        while self.wait(1):
            pass

    def beats(self):
        self.listen(self.options["address"])
        while self.wait(0.1):
            self.beat("turns")

    def stuck(self):
        say("stuck")
        while True:
            time.sleep(1)

    def own(self):
        with socketserver.ThreadingTCPServer(("127.0.0.1", 45671), Lines) as server:
            say("listening by itself")
            self.on_stop(server.shutdown)
            server.serve_forever(poll_interval=0.02)
