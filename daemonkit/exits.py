"""How a daemon's process may end: the exit codes, in one table."""

from enum import IntEnum, StrEnum


class Exit(IntEnum):
    """The exit codes of a daemon; those of ``sysexits.h`` have their names here."""

    OK = 0
    """Told to stop, or a ``--max-ticks`` or ``--max-seconds`` of the command line reached."""

    TICK_FAILED = 1
    """The one tick of ``--once`` failed; also Django's own code for any other error, and that of a
    process in which C code did not give Python's lock back for ``tick_timeout``."""

    USAGE = 2
    """Wrong usage: an unknown daemon, a bad option, a class that is no daemon yet."""

    FORCED = 70
    """A second signal, ``stop_timeout`` or ``tick_timeout`` cut a tick that would not end
    (``EX_SOFTWARE``)."""

    MAX_FAILURES = 75
    """``max_failures`` ticks failed in a row (``EX_TEMPFAIL``)."""

    LIMIT = 76
    """``max_memory`` was reached, or a ``max_ticks`` or ``max_seconds`` of the class: the process
    is to be started again."""

    MISCONFIGURED = 78
    """The settings are wrong, as the database server or a missing driver proves, or a table of
    daemonkit's is missing (``EX_CONFIG``). Starting again will not help."""


class Ending(StrEnum):
    """What has ended a life, as the moment ``daemon_stopped`` carries it."""

    TOLD = "told"
    """A signal or a supervisor told it to stop, or to begin anew."""

    FORCED = "forced"
    LIMIT = "limit"
    """``--once``, or a limit of ticks, seconds or memory, was reached."""

    NOTHING_DUE = "nothing due"
    """Its schedule has no further due time."""

    FAILED = "failed"
