"""Another daemon with a single due time."""

from tests.lives.management.commands import dated


class Command(dated.Command):
    pass
