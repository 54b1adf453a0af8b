"""A slice of each soak; ``make soak`` runs the whole of them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lab.processes import ROOT, child_environment
from soaks.__main__ import SOAKS
from soaks.soak import Report, Size

pytestmark = pytest.mark.one_python

SECONDS = 6
VARIANTS = [(soak.name, variant) for soak in SOAKS.values() for variant in soak.variants]


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "soaks", *arguments],
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(("name", "variant"), VARIANTS)
def test_nothing_goes_wrong_in_a_slice_of_a_soak(name: str, variant: str) -> None:
    done = soak(name, "--variant", variant, "--seed", "1", "--seconds", str(SECONDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--seed 1" in done.stdout


def test_the_slices_take_no_more_than_a_minute_and_the_whole_100_000_units_of_work() -> None:
    assert SECONDS * len(VARIANTS) <= 60
    units = SOAKS["units"].steps * 2 * 4 + SOAKS["coroutines"].steps * 10 * 2
    assert units == 100_000


def test_an_unknown_soak_is_refused_in_a_sentence() -> None:
    done = soak("unitz")
    assert done.returncode == 2
    assert "there is no soak 'unitz': name one of units, coroutines, signals" in done.stderr


def test_the_report_shows_only_the_first_faults() -> None:
    report = Report()
    report.seen["KILLs"] = 3
    for number in range(30):
        report.expect(number < 5, f"{number} is wrong")
    lines = str(report).splitlines()
    assert lines[:2] == ["3 KILLs", "5 is wrong"]
    assert lines[-1] == "and 5 more"


def test_a_soak_ends_by_steps_or_by_seconds() -> None:
    assert list(Size(3).numbers()) == [0, 1, 2]
    assert list(Size(3, seconds=-1).numbers()) == []
