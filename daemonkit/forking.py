"""The public part of the fork guard: ``guard()``, for a connection that a driver opened itself."""

from daemonkit.connections.fork_guard import guard

__all__ = ["guard"]
