"""The signal that an order has stopped a worker for good, which its supervisor must learn."""

from __future__ import annotations

from django.dispatch import Signal

dismissed = Signal()
"""``reason``: this worker is not to be replaced. Sent from another thread."""
