"""The sample site in a machine, with a test's own daemons, under the unit file that we ship."""

from __future__ import annotations

import io
import json
import tarfile
from textwrap import dedent

from lab.machines import Machine
from lab.processes import ROOT
from lab.waiting import eventually

FOLDER = "/srv/shop"
DATABASE = "test_machine"
UNITS = "/etc/systemd/system"


class Site:
    """The project in the machine: the shop, and an app ``depot`` for a test's own daemons."""

    def __init__(self, machine: Machine, folder: str = FOLDER) -> None:
        self.machine = machine
        self.folder = folder

    def lay_out(self) -> None:
        """Copy the sample site into the machine, and add an app and its settings."""
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name in ("manage.py", "make_price_files.py", "config", "shop"):
                tar.add(ROOT / "sample_site" / name, arcname=name, filter=_plain)
        self.machine.feed(archive.getvalue(), "tar", "-x", "--no-same-owner", "-C", self.folder)
        settings = "from config.settings import *\n\nINSTALLED_APPS += ['depot']\n"
        self.machine.write(f"{self.folder}/depot_settings.py", settings)
        for package in ("depot", "depot/management", "depot/management/commands"):
            self.machine.write(f"{self.folder}/{package}/__init__.py", "")

    def command(self, name: str, source: str) -> str:
        """Write a management command, after the imports that every daemon needs. Return the name of
        its unit."""
        imports = "import pathlib, time\nfrom django.db import connection, transaction\n"
        imports += "from daemonkit import BaseDaemonCommand, Cron, Every, Poll\n\n\n"
        imports += "def note(text):\n    with connection.cursor() as cursor:\n"
        imports += "        cursor.execute('INSERT INTO entry (note) VALUES (%s)', [text])\n\n\n"
        imports += "def wait_at_gate(name):\n"
        imports += f"    while not pathlib.Path('{self.folder}', name + '.gate').exists():\n"
        imports += "        time.sleep(0.05)\n\n\n"
        path = f"{self.folder}/depot/management/commands/{name}.py"
        self.machine.write(path, imports + dedent(source).strip() + "\n")
        return f"daemonkit@{name}"

    def open_gate(self, name: str) -> None:
        """Let what waits in ``wait_at_gate(name)`` go on."""
        self.machine.write(f"{self.folder}/{name}.gate", "")

    def environment(self, **variables: str) -> None:
        """Overwrite the environment file."""
        own = {"DJANGO_SETTINGS_MODULE": "depot_settings", **variables}
        lines = [f"{name}={value}\n" for name, value in own.items()]
        self.machine.write("/etc/daemonkit.env", "".join(lines), mode=0o600)

    def drop_in(self, unit: str, text: str) -> None:
        """Write a drop-in file, as `systemctl edit` does."""
        self.machine.write(f"{UNITS}/{unit}.service.d/override.conf", dedent(text).lstrip())
        self.machine.run("systemctl", "daemon-reload")

    def start(self, *units: str, within: float = 60) -> None:
        """Start units, and wait until they are ready."""
        started = self.machine.run("systemctl", "start", *units, check=False, within=within)
        journals = "\n".join(self.machine.journal(unit) for unit in units)
        assert started.returncode == 0, f"{started.stderr}\n{journals}"

    def stop_all(self) -> None:
        """Stop and forget every unit of ours, and its drop-ins."""
        script = f"""
        systemctl stop --no-block 'daemonkit@*' daemonkit.target
        systemctl kill -s KILL 'daemonkit@*'
        systemctl stop 'daemonkit@*' daemonkit.target
        rm -rf {UNITS}/daemonkit@?*.service.d {UNITS}/daemonkit.target.wants
        systemctl daemon-reload
        systemctl reset-failed
        """
        self.machine.sh(script, check=False)

    def restarts(self, unit: str) -> int:
        return int(self.machine.show(unit, "NRestarts"))

    def is_state(self, unit: str, state: str, within: float = 30) -> None:
        eventually(
            lambda: self.machine.show(unit, "ActiveState") == state,
            within,
            f"{unit} is {state}",
            every=0.1,
        )

    def entries(self, unit: str) -> list[tuple[int, str]]:
        """The priority and text of each journal entry that the daemon itself has written."""
        name = unit if "." in unit else f"{unit}.service"
        output = self.machine.run("journalctl", "-q", "-o", "json", f"_SYSTEMD_UNIT={name}").stdout
        entries = [json.loads(line) for line in output.splitlines()]
        return [(int(entry["PRIORITY"]), str(entry["MESSAGE"])) for entry in entries]


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    unwanted = member.name.endswith((".pyc", ".sqlite3")) or "__pycache__" in member.name
    return None if unwanted else member
