"""Questions to Django's database wrappers, and how to reset one."""

from __future__ import annotations

import contextlib
from typing import Any, TypeAlias

Wrapper: TypeAlias = Any
"""A ``BaseDatabaseWrapper``. Django's type stubs declare only half of its attributes."""


def is_in_memory(wrapper: Wrapper) -> bool:
    """Whether closing its connection would destroy its database."""
    return wrapper.vendor == "sqlite" and bool(wrapper.is_in_memory_db())


def is_in_transaction(wrapper: Wrapper) -> bool:
    """Whether Django has begun a transaction, by ``atomic()`` or ``set_autocommit(False)``."""
    return wrapper.in_atomic_block or (
        wrapper.connection is not None and wrapper.autocommit != wrapper.settings_dict["AUTOCOMMIT"]
    )


def roll_back_in_memory(wrapper: Wrapper) -> None:
    """Roll back a database in memory, whose connection must stay open. Never raises."""
    reset(wrapper)
    with contextlib.suppress(Exception):
        wrapper.connection.rollback()
        wrapper.set_autocommit(wrapper.settings_dict["AUTOCOMMIT"])


def reset(wrapper: Wrapper) -> None:
    """Reset a wrapper's state, also what ``connect()`` does not reset: after an ``atomic()`` block
    that was never left, it would refuse to connect and run the old ``on_commit`` functions."""
    wrapper.in_atomic_block = False
    wrapper.savepoint_ids = []
    wrapper.atomic_blocks = []
    wrapper.needs_rollback = False
    wrapper.rollback_exc = None
    wrapper.closed_in_transaction = False
    wrapper.errors_occurred = False
    wrapper.run_on_commit = []
    wrapper.run_commit_hooks_on_set_autocommit_on = False
    wrapper.autocommit = wrapper.settings_dict["AUTOCOMMIT"]
