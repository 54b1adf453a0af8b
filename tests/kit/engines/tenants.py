"""What engines of third parties do: state of their own, and seats of a pool of their own."""

from __future__ import annotations

import threading
from typing import Any

SEATS = 2
TIMEOUT = 5.0


class TenantMixin:
    """Tells each new session once whose tenant it is, as django-tenants does, and lends sessions
    from a pool of two seats. Both are put right in ``close()`` only."""

    seats = threading.BoundedSemaphore(SEATS)
    tenant_sql: str

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.tenant_is_set = self.has_seat = False

    def get_new_connection(self, parameters: Any) -> Any:
        if not self.seats.acquire(timeout=TIMEOUT):
            raise TimeoutError("the engine's pool has no seat left")
        self.has_seat = True
        return super().get_new_connection(parameters)  # type: ignore[misc]

    def _cursor(self, name: str | None = None) -> Any:
        cursor = super()._cursor(name)  # type: ignore[misc]
        if not self.tenant_is_set:
            self.tenant_is_set = True
            cursor.execute(self.tenant_sql)
        return cursor

    def close(self) -> None:
        self.tenant_is_set = False
        if self.has_seat:
            self.has_seat = False
            self.seats.release()
        super().close()  # type: ignore[misc]
