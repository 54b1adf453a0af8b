"""A poller, for several workers."""

from daemonkit import Poll
from soaks.lives.work import Ticking


class Command(Ticking):
    schedule = Poll(idle=0.02)
