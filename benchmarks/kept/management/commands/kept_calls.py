"""A Thrift service under fresh_connections."""

from typing import Any

from django.core.management.base import BaseCommand

from benchmarks.calls import serve, with_care
from daemonkit import fresh_connections


class Command(BaseCommand):
    def handle(self, **options: Any) -> None:
        serve(with_care(fresh_connections)())
