from random import Random
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from shop.customers import visit


class Command(BaseCommand):
    help = "Let simulated customers fill baskets, and pay for some of them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--customers", type=int, default=10)
        parser.add_argument("--seed", type=int)

    def handle(self, *args: Any, **options: Any) -> str:
        return visit(options["customers"], Random(options["seed"]))
