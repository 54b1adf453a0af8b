"""A Thrift service under fresh_connections."""

from typing import Any

from django.core.management.base import BaseCommand

from daemonkit import fresh_connections
from lab.sites.calls import serve, with_care


class Command(BaseCommand):
    def handle(self, **options: Any) -> None:
        serve(with_care(fresh_connections)())
