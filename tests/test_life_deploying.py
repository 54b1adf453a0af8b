"""``daemons install`` in a container with a real systemd, and every command of docs/deploy.md."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from lab.machines import PACKAGES, PYTHON, Machine, install_project
from lab.processes import ROOT
from lab.servers import MariaDB
from lab.waiting import eventually
from tests.kit.sites import DATABASE, UNITS, Site

pytestmark = pytest.mark.one_python

PAGE = ROOT / "docs" / "deploy.md"
MARK = "# Written by daemonkit for the project in "


class Project(Site):
    """The sample site in its own folder, deployed with ``daemons install``."""

    def manage(
        self, *arguments: str, user: str = "root", check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        script = 'cd "$0" && exec venv/bin/python manage.py "$@"'
        enter = ["runuser", "-u", user, "--", "env", f"HOME=/home/{user}"] if user != "root" else []
        return self.machine.run(*enter, "sh", "-c", script, self.folder, *arguments, check=check)

    def refusal(self, *arguments: str, user: str = "root") -> tuple[int, str]:
        """Return the exit code and the sentence of an installation, which --dry-run repeats."""
        command = ("daemons", "install", *arguments)
        done = self.manage(*command, user=user, check=False)
        rehearsed = self.manage(*command, "--dry-run", user=user, check=False)
        assert (rehearsed.returncode, rehearsed.stderr) == (done.returncode, done.stderr)
        assert rehearsed.stdout == ""
        return done.returncode, done.stderr

    def install(self, *arguments: str, user: str = "root", check: bool = True) -> str:
        done = self.manage("daemons", "install", *arguments, user=user, check=check)
        return done.stdout + done.stderr


def lay_out(machine: Machine, folder: str) -> Project:
    install_project(machine, folder)
    project = Project(machine, folder)
    project.lay_out()
    return project


@pytest.fixture(scope="module")
def shop(machine: Machine) -> Project:
    return lay_out(machine, "/srv/my shop 100%")


@pytest.fixture(scope="module")
def other(machine: Machine) -> Project:
    return lay_out(machine, "/srv/other/shop")


@pytest.fixture(autouse=True)
def _clean(machine: Machine) -> Iterator[None]:
    """Remove all installed units afterwards. The database is SQLite in the state folder."""
    machine.sh("mkdir -p /etc/shop; echo DATABASE_URL=sqlite:////tmp/x.sqlite3 >/etc/shop/env")
    yield
    script = f"""
    cd {UNITS}
    systemctl disable --now $(grep -ls '^{MARK}' *.service *.target) x.target
    systemctl kill -s KILL '*shop*'
    rm -rf *shop*
    systemctl daemon-reload
    systemctl reset-failed
    """
    machine.sh(script, check=False)


def test_install_writes_enables_and_starts_and_a_second_run_does_nothing(shop: Project) -> None:
    """In a folder whose name has a space and a per cent sign."""
    output = shop.install("expire_baskets", "daily_report", "--environment-file", "/etc/shop/env")
    names = ["my-shop-100-expire_baskets.service", "my-shop-100-daemons.target"]
    for name in names:
        assert f"wrote {UNITS}/{name}" in output
        assert shop.machine.show(name, "ActiveState") == "active"
        assert shop.machine.show(name, "UnitFileState") == "enabled"
    again = shop.install("expire_baskets", "daily_report", "--environment-file", "/etc/shop/env")
    assert again == "nothing to do: everything is written, enabled and running\n"


def test_changed_units_are_overwritten_and_restarted(shop: Project) -> None:
    shop.install("expire_baskets")
    unit = "my-shop-100-expire_baskets.service"
    pid = shop.machine.pid(unit)
    output = shop.install("expire_baskets", "--environment-file", "/etc/shop/env")
    assert f"overwrote {UNITS}/{unit}\nrestarted {unit}\n" in output
    assert shop.machine.pid(unit) not in (0, pid)


def test_a_dry_run_prints_everything_and_does_nothing(shop: Project) -> None:
    output = shop.install("expire_baskets", "--dry-run")
    assert f"would write {UNITS}/my-shop-100-expire_baskets.service" in output
    assert "WorkingDirectory=/srv/my shop 100%%" in output
    assert "would enable and start my-shop-100-expire_baskets.service" in output
    assert not shop.machine.sh(f"ls {UNITS} | grep shop", check=False).stdout


def test_the_rendered_unit_verifies_clean_and_is_hardened(shop: Project) -> None:
    shop.install("expire_baskets")
    unit = "my-shop-100-expire_baskets.service"
    files = [f"{UNITS}/{unit}", f"{UNITS}/my-shop-100-daemons.target"]
    verified = shop.machine.run("systemd-analyze", "verify", *files)
    assert verified.stdout + verified.stderr == ""
    report = shop.machine.run("systemd-analyze", "security", "--no-pager", unit).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert found
    assert float(found[1]) <= 2.0, report


def test_a_unit_that_daemonkit_did_not_write_stays_unchanged(shop: Project) -> None:
    path = f"{UNITS}/my-shop-100-expire_baskets.service"
    shop.machine.write(path, "[Service]\nExecStart=/bin/true\n")
    code, output = shop.refusal("expire_baskets")
    assert code == 1
    assert f"{path} was not written by daemonkit, and stays unchanged" in output
    assert shop.machine.run("cat", path).stdout == "[Service]\nExecStart=/bin/true\n"
    assert not shop.machine.sh(f"ls {UNITS} | grep target$ | grep shop", check=False).stdout


def test_two_projects_with_one_name_do_not_overwrite_each_others_units(
    shop: Project, other: Project
) -> None:
    other.install("expire_baskets")
    code, output = shop.refusal("expire_baskets", "--project", "shop")
    assert code == 1
    assert "is of another project, and stays unchanged" in output
    shop.install("expire_baskets")
    folders = {
        unit: shop.machine.show(unit, "WorkingDirectory")
        for unit in ("shop-expire_baskets.service", "my-shop-100-expire_baskets.service")
    }
    assert list(folders.values()) == ["/srv/other/shop", "/srv/my shop 100%"]
    for unit in folders:
        assert shop.machine.show(unit, "ActiveState") == "active"


def test_without_permission_to_write_install_is_refused_in_one_sentence(shop: Project) -> None:
    assert shop.refusal("expire_baskets", user="nobody") == (
        1,
        f"CommandError: no permission to write to {UNITS}: use sudo, or --user for your own "
        f"systemd manager\n",
    )


@pytest.mark.parametrize("option", ["", "--dry-run"])
def test_without_systemd_install_is_refused_in_one_sentence(shop: Project, option: str) -> None:
    script = f"""
    mount -t tmpfs none /run && cd '{shop.folder}' &&
    exec venv/bin/python manage.py daemons install expire_baskets {option}
    """
    done = shop.machine.run("unshare", "--mount", "sh", "-c", script, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: systemd does not run on this machine")
    assert len(done.stderr.splitlines()) == 1


def test_it_runs_as_an_existing_user(shop: Project) -> None:
    shop.install("expire_baskets", "--as", "www-data", "--environment-file", "/etc/shop/env")
    unit = "my-shop-100-expire_baskets.service"
    owner = shop.machine.sh(f"ps -o user= -p {shop.machine.pid(unit)}").stdout.strip()
    assert owner == "www-data"
    folder = shop.machine.sh("stat -c %U /var/lib/my-shop-100").stdout.strip()
    assert folder == "www-data"


def test_a_folder_that_the_dynamic_user_cannot_enter_is_named(shop: Project) -> None:
    shop.machine.run("chmod", "700", shop.folder)
    try:
        code, output = shop.refusal("expire_baskets")
        assert code == 1
        assert f"the user that systemd creates cannot enter {shop.folder}, and" in output
    finally:
        shop.machine.run("chmod", "755", shop.folder)


def test_install_reports_that_a_daemon_waits_for_its_database(shop: Project) -> None:
    shop.command(
        "needy",
        """
        class Command(BaseDaemonCommand):
            schedule = Every(seconds=30)

            def lifespan(self):
                connection.ensure_connection()
                return super().lifespan()

            def tick(self): ...
        """,
    )
    nowhere = "DATABASE_URL=mysql://shop:secret@127.0.0.1:1/shop"
    settings = "DJANGO_SETTINGS_MODULE=depot_settings"
    shop.machine.write("/etc/shop/nowhere", f"{settings}\n{nowhere}\n")
    script = f'cd "$0" && {settings} exec venv/bin/python manage.py daemons install "$@"'
    arguments = [shop.folder, "needy", "--environment-file", "/etc/shop/nowhere"]
    done = shop.machine.run("sh", "-c", script, *arguments)
    unit = "my-shop-100-needy.service"
    assert f"started {unit}" in done.stdout
    assert f"{unit}: waits for the database, next try at" in done.stdout
    shop.machine.run("systemctl", "stop", unit)
    assert shop.machine.show(unit, "Result") == "success"


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_a_user_without_a_manager_is_refused_in_one_sentence(shop: Project, user: str) -> None:
    code, output = shop.refusal("expire_baskets", "--user", user=user)
    assert code == 1
    assert output.startswith(f"CommandError: the systemd of the user {user} does not answer (")
    assert output.endswith(
        f"): log in as {user}, or keep it running with `loginctl enable-linger {user}`\n"
    )
    assert len(output.splitlines()) == 1
    assert not shop.machine.sh("ls -d ~/.config/systemd/user", check=False).stdout


def test_an_unknown_daemon_is_not_installed(shop: Project) -> None:
    done = shop.manage("daemons", "install", "expire_basket", check=False)
    assert done.returncode == 2
    assert "did you mean expire_baskets" in done.stderr


def test_a_user_installs_for_its_own_manager(shop: Project) -> None:
    shop.machine.sh("id keeper || useradd --create-home keeper; loginctl enable-linger keeper")
    run = ["runuser", "-u", "keeper", "--", "sh", "-c"]

    def systemctl(command: str) -> str:
        script = f"XDG_RUNTIME_DIR=/run/user/$(id -u) systemctl --user {command}"
        return shop.machine.run(*run, script, check=False).stdout.strip()

    eventually(lambda: systemctl("is-system-running") in ("running", "degraded"), 30)
    shop.machine.write("/home/keeper/env", "DATABASE_URL=sqlite:////home/keeper/x.sqlite3\n")
    arguments = ["visit_shop", "--user", "--environment-file", "/home/keeper/env"]
    script = 'cd "$0" && XDG_CONFIG_HOME=/etc/shut venv/bin/python manage.py daemons install "$@"'
    lost = shop.machine.run(*run, script, shop.folder, "expire_baskets", "--user", check=False)
    assert lost.stderr == (
        "CommandError: no permission to write to /etc: set HOME or XDG_CONFIG_HOME to a folder of "
        "your own\n"
    )
    output = shop.install(*arguments, "--", "--every", "1h", user="keeper")
    assert "wrote /home/keeper/.config/systemd/user/my-shop-100-visit_shop.service" in output
    assert systemctl("is-active my-shop-100-visit_shop") == "active"
    assert systemctl("is-enabled my-shop-100-daemons.target") == "enabled"
    again = shop.install(*arguments, "--", "--every", "1h", user="keeper")
    assert again == "nothing to do: everything is written, enabled and running\n"
    systemctl("disable --now my-shop-100-visit_shop my-shop-100-daemons.target")


# Reloading


def starts(project: Project, unit: str) -> int:
    """Return how often a daemon has started by the journal, which includes other tests."""
    return project.machine.journal(unit).count(" started: ")


def test_reload_waits_until_the_daemons_have_reloaded(shop: Project) -> None:
    shop.install("expire_baskets", "daily_report", "--environment-file", "/etc/shop/env")
    units = ["my-shop-100-expire_baskets.service", "my-shop-100-daily_report.service"]
    pids = [shop.machine.pid(unit) for unit in units]
    before = [starts(shop, unit) for unit in units]
    for turn in (1, 2):
        done = shop.manage("daemons", "reload", "expire_baskets", "daily_report")
        for unit, count in zip(units, before, strict=True):
            assert f"reloaded {unit}: " in done.stdout
            assert starts(shop, unit) == count + turn
            assert shop.machine.show(unit, "ActiveState") == "active"
    assert [shop.machine.pid(unit) for unit in units] == pids


def test_reload_refuses_in_one_sentence(shop: Project) -> None:
    done = shop.manage("daemons", "reload", "expire_baskets", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("CommandError: daemonkit@expire_baskets.service does not run")
    shop.install("expire_baskets", "--environment-file", "/etc/shop/env")
    shop.machine.run("systemctl", "stop", "my-shop-100-expire_baskets")
    done = shop.manage("daemons", "reload", "expire_baskets", check=False)
    assert done.returncode == 1
    assert "`systemctl start my-shop-100-expire_baskets.service`" in done.stderr


def test_reload_of_code_that_does_not_load_ends_with_1(shop: Project) -> None:
    daemon = "class Command(BaseDaemonCommand):\n    schedule = Every(seconds=30)\n\n    "
    shop.command("changing", f"{daemon}def tick(self): ...\n")
    settings = "DJANGO_SETTINGS_MODULE=depot_settings"
    script = f'cd "$0" && {settings} exec venv/bin/python manage.py daemons "$@"'
    shop.machine.run("sh", "-c", script, shop.folder, "install", "changing")
    shop.command("changing", f"{daemon}def tick(self: ...\n")
    done = shop.machine.run("sh", "-c", script, shop.folder, "reload", "changing", check=False)
    assert done.returncode == 1
    assert "my-shop-100-changing.service: " in done.stderr
    assert "goes on with the old code" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert shop.machine.show("my-shop-100-changing.service", "ActiveState") == "active"


def test_a_reload_of_the_target_reloads_every_daemon(shop: Project) -> None:
    shop.install("expire_baskets", "daily_report", "--environment-file", "/etc/shop/env")
    units = ["my-shop-100-expire_baskets.service", "my-shop-100-daily_report.service"]
    pids = [shop.machine.pid(unit) for unit in units]
    before = [starts(shop, unit) for unit in units]
    shop.machine.run("systemctl", "reload", "my-shop-100-daemons.target")
    eventually(
        lambda: [starts(shop, unit) for unit in units] == [count + 1 for count in before], 20
    )
    assert [shop.machine.pid(unit) for unit in units] == pids


# Uninstalling


def units_of(project: Project) -> str:
    return project.machine.sh(f"ls {UNITS} | grep my-shop", check=False).stdout


def test_uninstall_removes_units_and_with_the_last_one_the_target(
    shop: Project,
) -> None:
    shop.install("expire_baskets", "daily_report", "--environment-file", "/etc/shop/env")
    first, last = "my-shop-100-expire_baskets.service", "my-shop-100-daily_report.service"
    would = shop.manage("daemons", "uninstall", "expire_baskets", "--dry-run").stdout
    assert would == f"would stop, disable and remove {UNITS}/{first}\n"
    output = shop.manage("daemons", "uninstall", "expire_baskets").stdout
    assert output == f"stopped and disabled {first}\nremoved {UNITS}/{first}\n"
    assert shop.machine.show(first, "LoadState") == "not-found"
    assert shop.machine.show(last, "ActiveState") == "active"
    output = shop.manage("daemons", "uninstall", "daily_report").stdout
    assert f"removed {UNITS}/my-shop-100-daemons.target" in output
    assert units_of(shop) == ""
    assert not shop.machine.sh("find /etc/systemd -name 'my-shop*'").stdout


def test_uninstall_all_removes_deleted_daemons_and_nothing_of_another_project(
    shop: Project, other: Project
) -> None:
    shop.command("passing", "class Command(BaseDaemonCommand):\n"
                 "    schedule = Every(seconds=30)\n\n    def tick(self): ...\n")  # fmt: skip
    settings = "DJANGO_SETTINGS_MODULE=depot_settings"
    script = f'cd "$0" && {settings} exec venv/bin/python manage.py daemons install passing'
    shop.machine.run("sh", "-c", script, shop.folder)
    other.install("expire_baskets")
    shop.install("expire_baskets")
    shop.manage("daemons", "uninstall", "--all")
    assert units_of(shop) == ""
    assert shop.machine.show("shop-expire_baskets.service", "ActiveState") == "active"
    again = shop.manage("daemons", "uninstall", "--all").stdout
    assert again == "nothing to do: no daemon of this project is installed\n"


def test_uninstall_refuses_in_one_sentence(shop: Project, other: Project) -> None:
    other.install("expire_baskets")
    refused = {
        ("daily_report",): "daily_report.service does not exist: this daemon is not installed",
        ("expire_baskets", "--project", "shop"): "is of another project",
        (): "name the daemons, or use --all",
        ("expire_baskets", "--all"): "name the daemons, or use --all",
    }
    for arguments, sentence in refused.items():
        done = shop.manage("daemons", "uninstall", *arguments, check=False)
        assert done.returncode == (2 if "--all" in sentence else 1)
        assert sentence in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert shop.machine.show("shop-expire_baskets.service", "ActiveState") == "active"


# docs/deploy.md


def page_commands() -> Iterator[str]:
    """Yield every command of the page, with its input."""
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        lines = iter(block.splitlines())
        for line in lines:
            assert line.startswith("# "), line
            command = line.removeprefix("# ")
            while "<<'END'" in command and not command.endswith("\nEND"):
                command += f"\n{next(lines)}"
            yield command


@pytest.fixture
def blank_machine(machine: Machine) -> Iterator[Machine]:
    """A new machine, prepared only with what the page presupposes."""
    blank = Machine(machine.wheel)
    try:
        blank.start()
        yield blank
    finally:
        blank.remove()


def test_every_command_of_the_page_runs(blank_machine: Machine, mariadb: MariaDB) -> None:
    machine = blank_machine
    machine.run("mkdir", "/srv/shop")
    Site(machine).lay_out()
    machine.run("mkdir", "/srv/wheels")
    wheel = f"/srv/wheels/{machine.wheel.name}"
    machine.feed(machine.wheel.read_bytes(), "dd", "status=none", f"of={wheel}")
    pip = "PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_NO_DEPS=1 PIP_FIND_LINKS=/srv/wheels"
    url = mariadb.url_through(mariadb.port, DATABASE)
    mariadb.create_database(DATABASE)
    try:
        for command in page_commands():
            command = command.replace("mysql://shop:secret@127.0.0.1/shop", url)
            script = f"export PATH={PYTHON}/bin:$PATH {pip}; cd /srv/shop; {command}"
            done = machine.sh(script, within=120)
            assert "Traceback" not in done.stdout + done.stderr, command
            if "pip install" in command:  # the tests provide the dependencies
                lib = "/srv/shop/venv/lib/python3*/site-packages"
                machine.sh(f"cd {lib} && echo {PACKAGES} > tests.pth")
            if command.startswith("systemctl status"):
                assert "Active: active (running)" in done.stdout
                assert 'Status: "' in done.stdout
        eventually(lambda: not mariadb.sessions(), 10)
    finally:
        machine.sh("systemctl stop 'shop-*' 'daemonkit@*'", check=False)
        mariadb.drop_database(DATABASE)


def test_the_page_quotes_the_score_of_the_units(shop: Project) -> None:
    shop.install("expire_baskets")
    unit = "my-shop-100-expire_baskets.service"
    report = shop.machine.run("systemd-analyze", "security", "--no-pager", unit).stdout
    (score,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert f"exposure of {score} out of 10" in PAGE.read_text()


def test_the_page_quotes_the_sample_sites_settings() -> None:
    settings = (ROOT / "sample_site/config/settings.py").read_text()
    (quoted,) = re.findall(r"^```python\n(def secret.*?)^```", PAGE.read_text(), re.M | re.S)
    assert quoted in settings
