"""The slow transaction, as a poller: it makes sense in several processes."""

from daemonkit import Poll
from tests.lives.management.commands import slow


class Command(slow.Command):
    schedule = Poll(idle=1)
