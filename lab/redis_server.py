"""A private Redis, for the benchmarks that compare task queues with daemonkit."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from lab.servers.base import free_port
from lab.waiting import eventually


class Redis:
    """A server without files, on a free port."""

    def __init__(self) -> None:
        import redis

        self._folder = tempfile.mkdtemp(prefix="dk-")
        port = free_port()
        self.url = f"redis://127.0.0.1:{port}/0"
        self._process = subprocess.Popen(
            ["redis-server", "--port", str(port), "--save", "", "--dir", self._folder],
            stdout=subprocess.DEVNULL,
        )
        self.client = redis.Redis.from_url(self.url, decode_responses=True)
        eventually(self._answers, 20, "redis-server answers")

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
        self._process.kill()
        self._process.wait()
        shutil.rmtree(Path(self._folder), ignore_errors=True)
