"""The machine of the tests leaves nothing behind, however the tests end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from lab.machines import Machine, control_groups, sweep
from lab.processes import ROOT, child_environment, is_alive
from lab.waiting import eventually

pytestmark = pytest.mark.one_python

HOLDER = """
import sys, time
from pathlib import Path
from lab.machines import Machine

machine = Machine(Path(sys.argv[1]))
machine.start()
machine.run("systemctl", "start", "systemd-journald")
print(machine.process.pid, machine.folder, flush=True)
time.sleep(600)
"""


def test_a_machine_is_gone_when_the_tests_are_killed(machine: Machine) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(machine.wheel)],
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    with holder, holder.stdout:
        pid, folder = holder.stdout.readline().split()
        family = [psutil.Process(int(pid)), *psutil.Process(int(pid)).children(recursive=True)]
        assert any(process.name() == "systemd" for process in family)
        assert folder not in Path("/proc/self/mounts").read_text()
        holder.send_signal(signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, family)), 10, "all of it is gone")
    assert folder not in Path("/proc/self/mounts").read_text()
    sweep()
    for place in (Path(folder).parent, *control_groups()):
        assert not list(place.glob(f"{Path(folder).name}*"))


def test_a_machine_that_is_removed_leaves_nothing(machine: Machine) -> None:
    other = Machine(machine.wheel)
    other.start()
    init = psutil.Process(other.init)
    assert other.run("hostname").returncode == 0
    other.remove()
    assert not is_alive(init)
    assert not other.folder.exists()
    assert not any(group.exists() for group in other.groups)
