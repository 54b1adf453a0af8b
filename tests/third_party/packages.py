"""The packages that daemonkit is run beside: one ``Package`` is one row of the table.

The functions run in the process of ``worker.py``, where the package can be imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MYSQL = "django.db.backends.mysql"
POSTGRESQL = "django.db.backends.postgresql"
POOL_SIZE = 2


def do_nothing() -> None: ...


@dataclass(frozen=True)
class Package:
    """A package, how a project sets it up, and what can be asked of it."""

    name: str
    distributions: tuple[str, ...]
    """Those whose versions belong into the table."""
    server: str
    """``mariadb``, ``postgres`` or ``pgbouncer``."""
    engine: str
    max_age: int = 60
    options: dict[str, Any] = field(default_factory=dict)
    entry: dict[str, Any] = field(default_factory=dict)
    """What else stands in the alias's entry in DATABASES."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else stands in the project's settings."""
    apps: tuple[str, ...] = ()
    folder: str = "current"
    """The lock file in requirements/third_party/ that it is installed from."""
    prepare: Callable[[], None] = do_nothing
    """Called before anything of Django is imported."""
    instrument: Callable[[], None] = do_nothing
    """Called when the settings are known, before ``django.setup()``."""
    enter: Callable[[], None] = do_nothing
    """Called after ``django.setup()``: what a worker of this project does first."""
    count_statements: Callable[[], int] | None = None
    """How many statements a tracer has seen in this process."""
    count_lent: Callable[[], int] | None = None
    """How many connections a pool counts as in use."""
    idle_sessions: int = 0
    """How many sessions a pool may keep on the server when nothing is in use."""
    tables: tuple[str, ...] = ("entry",)
    """The table that rows belong into, and those that must stay empty."""


# Drivers


def hide_psycopg() -> None:
    """Django takes psycopg2 only where psycopg cannot be imported."""
    sys.modules["psycopg"] = None  # type: ignore[assignment]


def install_pymysql() -> None:
    import pymysql

    pymysql.version_info = (2, 2, 7, "final", 0)  # Django compares it with mysqlclient's
    pymysql.__version__ = "2.2.7"
    pymysql.install_as_MySQLdb()


# Pools


def psycopg_pool_lent() -> int:
    from django.db import connection

    pool = connection.pool
    return int(pool.get_stats()["pool_size"] - pool.get_stats()["pool_available"])


def sqlalchemy_pool_lent() -> int:
    from dj_db_conn_pool.core import pool_container

    return sum(pool.checkedout() for pool in pool_container.values())


def patch_by_gevent() -> None:
    from gevent import monkey

    monkey.patch_all()


def gevent_pool_lent() -> int:
    from django.db import connection

    pool = connection.pool
    return int(pool.size - pool.pool.qsize())


# Tenants


def enter_tenant() -> None:
    from django.db import connection

    connection.set_schema("acme")


# Tracers


def prometheus_statements() -> int:
    from django_prometheus.db.metrics import execute_total

    samples = [sample for metric in execute_total.collect() for sample in metric.samples]
    return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))


def instrument_by_opentelemetry() -> None:
    from opentelemetry import trace
    from opentelemetry.instrumentation.django import DjangoInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    global _spans
    _spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_spans))
    trace.set_tracer_provider(provider)
    DjangoInstrumentor().instrument(is_sql_commentor_enabled=True)


_spans: Any = None


def instrument_mysqlclient() -> None:
    from opentelemetry.instrumentation.mysqlclient import MySQLClientInstrumentor

    instrument_by_opentelemetry()
    MySQLClientInstrumentor().instrument(enable_commenter=True)


def instrument_psycopg() -> None:
    from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor

    instrument_by_opentelemetry()
    PsycopgInstrumentor().instrument(enable_commenter=True)


def opentelemetry_statements() -> int:
    return sum("entry" in str(span.attributes) for span in _spans.get_finished_spans())


def instrument_by_sentry() -> None:
    import sentry_sdk
    from sentry_sdk.integrations.django import DjangoIntegration

    sentry_sdk.init(
        dsn="http://key@127.0.0.1:9/1",
        traces_sample_rate=1.0,
        integrations=[DjangoIntegration()],
        before_breadcrumb=note_breadcrumb,
        transport=forget_event,
    )


_breadcrumbs: list[str] = []


def note_breadcrumb(breadcrumb: dict[str, Any], _: Any) -> dict[str, Any]:
    if breadcrumb.get("category") == "query":
        _breadcrumbs.append(str(breadcrumb["message"]))
    return breadcrumb


def forget_event(_: Any) -> None:
    """A transport that sends nothing."""


def sentry_statements() -> int:
    return sum("entry" in message for message in _breadcrumbs)


PACKAGES = [
    Package("Django's engine, mysqlclient", ("mysqlclient",), "mariadb", MYSQL),
    Package("Django's engine, psycopg", ("psycopg",), "postgres", POSTGRESQL),
    Package(
        "Django's pool",
        ("psycopg-pool",),
        "postgres",
        POSTGRESQL,
        max_age=0,
        options={"pool": {"min_size": 1, "max_size": POOL_SIZE, "timeout": 5}},
        count_lent=psycopg_pool_lent,
        idle_sessions=POOL_SIZE,
    ),
    Package("psycopg2", ("psycopg2-binary",), "postgres", POSTGRESQL, prepare=hide_psycopg),
    Package("PyMySQL", ("PyMySQL",), "mariadb", MYSQL, prepare=install_pymysql),
    Package(
        "PyMySQL 1.1",
        ("PyMySQL",),
        "mariadb",
        MYSQL,
        folder="pymysql11",
        prepare=install_pymysql,
    ),
    Package(
        "django-tenants",
        ("django-tenants",),
        "postgres",
        "django_tenants.postgresql_backend",
        settings={
            "TENANT_MODEL": "tenants.Client",
            "TENANT_DOMAIN_MODEL": "tenants.Domain",
            "SHARED_APPS": ["django_tenants", "django.contrib.contenttypes"],
            "TENANT_APPS": ["tests.third_party.tenants"],
            "DATABASE_ROUTERS": ["django_tenants.routers.TenantSyncRouter"],
            "TENANT_LIMIT_SET_CALLS": True,
        },
        apps=("django_tenants", "django.contrib.contenttypes", "tests.third_party.tenants"),
        enter=enter_tenant,
        tables=("acme.entry", "public.entry"),
    ),
    Package(
        "django-db-connection-pool, mysqlclient",
        ("django-db-connection-pool", "SQLAlchemy"),
        "mariadb",
        "dj_db_conn_pool.backends.mysql",
        max_age=0,
        entry={"POOL_OPTIONS": {"POOL_SIZE": POOL_SIZE, "MAX_OVERFLOW": 0, "TIMEOUT": 3}},
        count_lent=sqlalchemy_pool_lent,
        idle_sessions=POOL_SIZE,
    ),
    Package(
        "django-db-connection-pool, psycopg",
        ("django-db-connection-pool", "SQLAlchemy"),
        "postgres",
        "dj_db_conn_pool.backends.postgresql",
        max_age=0,
        entry={"POOL_OPTIONS": {"POOL_SIZE": POOL_SIZE, "MAX_OVERFLOW": 0, "TIMEOUT": 3}},
        count_lent=sqlalchemy_pool_lent,
        idle_sessions=POOL_SIZE,
    ),
    Package(
        "django-db-geventpool",
        ("django-db-geventpool", "gevent"),
        "postgres",
        "django_db_geventpool.backends.postgresql_psycopg3",
        max_age=0,
        options={"MAX_CONNS": POOL_SIZE},
        prepare=patch_by_gevent,
        count_lent=gevent_pool_lent,
        idle_sessions=POOL_SIZE,
    ),
    Package(
        "django-prometheus, mysqlclient",
        ("django-prometheus",),
        "mariadb",
        "django_prometheus.db.backends.mysql",
        apps=("django_prometheus",),
        count_statements=prometheus_statements,
    ),
    Package(
        "django-prometheus, psycopg",
        ("django-prometheus",),
        "postgres",
        "django_prometheus.db.backends.postgresql",
        apps=("django_prometheus",),
        count_statements=prometheus_statements,
    ),
    Package(
        "OpenTelemetry, mysqlclient",
        ("opentelemetry-instrumentation-mysqlclient",),
        "mariadb",
        MYSQL,
        instrument=instrument_mysqlclient,
        count_statements=opentelemetry_statements,
    ),
    Package(
        "OpenTelemetry, psycopg",
        ("opentelemetry-instrumentation-psycopg",),
        "postgres",
        POSTGRESQL,
        instrument=instrument_psycopg,
        count_statements=opentelemetry_statements,
    ),
    Package(
        "sentry-sdk, mysqlclient",
        ("sentry-sdk",),
        "mariadb",
        MYSQL,
        instrument=instrument_by_sentry,
        count_statements=sentry_statements,
    ),
    Package(
        "sentry-sdk, psycopg",
        ("sentry-sdk",),
        "postgres",
        POSTGRESQL,
        instrument=instrument_by_sentry,
        count_statements=sentry_statements,
    ),
    Package(
        "pgbouncer, transaction mode",
        ("psycopg",),
        "pgbouncer",
        POSTGRESQL,
        entry={"DISABLE_SERVER_SIDE_CURSORS": True},
        idle_sessions=POOL_SIZE,
    ),
]
