"""The exit codes of a daemon's process, in one table."""

from enum import IntEnum, StrEnum


class Exit(IntEnum):
    """The exit codes of a daemon. In parentheses: their names in ``sysexits.h``."""

    OK = 0
    """A stop was requested, the work is done, or ``--max-ticks`` or ``--max-seconds`` of the
    command line was reached."""

    TICK_FAILED = 1
    """The one tick of ``--once`` failed. Also Django's own code for any other error, and the code
    of a process in which C code did not release Python's lock (GIL) for ``tick_timeout``."""

    USAGE = 2
    """Wrong usage: an unknown daemon, a bad option, an incomplete daemon class."""

    FORCED = 70
    """A tick did not end, and was cut by a second signal, ``stop_timeout`` or ``tick_timeout``
    (``EX_SOFTWARE``); or ``serve()`` returned although nobody had asked it to stop."""

    MAX_FAILURES = 75
    """``max_failures`` ticks failed in a row (``EX_TEMPFAIL``)."""

    LIMIT = 76
    """``max_memory`` was reached, or a ``max_ticks`` or ``max_seconds`` of the class: the process
    must be started again."""

    MISCONFIGURED = 78
    """The database server or a missing driver proves that the settings are wrong, or a table of
    daemonkit is missing (``EX_CONFIG``). A restart does not help."""


class Ending(StrEnum):
    """Why a daemon has stopped, as the signal ``daemon_stopped`` reports it."""

    TOLD = "told"
    """A signal or the supervisor requested a stop or a reload."""

    FORCED = "forced"
    LIMIT = "limit"
    """``--once``, or a limit of ticks, seconds or memory, was reached."""

    NOTHING_DUE = "nothing due"
    """The schedule has no further due time."""

    EMPTY = "empty"
    """``--until-empty``: a tick has found nothing."""

    FINISHED = "finished"
    """The daemon called ``self.finish()``."""

    FAILED = "failed"
