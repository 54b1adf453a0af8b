from __future__ import annotations

from django.db.backends.mysql import base

from lab.pooling_engines.pooling import PoolingMixin


class DatabaseWrapper(PoolingMixin, base.DatabaseWrapper):
    pass
