"""A daemon with a single due time."""

from apscheduler.triggers.date import DateTrigger

from daemonkit import BaseDaemonCommand
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    schedule = DateTrigger()

    def tick(self):
        say("done once")
