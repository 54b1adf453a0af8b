"""The life of a daemon that has ``serve()``: from its start to its clean stop."""

from __future__ import annotations

import contextlib
import errno
import inspect
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError

from daemonkit import signals
from daemonkit.connections.holding import release_connections
from daemonkit.errors import one_line
from daemonkit.exits import Exit
from daemonkit.iteration import ends_process
from daemonkit.listeners.log import logger
from daemonkit.process import kept_sockets
from daemonkit.servers.broker import socket_from_supervisor
from daemonkit.servers.listener import Listener
from daemonkit.servers.probe import own_ports, takes_connections
from daemonkit.signals import announce

if TYPE_CHECKING:
    from daemonkit.iteration import Iteration
    from daemonkit.life import Life

PROBE_TIME = 5.0
"""Seconds that a server has to take a connection of its own daemon, but at most a pulse."""

DRAIN_INTERVAL = 0.05
"""Seconds between two looks at the connections that are still open while a server stops."""


class Serving:
    """One run of ``serve()``."""

    def __init__(self, life: Life, serve: Callable[[], Any]) -> None:
        self._life, self._serve = life, serve
        self._is_async = inspect.iscoroutinefunction(serve)
        self._callbacks: list[Callable[[], Any]] = []
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()
        self._stops = threading.Event()
        self._is_over = self._has_returned = False
        self._was_silent = False
        self._tasks: set[Any] = set()

    def live(self) -> Iteration | None:
        """Run the whole life. There is no iteration in it."""
        life = self._life
        with life.watched(), life.announced(), life.steered(), life.opened():
            try:
                if not life.stop.asked:
                    self._run()
            finally:
                self._close()
        return life.last

    def _run(self) -> None:
        release_connections()  # the thread that serves holds none while it waits
        with self._attended():
            try:
                self._life.coroutines.awaited(self._serve())
            except Exception as error:
                if not self._is_expected(error):
                    self._note_failure(error)
                return
            if self._stops.is_set() or self._life.stop.asked:
                self._await_connections()
            else:
                self._life.verdict.give_up(
                    Exit.FORCED, "ends: serve() returned although nobody asked it to stop"
                )

    def _is_expected(self, error: BaseException) -> bool:
        """Whether an error is only how ``serve()`` was ended: it was forced to."""
        return self._life.stop.forced is not None and isinstance(error, TimeoutError)

    def _note_failure(self, error: Exception) -> None:
        """End the life with a sentence. A new process then starts to serve again."""
        life, name = self._life, self._life.daemon.name
        if isinstance(error, ImproperlyConfigured):
            sentence = " ".join(str(error).split())
            raise CommandError(sentence, returncode=Exit.MISCONFIGURED) from error
        if isinstance(error, CommandError) or life.settings.raise_errors or ends_process(error):
            raise error
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            if life.settings.supervised:  # which of the workers opened it first is a race
                sentence = (
                    "cannot listen: its port is in use. If each worker opens it by itself, take "
                    "the socket from self.listen(), or set SO_REUSEPORT"
                )
                life.verdict.give_up(Exit.MISCONFIGURED, sentence)
            else:
                life.verdict.give_up(Exit.TICK_FAILED, f"cannot listen: {one_line(error)}")
            return
        logger.error("%s: serve() failed", name, exc_info=error)
        life.verdict.give_up(Exit.TICK_FAILED, f"ends: serve() failed with {one_line(error)}")

    # What the author of a server calls

    def on_stop(self, callback: Callable[[], Any]) -> None:
        """Call this when the server is to stop; at once if it already is."""
        if not callable(callback):
            raise TypeError(
                f"on_stop() takes a function, such as server.shutdown; not {callback!r}"
            )
        with self._lock:
            is_late = self._stops.is_set()
            if not is_late:
                self._callbacks.append(callback)
        if is_late:
            self._call(callback)

    def listen(self, address: str) -> Listener:
        """A listening socket for this address. Raises ``CommandError``."""
        try:
            listener = Listener(address, socket_from_supervisor(address))
        except CommandError as error:
            code, name = error.returncode, self._life.daemon.name
            raise CommandError(f"{name} {error}".replace(" listen()", ": listen()", 1),
                               returncode=code) from None  # fmt: skip
        with self._lock:
            self._listeners.append(listener)
            if self._stops.is_set():
                listener.stop()
        return listener

    # While it serves

    @contextlib.contextmanager
    def _attended(self) -> Iterator[None]:
        """Tell the server to stop when its daemon is, and send its pulse, during the block."""
        stopping = threading.Thread(target=self._await_stop, name="daemonkit-stop", daemon=True)
        pulsing = threading.Thread(target=self._send_pulses, name="daemonkit-pulse", daemon=True)
        if self._is_async:
            self._life.coroutines.event_loop  # noqa: B018  created here, not by a helper thread
        stopping.start()
        pulsing.start()
        try:
            yield
        finally:
            self._is_over = True
            self._stops.set()
            self._life.nudge()
            stopping.join(1.0)

    def _await_stop(self) -> None:
        while not self._is_over and not self._stops.is_set():
            self._life.stop.wait_as_loop(math.inf)
            if self._life.stop.asked:
                break
        if not self._is_over:
            self._begin_to_stop()
        while not self._is_over:
            if not self._is_async:
                self._read_no_more()
            elif self._has_returned:  # until then it ends its connections by itself
                self._read_no_more()
                self._life.coroutines.event_loop.wake()
            time.sleep(DRAIN_INTERVAL)

    def _begin_to_stop(self) -> None:
        with self._lock:
            if self._stops.is_set() and not self._callbacks:
                return
            self._stops.set()
            callbacks, self._callbacks = self._callbacks, []
            listeners = list(self._listeners)
        for listener in listeners:
            listener.stop()
        for callback in callbacks:
            self._call(callback)
        if not self._is_kept:
            self._call(self._refuse_clients)

    @property
    def _is_kept(self) -> bool:
        """Whether the sockets outlive this life: the next image, or other workers, use them."""
        return self._life.stop.reloading or self._life.settings.supervised

    def _refuse_clients(self) -> None:
        own = [address for address in kept_sockets.addresses() if kept_sockets.is_own(address)]
        for listener in self._listeners:
            if listener.address in own:
                listener.refuse()

    def _call(self, callback: Callable[[], Any]) -> None:
        """Call it on the event loop, or else on a thread of its own: it may wait."""
        if self._is_async:
            self._life.coroutines.event_loop.call(lambda: self._call_on_loop(callback))
        else:
            threading.Thread(
                target=self._call_and_log, args=[callback], name="daemonkit-on-stop", daemon=True
            ).start()

    def _call_and_log(self, callback: Callable[[], Any]) -> Any:
        try:
            return callback()
        except Exception:
            logger.exception("%s: a function of on_stop() failed", self._life.daemon.name)

    def _call_on_loop(self, callback: Callable[[], Any]) -> None:
        import asyncio

        result = self._call_and_log(callback)
        if hasattr(type(result), "__await__"):
            task = asyncio.ensure_future(result)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _read_no_more(self) -> None:
        for listener in self._listeners:
            listener.read_no_more()

    def _await_connections(self) -> None:
        """Wait until what was accepted is answered. ``stop_timeout`` limits it."""
        self._has_returned = True
        if self._is_async:
            self._life.coroutines.event_loop.serve_until(self._is_drained)
        while not self._is_drained():
            time.sleep(DRAIN_INTERVAL)

    def _is_drained(self) -> bool:
        if self._life.stop.forced:
            return True
        return not any(listener.open_connections() for listener in self._listeners)

    # Its pulse

    def _send_pulses(self) -> None:
        life = self._life
        is_first = True
        while not self._stops.wait(min(life.pulse, life.verdict.seconds_left(life.clock.moment()))):
            if is_first:
                is_first = False
                kept_sockets.close_unclaimed()
            if not life.goes_on(1, life.clock.moment()) and not life.stop.asked:
                if not life.settings.supervised:
                    life.watched_life.begin_to_end()
                    self._begin_to_stop()
                    life.nudge()
                    return
                # The supervisor replaces its workers one after the other. Until then it serves.
                announce(signals.limit_reached, life.daemon, reason=life.verdict.outcome)
            if self._is_alive():
                life.pulsed()

    def _is_alive(self) -> bool:
        """Whether the server shows signs of life. If it calls ``beat()``, only those count."""
        life = self._life
        if life.stop.touched > -math.inf:
            return False  # each beat is announced by itself
        seconds = min(PROBE_TIME, life.pulse)
        if self._is_async:
            alive = threading.Event()
            life.coroutines.event_loop.call(alive.set)
            is_alive, what = alive.wait(seconds), "its event loop does not run"
        else:
            ports = [(each.family, each.getsockname()) for each in self._open_listeners()]
            ports = ports or own_ports()
            is_alive = bool(ports) and takes_connections(ports, seconds)
            what = "it takes no connection on its own port" if ports else (
                "it listens on no port, and does not call self.beat()"
            )  # fmt: skip
        if not is_alive and not self._was_silent and not self._stops.is_set():
            logger.error("%s gives no sign of life: %s", life.daemon.name, what)
        self._was_silent = not is_alive
        return is_alive

    def _open_listeners(self) -> list[Listener]:
        with self._lock:
            return [each for each in self._listeners if each.fileno() >= 0]

    # Its end

    def _close(self) -> None:
        """Close the sockets, unless the next image goes on with them."""
        for listener in self._listeners:
            listener.close()
        if self._is_kept:
            return
        for address in kept_sockets.addresses():
            was_made_here = kept_sockets.forget(address)
            if was_made_here and address.startswith("unix:"):
                Path(address.removeprefix("unix:")).unlink(missing_ok=True)
