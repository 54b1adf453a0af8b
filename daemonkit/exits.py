"""How a daemon's process may end: the exit codes, in one table."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of a daemon; those above 64 are named as in ``sysexits.h``."""

    OK = 0
    """Told to stop, or ``max_ticks``, ``max_seconds`` or ``max_memory`` reached."""

    TICK_FAILED = 1
    """The one tick of ``--once`` failed; also Django's own code for any other error."""

    USAGE = 2
    """Wrong usage: an unknown daemon, a bad option, a class that is no daemon yet."""

    FORCED = 70
    """A second signal, ``stop_timeout`` or ``tick_timeout`` cut a tick that would not end
    (``EX_SOFTWARE``)."""

    MAX_FAILURES = 75
    """``max_failures`` ticks failed in a row (``EX_TEMPFAIL``)."""

    MISCONFIGURED = 78
    """The database server, or a missing driver, proves that the settings are wrong
    (``EX_CONFIG``). Starting again will not help."""
