"""Who a process is, and whether another one is gone."""

from __future__ import annotations

import os
import subprocess
import sys

from daemonkit.process.identity import Identity, host_name, parse_identity, this_process


def test_an_identity_is_read_as_it_was_written() -> None:
    here = this_process()
    assert parse_identity(str(here)) == here
    assert here.without_token == f"{host_name()}:{os.getpid()}"


def test_a_process_that_has_ended_is_gone_and_one_that_runs_is_not() -> None:
    assert not this_process().is_gone
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert Identity(host_name(), ended.pid).is_gone


def test_a_process_on_another_host_is_not_judged() -> None:
    assert not Identity(f"not-{host_name()}", 2**22 + 1).is_gone
