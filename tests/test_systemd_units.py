"""The rendered units as text. test_life_deploying.py runs them under systemd."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from daemonkit.deploying.closed_folders import closed_folder
from daemonkit.deploying.deployment import Deployment
from daemonkit.deploying.project import project_folder, project_name, python_path
from daemonkit.deploying.rendering import render_target, render_unit
from daemonkit.deploying.template import read_template
from lab.processes import ROOT, child_environment
from tests.kit.processes import Manage

SITE = ROOT / "sample_site"
NAMES = ("import_prices", "expire_baskets")
SHOP = Deployment(
    project="shop",
    folder="/srv/shop/current",
    program=("/srv/shop/current/venv/bin/python", "manage.py"),
    settings="config.settings",
    environment_file="/etc/shop.env",
)


ManageBy = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def manage_by(tmp_path: Path) -> ManageBy:
    """Run the project's commands from outside its folder, by Python with these arguments."""

    def run(how: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join(map(str, (ROOT, SITE)))
        own = {"PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "config.settings", "PWD": "/"}
        return subprocess.run(
            [sys.executable, *how, *arguments],
            cwd="/",
            env=child_environment(own),
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def lines(deployment: Deployment = SHOP, *options: str) -> list[str]:
    return render_unit(deployment, "sync_prices", "Pull prices.", options).splitlines()


def values(deployment: Deployment, key: str) -> list[str]:
    return [line.partition("=")[2] for line in lines(deployment) if line.startswith(f"{key}=")]


def test_a_rendered_unit_is_about_this_project() -> None:
    text = lines(SHOP, "--region", "us")
    for line in (
        "Description=shop: Pull prices.",
        "WorkingDirectory=/srv/shop/current",
        "Environment=PWD=/srv/shop/current",
        "Environment=DJANGO_SETTINGS_MODULE=config.settings",
        "ExecStart=/srv/shop/current/venv/bin/python manage.py run_daemon sync_prices --region us",
        "EnvironmentFile=/etc/shop.env",
        "PartOf=shop-daemons.target",
        "ReloadPropagatedFrom=shop-daemons.target",
        "WantedBy=shop-daemons.target",
        "StateDirectory=shop",
        "User=shop-daemons",
        "DynamicUser=yes",
    ):
        assert line in text, line
    assert "EDIT" not in "\n".join(text)
    assert "%i" not in "\n".join(text)


@pytest.mark.parametrize(
    ("version", "type_", "reload", "growing"),
    [
        (247, "notify", ["/bin/kill -HUP $MAINPID"], []),
        (252, "notify", ["/bin/kill -HUP $MAINPID"], []),
        (253, "notify-reload", [], []),
        (254, "notify-reload", [], ["6"]),
        (257, "notify-reload", [], ["6"]),
    ],
)
def test_lines_depend_on_the_version_of_systemd(
    version: int, type_: str, reload: list[str], growing: list[str]
) -> None:
    unit = replace(SHOP, version=version)
    assert values(unit, "Type") == [type_]
    assert values(unit, "ExecReload") == reload
    assert values(unit, "RestartSteps") == growing
    assert values(unit, "RestartSec") == ["5"]


def test_an_existing_user_replaces_the_dynamic_user() -> None:
    unit = replace(SHOP, user="www-data")
    assert values(unit, "User") == ["www-data"]
    assert values(unit, "DynamicUser") == []


def test_units_for_a_user_manager_contain_only_settings_that_it_supports() -> None:
    unit = replace(SHOP, user_manager=True)
    assert values(unit, "User") == values(unit, "ProtectSystem") == values(unit, "After") == []
    assert values(unit, "NoNewPrivileges") == ["yes"]
    assert "WantedBy=default.target" in render_target(unit)
    assert "WantedBy=multi-user.target" in render_target(SHOP)


def test_without_an_environment_file_a_comment_names_the_option() -> None:
    text = lines(replace(SHOP, environment_file=""))
    assert "# No environment file: --environment-file names one." in text


def test_a_project_in_a_home_folder_is_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    assert values(SHOP, "ProtectHome") == ["yes"]
    assert values(replace(SHOP, folder="/home/bob/shop"), "ProtectHome") == ["read-only"]


def test_characters_that_systemd_expands_are_escaped() -> None:
    unit = replace(
        SHOP,
        folder='/srv/my "shop" 100% $HOME',
        program=("/srv/my shop/100%/$x/python", "manage.py"),
        environment_file="/etc/my shop.env",
    )
    text = lines(unit, "--region", "a b", "--price", "$5", "--share", "5%", "--path", "a\\b")
    assert 'WorkingDirectory=/srv/my "shop" 100%% $HOME' in text
    assert r'Environment="PWD=/srv/my \"shop\" 100%% $HOME"' in text
    assert "EnvironmentFile=/etc/my shop.env" in text
    (start,) = [line for line in text if line.startswith("ExecStart=")]
    assert start == (
        'ExecStart="/srv/my shop/100%%/$x/python" manage.py run_daemon sync_prices '
        r'--region "a b" --price "$$5" --share 5%% --path "a\\b"'
    )


def test_every_sandbox_option_has_a_comment_on_what_it_takes_away() -> None:
    """In the template, and in the units for each manager."""
    template = read_template("daemonkit@.service").splitlines()
    for text in (template, lines(), lines(replace(SHOP, user_manager=True))):
        begin = next(n for n, line in enumerate(text) if line.startswith("# Each option below"))
        for number, line in enumerate(text[begin:], begin):
            if line == "":
                break
            if not line.startswith(("#", "SystemCallErrorNumber", "SystemCallFilter=~")):
                assert text[number - 1].startswith("# Takes away: "), line


def test_the_template_has_one_line_to_edit() -> None:
    template = read_template("daemonkit@.service").splitlines()
    (marked,) = [n for n, line in enumerate(template) if "EDIT" in line]
    assert template[marked + 3] == "Environment=PROJECT=/srv/shop"
    assert "\n".join(template[marked + 4 :]).count("/srv/shop") == 0


def test_the_template_has_no_option_newer_than_the_oldest_supported_systemd() -> None:
    template = read_template("daemonkit@.service")
    for young in ("notify-reload", "RestartSteps", "RestartMaxDelaySec", "ImportCredential"):
        assert young not in template


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/srv/shop", "shop"),
        ("/srv/shop/current", "shop"),
        ("/srv/shop/src/app", "shop"),
        ("/srv/my shop 100%", "my-shop-100"),
        ("/srv/2nd", "project-2nd"),
        ("/", "project"),
        ("/srv/läden", "l-den"),
    ],
)
def test_a_project_is_named_after_its_folder(folder: str, name: str) -> None:
    assert project_name(folder) == name


def test_the_dynamic_user_has_a_name_that_systemd_accepts() -> None:
    account = replace(SHOP, project="a.very.long.name.of.a.project.indeed").account
    assert account == "a_very_long_name_of_a_-daemons"
    assert len(account) <= 31


def test_the_folder_is_that_of_manage_py_with_its_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "releases" / "1" / "manage.py").touch()
    (tmp_path / "current").symlink_to("releases/1")
    current = str(tmp_path / "current")
    monkeypatch.chdir(current)
    monkeypatch.setenv("PWD", current)
    python = str((tmp_path / "releases" / "1").resolve() / "venv/bin/python")
    monkeypatch.setattr(sys, "executable", python)
    program = (f"{current}/venv/bin/python", "manage.py")
    assert project_folder("manage.py") == (current, program)
    assert project_folder(f"{current}/manage.py") == (current, program)
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert project_folder("/usr/bin/django-admin") == (
        current,
        ("/usr/bin/python3", "-m", "django"),
    )

    assert project_folder("/any/shop/cli.py", "shop.cli") == (
        current,
        ("/usr/bin/python3", "-m", "shop.cli"),
    )


