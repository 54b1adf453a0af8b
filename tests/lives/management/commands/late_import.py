"""Takes a while to import, as projects do."""

import time

from daemonkit import BaseDaemonCommand, Every

print("importing", flush=True)
time.sleep(1)
print("imported", flush=True)


class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def tick(self):
        print("ticked", flush=True)
