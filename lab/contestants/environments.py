"""Virtual environments for contestants that need packages of their own, at pinned versions.

An environment shares Django and the drivers with the one that makes it, so that all contestants
run on the same; what it has itself comes first. It is made when it is first needed, and kept.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

from lab.processes import ROOT

REQUIREMENTS = ROOT / "requirements" / "contestants"
FOLDER = Path(os.environ.get("CONTESTANTS", ROOT / ".contestants"))


def python_with(name: str) -> str:
    """The Python of the environment that ``requirements/contestants/NAME.txt`` describes.

    Raises ``RuntimeError``, in one sentence, if it cannot be made.
    """
    wanted = (REQUIREMENTS / f"{name}.txt").read_text()
    mark = hashlib.sha256(f"{sys.prefix} {sys.version} {wanted}".encode()).hexdigest()[:12]
    folder = FOLDER / f"{name}-{mark}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        _make(folder, name)
        (folder / "complete").touch()
    return str(python)


def versions_of(name: str) -> list[str]:
    """What an environment is pinned to: "celery 5.7.0"."""
    lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    return [line.replace("==", " ") for line in lines if "==" in line and not line.startswith(" ")]


def _make(folder: Path, name: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False, symlinks=True)
    own = next(folder.glob("lib/python*/site-packages"))
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--target", str(own)]
    done = subprocess.run(
        [*pip, "-r", str(REQUIREMENTS / f"{name}.txt")],
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise RuntimeError(f"the environment of {name} could not be installed: {last}")
    shared = [path for path in site.getsitepackages() if path.startswith(sys.prefix)]
    (own / "shared.pth").write_text("\n".join(shared) + "\n")
