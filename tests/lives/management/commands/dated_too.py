"""Another one that has one thing to do."""

from tests.lives.management.commands import dated


class Command(dated.Command):
    pass
