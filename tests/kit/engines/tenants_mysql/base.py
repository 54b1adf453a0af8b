"""Django's engine for MySQL, with tenants."""

from django.db.backends.mysql import base

from tests.kit.engines.tenants import TenantMixin


class DatabaseWrapper(TenantMixin, base.DatabaseWrapper):
    tenant_sql = "SET @tenant = 'acme'"
