"""Who is measured: daemonkit, and what people use instead, a class each."""

from lab.contestants.apscheduler import APScheduler, DjangoAPScheduler
from lab.contestants.bare import Bare, ByHand, Heap
from lab.contestants.base import Contestant, contest
from lab.contestants.daemonkit import Daemonkit
from lab.contestants.process import ContestantProcess
from lab.contestants.queues import Celery, DjangoQ, QueueWorkers

__all__ = [
    "APScheduler",
    "Bare",
    "ByHand",
    "Celery",
    "Contestant",
    "ContestantProcess",
    "Daemonkit",
    "DjangoAPScheduler",
    "DjangoQ",
    "Heap",
    "QueueWorkers",
    "contest",
]
