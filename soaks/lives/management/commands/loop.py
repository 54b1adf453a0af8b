"""A loop."""

from daemonkit import Every
from soaks.lives.work import Ticking


class Command(Ticking):
    schedule = Every(seconds=0.03)
