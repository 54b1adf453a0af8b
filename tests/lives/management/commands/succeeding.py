"""A job of a leader that is due each second and catches up on what nobody has run."""

from apscheduler.triggers.cron import CronTrigger

from daemonkit import BaseDaemonCommand, job
from tests.lives.sql import note, say


class Command(BaseDaemonCommand):
    leader = True
    lease = 2.0

    @job(CronTrigger(second="*", timezone="UTC"), catch_up=True)
    def turn(self):
        note(f"{self.due.timestamp():.0f}")
        say(f"ran {self.due.timestamp():.0f}")