def test_a_manage_py_with_another_name_is_recognized(tmp_path: Path) -> None:
    script = tmp_path / "bin" / "ctl"
    script.parent.mkdir()
    script.write_text("#!/usr/bin/env python\nexecute_from_command_line(sys.argv)\n")
    assert project_folder(str(script)) == (str(script.parent), (sys.executable, "ctl"))
    assert project_name("/srv/shop/bin") == "shop"


@pytest.mark.parametrize("name", ["shop", "no-such-file"])
def test_a_file_that_python_cannot_run_is_refused_with_an_alternative(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "shop").write_bytes(b"\x7fELF")
    with pytest.raises(
        ValueError, match=r"is not a script that Python can run .*python manage\.py"
    ):
        project_folder(str(tmp_path / name))


def test_pythonpath_is_set_in_the_unit() -> None:
    unit = replace(SHOP, python_path="/srv/shop/lib:/srv/more 1%")
    assert 'Environment="PYTHONPATH=/srv/shop/lib:/srv/more 1%%"' in lines(unit)
    assert not [line for line in lines() if "PYTHONPATH" in line]


OPEN = replace(SHOP, folder="/usr", program=("/usr/bin/python3", "manage.py"))


@pytest.fixture
def shut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder that only its owner can enter. All other folders are open."""
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    folder = tmp_path / "shut"
    folder.mkdir(mode=0o700)
    return folder


def test_no_folder_is_reported_if_the_user_can_enter_all(shut: Path) -> None:
    assert closed_folder(OPEN) is None
    assert closed_folder(replace(OPEN, folder=str(shut), user="bob")) is None
    assert closed_folder(replace(OPEN, folder=str(shut), user_manager=True)) is None


def test_a_closed_folder_is_named_with_its_content_and_the_fix(
    shut: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed_folders = {
        f"the project, {shut}": (replace(OPEN, folder=str(shut)), "move the project"),
        f"the interpreter, {shut}/venv/bin/python": (
            replace(OPEN, program=(f"{shut}/venv/bin/python", "manage.py")),
            "move it",
        ),
        f"{shut}, of $PYTHONPATH": (replace(OPEN, python_path=f"/usr/lib:{shut}"), "move it"),
    }
    for content, (deployment, fix) in closed_folders.items():
        closed = closed_folder(deployment)
        assert closed is not None
        assert shut.is_relative_to(closed.folder)  # folders of pytest may be closed, too
        assert f"{content}, is in it" in str(closed)
        assert fix in str(closed)
    monkeypatch.setattr(sys, "base_prefix", f"{shut}/python")
    assert f"Python, {shut}/python, is in it: install Python for all users" in str(
        closed_folder(OPEN)
    )


def test_a_pythonpath_in_a_home_folder_is_readable() -> None:
    at_home = replace(OPEN, python_path="/usr/lib:/home/bob/lib")
    assert values(at_home, "ProtectHome") == ["read-only"]


def test_pythonpath_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    assert python_path("") == ""
    assert python_path("lib:/srv/more") == f"{tmp_path}/lib:/srv/more"
    assert python_path(":/srv/more") == f"{tmp_path}:/srv/more"


# The command


def test_units_made_from_outside_the_project_start(manage_by: ManageBy, tmp_path: Path) -> None:
    """Run the unit's command line in its folder and environment: it lists the daemons."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "ctl"
    script.write_text((ROOT / "sample_site" / "manage.py").read_text())
    for how in ([str(script)], ["-m", "django"]):
        done = manage_by(how, "daemons", "unit", "expire_baskets")
        assert done.returncode == 0, done.stderr
        unit = dict(re.findall(r"^(?:Environment=)?\"?(\w+)=(.*?)\"?$", done.stdout, re.M))
        command = shlex.split(unit["ExecStart"])
        command[command.index("run_daemon") :] = ["daemons", "list"]
        ours = ("PYTHONPATH", "PWD", "DJANGO_SETTINGS_MODULE")
        started = subprocess.run(
            command,
            cwd=unit["WorkingDirectory"],
            env={name: unit[name] for name in ours},
            capture_output=True,
            text=True,
            check=False,
        )
        assert "expire_baskets" in started.stdout, started.stderr


