"""Two jobs, one of which is due often and one that is hardly ever due."""

from daemonkit import BaseDaemonCommand, Every, job
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    pulse = 0.5

    @job(Every(seconds=0.3))
    def often(self):
        say("often")

    @job(Every(hours=5), exclusive=True)
    def seldom(self):
        say("seldom")
