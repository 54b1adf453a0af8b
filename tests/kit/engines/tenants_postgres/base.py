"""Django's engine for PostgreSQL, with tenants."""

from django.db.backends.postgresql import base

from tests.kit.engines.tenants import TenantMixin


class DatabaseWrapper(TenantMixin, base.DatabaseWrapper):
    tenant_sql = "SET application_name = 'acme'"
