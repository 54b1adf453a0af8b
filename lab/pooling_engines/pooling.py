"""An engine that pools connections by itself, as django-db-connection-pool does.

It lends a proxy of the driver's connection, which has an attribute ``_pool``, from a pool with few
seats. Only the wrapper's own ``close()`` gives the seat back.
"""

from __future__ import annotations

import threading
from typing import Any

SEATS = 2


class NoSeat(Exception):
    """All connections are lent. A real pool would wait for one, perhaps for ever."""


class SeatPool:
    def __init__(self) -> None:
        self.seats = threading.BoundedSemaphore(SEATS)
        self.idle: list[Any] = []

    def lend(self, connect: Any) -> Proxy:
        if not self.seats.acquire(blocking=False):
            raise NoSeat
        try:
            return Proxy(self.idle.pop() if self.idle else connect(), self)
        except BaseException:
            self.seats.release()
            raise

    def take_back(self, raw: Any, *, keeps: bool) -> None:
        self.seats.release()
        if keeps:
            self.idle.append(raw)
        else:
            raw.close()


class Proxy:
    """What the pool lends. It stands for the driver's connection in everything but close()."""

    def __init__(self, raw: Any, pool: SeatPool) -> None:
        self.__dict__.update(driver_connection=raw, _pool=pool)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.driver_connection, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.driver_connection, name, value)


class PoolingMixin:
    """Lends and takes back. An engine mixes it into one of Django's wrappers."""

    pools: dict[str, SeatPool] = {}
    connection: Any
    alias: str
    errors_occurred: bool

    def get_new_connection(self, params: dict[str, Any]) -> Any:
        connect = super().get_new_connection  # type: ignore[misc]
        return self.seat_pool.lend(lambda: connect(params))

    def _close(self) -> None:
        if self.connection is not None:
            usable = not self.errors_occurred and self.is_usable()  # type: ignore[attr-defined]
            self.seat_pool.take_back(self.connection.driver_connection, keeps=usable)

    @property
    def seat_pool(self) -> SeatPool:
        return self.pools.setdefault(self.alias, SeatPool())
