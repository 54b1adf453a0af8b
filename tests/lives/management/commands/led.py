"""Has jobs, of which a leader runs one rarely and one all the time."""

from daemonkit import BaseDaemonCommand, Every, Poll, job
from tests.lives.sql import say


class Command(BaseDaemonCommand):
    @job(Every(hours=1))
    def hourly(self):
        say("hourly ran")

    @job(Poll(idle=1))
    def poller(self):
        say("polled")
