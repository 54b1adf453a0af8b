"""What a project may use of the fork guard: ``guard()`` for a driver's own connection."""

from daemonkit.connections.fork_guard import guard

__all__ = ["guard"]