def test_daemons_unit_prints_a_unit_for_each_name(manage: Manage) -> None:
    done = manage("daemons", "unit", *NAMES)
    assert done.wait(30) == 0
    assert done.stdout.count("[Service]") == 2
    heads = [line for line in done.stdout.splitlines() if line.startswith("# as ")]
    assert heads == [f"# as {project_name(str(SITE))}-{name}.service." for name in NAMES]
    assert f"WorkingDirectory={ROOT / 'sample_site'}" in done.stdout
    python = os.path.normpath(sys.executable)  # systemd takes no path with ".." in it
    assert f"ExecStart={python} manage.py run_daemon import_prices" in done.stdout


def test_arguments_after_the_dashes_are_the_daemons_options(manage: Manage) -> None:
    options = ["--every", "1h", "--", "--verbosity", "0"]
    done = manage("daemons", "unit", "clearsessions", "--", *options)
    assert done.wait(30) == 0
    assert f"run_daemon clearsessions {shlex.join(options)}\n" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["expire_basket"], "there is no daemon 'expire_basket'; did you mean expire_baskets"),
        (
            ["clearsessions"],
            "clearsessions is not a daemon: say how often, with --every 1h or --cron "
            "'0 3 * * *'; put a daemon's options after --, as in `daemons install "
            "clearsessions -- --every 1h`",
        ),
        (["expire_baskets", "--", "--older", "x"], "expire_baskets: argument"),
        (["import_prices", "expire_basket"], "there is no daemon 'expire_basket'"),
        (["expire_baskets", "--", "--every", "-1"], "--every"),
        (["expire_baskets", "--as", "nobody-at-all"], "there is no user 'nobody-at-all'"),
        (["expire_baskets", "--as", "root", "--user"], "use --user or --as USER, not both"),
        (["expire_baskets", "--project", "a/b"], "--project takes letters, digits"),
    ],
)
def test_bad_arguments_end_with_one_sentence_and_exit_code_2(
    manage: Manage, arguments: list[str], sentence: str
) -> None:
    done = manage("daemons", "unit", *arguments)
    assert done.wait(30) == 2, done.output
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_a_missing_environment_file_is_refused(manage: Manage, option: list[str]) -> None:
    arguments = ["expire_baskets", "--user", "--environment-file", "/no/such", *option]
    done = manage("daemons", "install", *arguments)
    assert done.wait(30) == 2
    assert "there is no environment file /no/such" in done.stderr
