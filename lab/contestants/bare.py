"""What people write without daemonkit."""

from lab.contestants.base import Contestant


class Bare(Contestant):
    """A loop without any care, on a connection that is kept."""

    name = "bare"


class ByHand(Contestant):
    """The same with ``close_old_connections()`` before and after each unit of work."""

    name = "by hand"


class Heap(Contestant):
    """A loop over a heap of jobs, without threads."""

    name = "a bare heap loop, no threads"
