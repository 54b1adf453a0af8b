"""What is said around the tables: versions, settings, and the same as JSON."""

from __future__ import annotations

import json
import os
import platform
import textwrap
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from benchmarks.servers import Servers
from benchmarks.table import Table
from lab.contestants import Celery, DjangoAPScheduler, DjangoQ

RESULTS = Path(__file__).resolve().parent.parent / ".benchmarks"

_PACKAGES = ("Django", "mysqlclient", "psycopg", "APScheduler", "thriftpy2")


def header(*, quick: bool) -> str:
    lines = [
        f"{machine()}.",
        *textwrap.wrap(f"{', '.join(versions())}.", 96),
        "Rounds are interleaved; a ratio is the median of the ratios within each round, beside it",
        "the middle half of them.",
    ]
    if quick:
        lines.append("A quick run: it shows that everything runs, and its numbers mean nothing.")
    return "\n".join(lines)


def machine() -> str:
    return (
        f"{platform.system()} {platform.release()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}"
    )


def versions() -> list[str]:
    """Of Python, of what daemonkit runs on, and of the contestants' own packages."""
    found = [f"Python {platform.python_version()}"]
    for name in _PACKAGES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    peers = (Celery(), DjangoQ(), DjangoAPScheduler())
    return [*found, *(contestant.versions[0] for contestant in peers)]


def save(part: str, tables: Iterable[Table], servers: Servers, *, quick: bool) -> Path:
    """Write the measurements of a part as JSON; where they are."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{part}{'-quick' if quick else ''}.json"
    found = {
        "part": part,
        "machine": machine(),
        "versions": [*versions(), *servers.versions()],
        "quick": quick,
        "tables": [table.as_json() for table in tables],
    }
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return path
