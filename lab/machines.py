"""A machine with a real systemd: this one's files under an overlay, booted in a container.

What is written in it is lost when it ends. It shares the network, so that it reaches the private
database servers of the tests at 127.0.0.1. It has its own namespaces (mounts, processes), whose
first process dies with ours, so that neither process nor mount is left even if we are killed. It
has its own control group, so that two machines do not use each other's.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from lab.waiting import eventually

PREFIX = "dk-machine-"
PYTHON = "/opt/python"
"""The path, in the machine, of the Python that runs the tests: its own may be in a home."""
PACKAGES = "/opt/packages"
"""The path, in the machine, of the packages that are installed for the tests."""
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"

BOOT = """
mount -t tmpfs tmpfs "$FOLDER"
cd "$FOLDER"
mkdir up work root
mount -t overlay overlay -o lowerdir=/,upperdir=up,workdir=work root
# Without this machine's own services, and with a new machine id.
rm -rf root/etc/systemd/system/* root/etc/systemd/user/* root/etc/rc?.d/S*
: >root/etc/machine-id
mkdir -p root"$PYTHON" root"$PACKAGES"
exec systemd-nspawn --quiet --directory=root --boot --register=no --keep-unit --pipe \
    --link-journal=no --bind-ro="$OUR_PYTHON:$PYTHON" --bind-ro="$OUR_PACKAGES:$PACKAGES"
"""


class Machine:
    """One boot of such a machine. ``run()`` enters it as root."""

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.groups = [root / self.folder.name for root in control_groups()]
        self.process: subprocess.Popen[bytes] | None = None
        self.init = 0
        atexit.register(self.remove)

    @classmethod
    def why_missing(cls) -> str | None:
        """Say in a sentence why a machine cannot be made here; None if it can."""
        if os.geteuid() != 0:
            return "A machine with a real systemd needs root."
        for program in ("systemd-nspawn", "nsenter", "unshare", "setpriv"):
            if not shutil.which(program):
                return f"{program} is not installed (Debian: systemd-container, util-linux)."
        if not Path("/sbin/init").resolve().name.startswith("systemd"):
            return "systemd is not installed as init (Debian: systemd-sysv)."
        return None

    # Life

    def start(self) -> None:
        """Boot, and wait until systemd has settled."""
        sweep()
        for group in self.groups:
            group.mkdir()
        command = ["setpriv", "--pdeathsig", "SIGKILL", "unshare", "--mount", "--pid", "--fork"]
        command += ["--kill-child=SIGKILL", "--mount-proc", "sh", "-euc", BOOT]
        with (self.folder.parent / f"{self.folder.name}.log").open("wb") as console:
            self.process = subprocess.Popen(
                ["sh", "-c", f'{self._join_groups()} exec "$@"', "sh", *command],
                env={**os.environ, **self._places()},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.init = eventually(self._find_init, within=60, what="systemd runs", every=0.05)
        eventually(self._has_settled, within=60, what="systemd has settled", every=0.1)
        # A Python with a shared library looks for it where it was built, which may be in a home.
        self.write("/etc/ld.so.conf.d/0-tests.conf", f"{PYTHON}/lib\n")
        self.run("ldconfig")

    def remove(self) -> None:
        """End the machine and everything in it."""
        atexit.unregister(self.remove)
        if self.process is not None:
            self.process.kill()
            self.process.wait(30)
        for group in self.groups:
            remove_group(group)
        (self.folder.parent / f"{self.folder.name}.log").unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _join_groups(self) -> str:
        return "".join(
            f"echo $$ > {shlex.quote(f'{group}/cgroup.procs')};" for group in self.groups
        )

    def _places(self) -> dict[str, str]:
        return {
            "FOLDER": str(self.folder),
            "PYTHON": PYTHON,
            "PACKAGES": PACKAGES,
            "OUR_PYTHON": sys.base_prefix,
            "OUR_PACKAGES": str(Path(psutil.__file__).parent.parent),
        }

    def _find_init(self) -> int:
        assert self.process is not None
        if self.process.poll() is not None:
            log = self.folder.parent / f"{self.folder.name}.log"
            raise RuntimeError(f"the machine did not boot:\n{log.read_text()}")
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.name() == "systemd" and child.parent().name() == "systemd-nspawn":
                    return int(child.pid)
        return 0

    def _has_settled(self) -> bool:
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    # Inside

    def run(
        self, *command: str, check: bool = True, within: float = 60, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as root, with ``text`` as its input."""
        environment = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"]
        environment += ["HOME=/root", "LANG=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0"]
        done = subprocess.run(
            ["nsenter", "--target", str(self.init), "--all", *environment, *command],
            input=text if text is not None else "",
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{shlex.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def feed(self, data: bytes, *command: str) -> None:
        """Run a command in the machine with data as its input."""
        enter = ["nsenter", "--target", str(self.init), "--all"]
        subprocess.run([*enter, *command], input=data, check=True)

    def sh(
        self, script: str, *, check: bool = True, within: float = 60
    ) -> subprocess.CompletedProcess[str]:
        return self.run("sh", "-c", script, check=check, within=within)

    def path(self, path: str) -> Path:
        """The path outside of the machine for a path in it. Symbolic links lead out of it."""
        return Path(f"/proc/{self.init}/root{path}")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file, and create its folders."""
        self.run("install", "-D", "-m", f"{mode:o}", "/dev/stdin", path, text=text)

    # Units

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "-P", name, unit).stdout.strip()

    def status(self, unit: str) -> str:
        return self.show(unit, "StatusText")

    def pid(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def journal(self, unit: str, *options: str) -> str:
        return self.run("journalctl", "-q", "-o", "cat", "-u", unit, *options).stdout

    def wait_for(self, unit: str, text: str, within: float = 30) -> str:
        """Wait until a unit has written a text to the journal; return the journal."""
        try:
            return eventually(
                lambda: (found := self.journal(unit)) if text in self.journal(unit) else "",
                within,
                every=0.1,
            )
        except AssertionError:
            state = self.run("systemctl", "status", "-n", "0", unit, check=False).stdout
            raise AssertionError(f"no {text!r} in:\n{state}\n{self.journal(unit)}") from None


def install_project(machine: Machine, folder: str) -> None:
    """Make a virtual environment with daemonkit's wheel and the packages of the tests."""
    site = f"{folder}/venv/lib/{VERSION}/site-packages"
    machine.run("mkdir", "-p", f"{folder}/venv/bin", site)
    machine.write(f"{folder}/venv/pyvenv.cfg", f"home = {PYTHON}/bin\n")
    for name in ("python", "python3"):
        machine.run("ln", "-sf", f"{PYTHON}/bin/{VERSION}", f"{folder}/venv/bin/{name}")
    machine.write(f"{site}/tests.pth", f"{PACKAGES}\n")
    unpack = "import io, sys, zipfile; sent = io.BytesIO(sys.stdin.buffer.read()); "
    unpack += f"zipfile.ZipFile(sent).extractall({site!r})"
    machine.feed(machine.wheel.read_bytes(), f"{PYTHON}/bin/{VERSION}", "-c", unpack)


def build_wheel(root: Path, folder: Path) -> Path:
    """Build daemonkit's wheel as ``pip install .`` does."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


# Control groups


def control_groups() -> Iterator[Path]:
    """The hierarchies that systemd uses: the unified one, and its own in a hybrid setup."""
    root = Path("/sys/fs/cgroup")
    candidates: Sequence[Path] = (root / "systemd", root / "unified", root)
    for candidate in candidates:
        if (candidate / "cgroup.procs").exists():
            yield candidate


def sweep() -> None:
    """Remove the groups, folders and logs that machines of killed test runs have left."""
    places = [Path(tempfile.gettempdir()), *control_groups()]
    for left in [path for place in places for path in place.glob(f"{PREFIX}*")]:
        owner = left.name.removeprefix(PREFIX).partition("-")[0]
        if psutil.pid_exists(int(owner)):
            continue
        if left.is_dir():
            remove_group(left)
        else:
            left.unlink()


def remove_group(group: Path) -> None:
    """Remove a control group and its children, once their processes are gone."""

    def is_gone() -> bool:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        return not group.exists()

    with contextlib.suppress(AssertionError):
        eventually(is_gone, within=5, every=0.05)
