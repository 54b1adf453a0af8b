"""The documentation's commands run, and its code is the sample site's."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemonkit import BaseDaemonCommand, Exit
from lab.processes import ROOT, child_environment
from tests.kit.processes import Manage

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "sample_site/README.md"]
ENDS_BY_ITSELF = re.compile(r"--once|--max-ticks|manage.py (daemons|migrate)\b")


def blocks(page: Path, language: str) -> Iterator[str]:
    yield from re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(start: str) -> list[str]:
    """Every command of the documentation that begins so, without its comment."""
    found = {
        line.removeprefix("$ ").partition("  #")[0].strip()
        for page in PAGES
        for block in blocks(page, "console")
        for line in block.splitlines()
        if line.startswith(f"$ {start}")
    }
    return sorted(found)


@pytest.mark.parametrize("command", commands("python manage.py"))
def test_every_manage_py_command_of_the_documentation_runs(command: str, manage: Manage) -> None:
    arguments = shlex.split(command)[2:]
    migrated = manage("migrate", "-v", "0")
    assert migrated.wait(60) == 0
    daemon = manage(*arguments)
    if not ENDS_BY_ITSELF.search(command):
        daemon.wait_for(re.compile(r" started: |Watching for file changes"), within=30)
        daemon.signal_group(2)
    assert daemon.wait(30) == 0, daemon.output
    assert "Traceback" not in daemon.output


def test_make_run_runs_the_main_daemon_and_ends_with_0() -> None:
    (command,) = commands('make run ARGS="')
    make = subprocess.run(
        [*shlex.split(command), f"PYTHON={sys.executable}", f"VENV={sys.prefix}"],
        cwd=ROOT,
        env=child_environment({"SHOP_INBOX": None, "MAKEFLAGS": None}),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert make.returncode == 0, make.stderr
    assert len(re.findall(r" tick \d took ", make.stderr)) == 5


def test_the_first_daemon_of_the_readme_is_the_sample_sites() -> None:
    first = next(blocks(ROOT / "README.md", "python"))
    name, _, code = first.partition("\n")
    assert code == (ROOT / "sample_site" / name.removeprefix("# ")).read_text()


def test_code_that_names_its_file_stands_in_that_file() -> None:
    quoted = set()
    for page in PAGES:
        for block in blocks(page, "python"):
            name, _, code = block.partition("\n")
            for folder in (ROOT, ROOT / "sample_site"):
                file = folder / name.removeprefix("# ")
                if name.startswith("# ") and file.is_file():
                    assert code.strip() in file.read_text(), f"{page.name} quotes {name[2:]}"
                    quoted.add((page.name, file.name))
    assert {("jobs.md", "housekeeping.py"), ("gone-away.zh.md", "remedies.py")} <= quoted


def test_every_python_block_compiles() -> None:
    for page in PAGES:
        for number, block in enumerate(blocks(page, "python")):
            compile(block, f"{page.name}, block {number + 1}", "exec")


def test_the_tables_of_settings_and_exit_codes_say_what_the_code_says() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", readme, re.MULTILINE))
    assert [int(code) for code in rows] == [int(code) for code in Exit]
    for name, default in (("stop_timeout", 25), ("tick_timeout", 3600), ("pulse", 10)):
        assert getattr(BaseDaemonCommand, name) == default
        assert re.search(
            rf"^\| `{name}` \| `--{name.replace('_', '-')}` \| {default} \|", readme, re.M
        )


def test_every_make_command_of_the_documentation_names_a_target() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    pages = [*PAGES, ROOT / "CONTRIBUTING.md"]
    named = {
        target
        for page in pages
        for line in re.findall(r"(?:^\$ |`)make ([^#`\n]+)", page.read_text(), re.MULTILINE)
        for target in re.sub(r'\w+=("[^"]*"|\S+)', "", line).split()
    }
    assert {"run", "test", "gone-away"} <= named <= set(targets)


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    for page in PAGES:
        for name, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name} links to {name}"
            if anchor:
                assert anchor in anchors(target), f"{page.name} links to {name}#{anchor}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_nothing_in_the_project_names_the_machine_it_was_made_on() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    home = Path.home()
    for name in files.stdout.split():
        text = (ROOT / name).read_text(errors="replace")
        assert str(ROOT) not in text, name
        assert home == Path("/") or f"{home}/" not in text, name
