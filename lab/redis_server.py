"""A private Redis, for benchmarks of task queues and for tests of the documentation's recipes."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.servers.base import free_port
from lab.waiting import eventually


class Redis:
    """A server on a free port. It has no files, unless it ``is_durable``: then it keeps everything
    over a SIGKILL."""

    def __init__(self, *, is_durable: bool = False) -> None:
        import redis

        self._folder = tempfile.mkdtemp(prefix="dk-")
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._command = ["redis-server", "--port", str(port), "--save", "", "--dir", self._folder]
        if is_durable:
            self._command += ["--appendonly", "yes", "--appendfsync", "always"]
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        self.start()

    def start(self) -> None:
        """Start the server, or start it again, and wait until it answers."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        eventually(self._answers, 20, "redis-server answers")

    def kill(self) -> None:
        """End the server with SIGKILL, as a crash would."""
        self._process.kill()
        self._process.wait()

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    @staticmethod
    def why_missing() -> str:
        """What is not installed; "" if everything is."""
        from lab.servers.base import is_installed

        if not shutil.which("redis-server"):
            return "No redis-server."
        return "" if is_installed("redis") else "No Python package redis."

    def _answers(self) -> bool:
        import redis

        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    def remove(self) -> None:
        self.client.close()
        self.kill()
        shutil.rmtree(Path(self._folder), ignore_errors=True)
