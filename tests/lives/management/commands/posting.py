"""Works off the letters: notes each in the database, and outside in a synced file of its own."""

import os
import time

from django.db.models import Value

from daemonkit import Backoff, ModelPoller, Poll, signals
from daemonkit.testing import gate
from tests.queues.models import Effect, Letter

IDLE = float(os.environ.get("IDLE", "0.05"))
FIRST_PAUSE = float(os.environ.get("FIRST_PAUSE", "0.05"))


def say_so(**_):
    print("waits", flush=True)


class Command(ModelPoller):
    schedule = Poll(idle=IDLE, cap=4 * IDLE)
    backoff = Backoff(first=FIRST_PAUSE, cap=4 * FIRST_PAUSE)
    wake_on = os.environ.get("WAKE_ON", "")
    queryset = Letter.objects.filter(sent=None).order_by("pk")
    done = {"sent": Value(1)}
    batch_size = int(os.environ.get("BATCH", "10"))
    claim = os.environ.get("CLAIM", "transaction")
    claim_seconds = float(os.environ.get("CLAIM_SECONDS", "1"))
    threads = int(os.environ.get("THREADS", "1"))
    max_attempts = 3

    def process(self, letter):
        Effect.objects.create(letter=str(letter.pk))
        self.note(letter.pk)
        time.sleep(float(os.environ.get("WORK", "0.002")))
        if letter.kind == "poison":
            raise RuntimeError("no such address")
        if letter.kind == "gate":
            gate(f"letter {letter.pk}")

    def note(self, key):
        path = f"{os.environ['OUTSIDE']}/{os.getpid()}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{key}\n".encode())
        os.fdatasync(descriptor)
        os.close(descriptor)


if "WAKE_ON" in os.environ:
    signals.daemon_waiting.connect(say_so)
