"""The errors of a connection in a unit of work, observed where Django translates them."""

from __future__ import annotations

import contextlib
import weakref
from typing import Any, Protocol

from django.db import Error, IntegrityError
from django.db.utils import DatabaseErrorWrapper

from daemonkit.connections.wrappers import Wrapper
from daemonkit.errors import Problem, classify, one_line


class ConcernedLink(Protocol):
    """The link that an error may concern."""

    needs_check: bool


class ObservedErrors(DatabaseErrorWrapper):
    """Replaces a wrapper's ``wrap_database_errors``, through which all of its errors pass: those of
    queries, of ``callproc()``, of fetching, of COMMIT and of connecting.

    It remembers them, even if the code that made the query caught them.
    """

    wrapper: Wrapper

    def __init__(self, wrapper: Wrapper, link: ConcernedLink) -> None:
        super().__init__(weakref.proxy(wrapper))
        self._link = weakref.proxy(link)
        self.lost: str | None = None
        self.read_only: str | None = None
        self.interrupted: str | None = None
        """What interrupted a call of the driver. Its answer may still arrive, and would be read as
        the answer to the next statement."""
        self.from_elsewhere = False
        """Whether the error about a lost session came from a cursor of another connection."""
        self._errors: weakref.WeakSet[BaseException] = weakref.WeakSet()
        wrapper.wrap_database_errors = self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if error is None:
            return
        if isinstance(error, (Error, self.wrapper.Database.Error)):
            self._observe(error)
        elif kind is not GeneratorExit:  # which is how a loop over a cursor is left
            self.note_interruption(error)
        try:
            super().__exit__(kind, error, traceback)
        except Error as translated:
            # Remove Django's frame from the traceback: it refers to the error, and this cycle would
            # keep the error and its connection alive until the garbage collector runs.
            raise translated.with_traceback(traceback) from error

    def _observe(self, error: BaseException) -> None:
        with contextlib.suppress(TypeError):  # a driver's class that allows no weak references
            self._errors.add(error)
        if isinstance(error, (IntegrityError, self.wrapper.Database.IntegrityError)):
            return  # a loop may catch thousands of them
        problem = classify(error)
        if problem is Problem.LOST:
            self.lost = one_line(error)
        elif problem is Problem.READ_ONLY:
            self.read_only = one_line(error)
        if self.seen:
            self._link.needs_check = True

    def note_interruption(self, error: BaseException) -> None:
        """Note that a call of the driver raised an exception that is not a database error.

        A signal handler or a time limit raised it, or the driver could not read the answer.
        """
        self.interrupted = one_line(error)
        self._link.needs_check = True

    @property
    def seen(self) -> bool:
        """Whether an error showed that the session is lost, read-only or inside a call."""
        return bool(self.lost or self.read_only or self.interrupted)

    def __contains__(self, error: object) -> bool:
        return error in self._errors

    def forget_session(self) -> None:
        """Forget the errors of a session that was replaced by another one."""
        self.from_elsewhere = False
        self.lost = self.read_only = self.interrupted = None

    def clear(self) -> None:
        """Forget all errors, before the next unit of work."""
        self.forget_session()
        self._errors.clear()
