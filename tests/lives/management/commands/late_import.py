"""Its import lasts as long as a test keeps a gate closed."""

from daemonkit import BaseDaemonCommand, Every
from daemonkit.testing import gate

print("importing", flush=True)
gate("in the import")
print("imported", flush=True)


class Command(BaseDaemonCommand):
    schedule = Every(seconds=1)

    def tick(self):
        print("ticked", flush=True)
