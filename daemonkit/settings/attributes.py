"""Checks what a daemon's class defines: its settings and its methods.

An error is one sentence that says how to correct it, with exit code 2.
"""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from django.apps import apps
from django.core.management.base import CommandError

from daemonkit.settings.parsing import usage

if TYPE_CHECKING:
    from daemonkit.daemon import Daemon

    class _Written(Daemon, Protocol):
        """A daemon with the methods that its author writes."""

        @property
        def has_tick(self) -> bool: ...
        def tick(self) -> Any: ...
        def serve(self) -> Any: ...


_NUMBERS = (
    *("pulse", "stop_timeout", "tick_timeout", "max_failures", "max_ticks", "max_seconds"),
    *("threads", "lease", "renew_deadline", "renew_every", "max_memory", "workers"),
    *("expect_success_within", "jitter"),
)
_BOOLEANS = ("ledger", "leader", "per_worker", "wait_for_migrations", "serial", "catch_up")
_TEXTS = ("wake_on",)
_VALUES = ("schedule", "backoff")

_SIMILARITY = 0.87
"""The ratio of ``difflib`` from which a name counts as a misspelt setting: "tick_timout" has 0.96,
"stop_time" has 0.86."""


def tick_of(daemon: _Written) -> Callable[[], Any]:
    """The daemon's ``tick()``, which may return a coroutine.

    Raises ``CommandError`` (exit code 2) if the class is not a complete and valid daemon.
    """
    if sys.platform not in ("linux", "darwin"):
        raise CommandError(f"daemonkit runs on Linux, and on macOS, but not on {sys.platform}")
    tick, name = daemon.tick, daemon.name
    _refuse_misspelt_settings(daemon)
    daemon.check_class()
    if inspect.isgeneratorfunction(daemon.lifespan):
        raise usage(f"{name}.lifespan() is a generator: put @contextmanager above it")
    if inspect.isasyncgenfunction(daemon.lifespan):
        raise usage(f"{name}.lifespan() is a generator: put @asynccontextmanager above it")
    if inspect.iscoroutinefunction(daemon.lifespan):
        raise usage(f"{name}.lifespan() is a coroutine: put @asynccontextmanager above it, "
                    f"and yield where the daemon runs")  # fmt: skip
    _refuse_other_arguments(daemon.on_error, f"{name}.on_error()", "the iteration", None)
    if daemon.has_serve:
        from daemonkit.settings.server import check_serve  # not for a plain loop

        check_serve(daemon, daemon.serve, daemon.has_tick, has_jobs(type(daemon)))
        _refuse_other_arguments(daemon.serve, f"{name}.serve()", "no arguments")
        return daemon.serve
    if has_jobs(type(daemon)):
        if daemon.has_tick:
            raise usage(f"{name} has jobs and a tick(): write one or the other")
        if daemon.wake_on:
            raise usage(f"{name} has jobs, which wake_on does not wake: write a tick() with Poll()")
        if not apps.is_installed("daemonkit"):
            raise usage(f"{name} has jobs: put 'daemonkit' into INSTALLED_APPS")
        return tick
    if not daemon.has_tick:
        raise usage(f"{name} has no tick(); write one: it is the daemon's unit of work")
    if inspect.isgeneratorfunction(tick) or inspect.isasyncgenfunction(tick):
        raise usage(f"{name}.tick() is a generator, which returns before it works: no yield")
    _refuse_other_arguments(tick, f"{name}.tick()", "no arguments")
    return tick


def has_jobs(daemon: type[Any]) -> bool:
    """Whether a class has ``add_jobs()`` or methods under ``@job``. If it has those, its module has
    imported ``job``, so the check imports nothing for a plain loop."""
    if hasattr(daemon, "add_jobs") or "daemonkit.jobs.job" not in sys.modules:
        return hasattr(daemon, "add_jobs")
    from daemonkit.jobs.schedule import jobs_of

    return bool(jobs_of(daemon))


def _members(daemon: type[Any]) -> Iterator[tuple[str, Any]]:
    return (pair for each in daemon.__mro__ for pair in list(vars(each).items()))


def _refuse_other_arguments(method: Any, whose: str, what: str, *arguments: Any) -> None:
    """Raise ``CommandError`` if a method cannot be called with these arguments."""
    try:
        inspect.signature(method).bind(*arguments)
    except (TypeError, ValueError) as error:
        if isinstance(error, TypeError) or inspect.ismethod(method):  # except methods written in C
            raise usage(f"{whose} is called with {what} besides self: {error}") from None


def _refuse_misspelt_settings(daemon: Daemon) -> None:
    """Raise ``CommandError`` for a class attribute whose name is almost that of a setting."""
    for name, value in _members(type(daemon)):
        settings = _settings_like(value)
        if not settings or name.startswith("_") or name in _ALL:
            continue
        if near := difflib.get_close_matches(name, settings, 1, _SIMILARITY):
            raise usage(
                f"{daemon.name} says {name} = {value!r}, which is no setting: write {near[0]}, or "
                f"give an attribute of your own another name"
            )


_ALL = {*_NUMBERS, *_BOOLEANS, *_TEXTS, *_VALUES}


def _settings_like(value: Any) -> tuple[str, ...]:
    """The names of the settings that could have such a value."""
    if isinstance(value, bool):
        return _BOOLEANS
    if isinstance(value, int | float | str):
        return (*_NUMBERS, *_TEXTS)
    return _VALUES if hasattr(value, "due") or hasattr(value, "pause") else ()
