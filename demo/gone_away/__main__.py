"""``make gone-away``: the measurements of docs/gone-away.md, on a private MariaDB.

Prints the tables, in English or Chinese. With --write it puts them into both pages.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from typing import Any, TypeAlias

from demo.gone_away.page import PAGES, TABLES, with_tables
from demo.gone_away.remedies import BARE_DECORATORS, REMEDIES
from lab.processes import ROOT, child_environment
from lab.servers import MariaDB
from lab.servers.base import is_installed

Child: TypeAlias = "subprocess.Popen[str]"

TIME_LIMIT = 300


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m demo.gone_away", description=__doc__)
    parser.add_argument("--language", choices=PAGES, default="en")
    parser.add_argument("--write", action="store_true", help="put the tables into both pages")
    options = parser.parse_args()
    if missing := why_missing():
        print(f"The measurements need a MariaDB of their own. {missing}", file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server ends with us
    server = MariaDB()
    try:
        server.start()
        results = measure(server)
    finally:
        server.remove()
    for table in TABLES.values():
        print(f"{table(results, options.language)}\n")
    if options.write:
        for language, page in PAGES.items():
            page.write_text(with_tables(page.read_text(), results, language))
    return 0


def why_missing() -> str | None:
    if reason := MariaDB.why_missing():
        return reason
    return None if is_installed("MySQLdb") else "Django's driver, mysqlclient, is not installed."


def measure(server: MariaDB) -> dict[str, Any]:
    """Measure each fault with each remedy, and all combinations of settings."""
    with ExitStack() as stack:
        faults = {name: start(stack, server, "faults", name) for name in REMEDIES}
        bare = start(stack, server, "settings", *BARE_DECORATORS)
        kept = start(stack, server, "settings", "daemonkit")
        return {
            "settings": answer(bare) | answer(kept),
            "faults": {name: answer(child) for name, child in faults.items()},
        }


def start(stack: ExitStack, server: MariaDB, *arguments: str) -> Child:
    child = subprocess.Popen(
        [sys.executable, "-m", "demo.gone_away.child", *arguments],
        cwd=ROOT,
        env={**child_environment(), "GONE_AWAY": json.dumps(server.settings(socket=False))},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for us, who then end it
    )
    stack.callback(child.communicate)
    stack.callback(child.kill)
    return child


def answer(child: Child) -> Any:
    stdout, stderr = child.communicate(timeout=TIME_LIMIT)
    if child.returncode:
        raise RuntimeError(f"{child.args} ended with {child.returncode}:\n{stderr}")
    return json.loads(stdout)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
