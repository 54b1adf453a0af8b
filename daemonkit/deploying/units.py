"""A project's units, rendered from the templates that can also be deployed by hand.

What systemd expands is escaped: a path may hold spaces, quotes, "%" and "$".
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from daemonkit.process.reexec import working_folder

_PACKAGE = Path(__file__).parents[1]
TEMPLATES = (_PACKAGE / "systemd" / "templates", _PACKAGE.parent / "systemd")
"""Where the wheel has them, and where a checkout has."""

OLDEST = 247
"""The oldest systemd that the templates are written for."""

_GENERIC = {
    "app", "bin", "code", "current", "django", "htdocs", "project", "release", "repo", "scripts",
    "src",
}  # fmt: skip
"""Folders that say nothing about the project in them: the one above does."""

_RELOAD_IN_PROTOCOL, _GROWING_PAUSE = 253, 254  # systemd's versions: notify-reload, RestartSteps

_SYSTEM_ONLY = {
    "AmbientCapabilities",
    "After",
    "CapabilityBoundingSet",
    "DynamicUser",
    "KeyringMode",
    "PrivateDevices",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "RemoveIPC",
    "User",
    "Wants",
}
"""What a user's own manager has no right to do, or what is not there for it."""


@dataclass(frozen=True)
class Deployment:
    """Where a project is on this machine, and as whom its daemons run.

    ``folder``
        That of ``manage.py``, as somebody wrote it: it may lead through a link such as ``current``.
    ``program``
        What starts the project's commands there: an interpreter and its arguments.
    ``user``
        A user of the machine, or "" for one that systemd makes up.
    ``environment_file``
        Its path, or "" for none.
    ``python_path``
        Where the project's modules are besides, or "".
    ``version``
        Of systemd; what is rendered for an older one runs under a newer one, too.
    """

    project: str
    folder: str
    program: tuple[str, ...]
    settings: str
    user: str = ""
    environment_file: str = ""
    python_path: str = ""
    user_manager: bool = False
    version: int = OLDEST

    @property
    def target(self) -> str:
        return f"{self.project}-daemons.target"

    def unit(self, daemon: str) -> str:
        """The name of a daemon's unit; it says of which project."""
        return f"{self.project}-{daemon}.service"

    @property
    def mark(self) -> str:
        """The first line of the units that are ours to overwrite."""
        return f"# Written by daemonkit for the project in {_line(self.folder)}"

    @property
    def closed_folder(self) -> str:
        """A folder on the way to the project or its interpreter that a made-up user may not enter;
        "" if there is none."""
        if self.user or self.user_manager:
            return ""
        files = [f"{self.folder}/manage.py", self.program[0], f"{sys.base_prefix}/bin"]
        files += [f"{each}/*" for each in self.python_path.split(os.pathsep) if Path(each).is_dir()]
        for path in files:
            for folder in reversed(Path(os.path.realpath(path)).parents):
                if not folder.stat().st_mode & 0o001:
                    return str(folder)
        return ""

    @property
    def account(self) -> str:
        """The user that systemd makes up."""
        return f"{self.project[:22].replace('.', '_')}-daemons"


def project_folder(argv0: str, module: str = "") -> tuple[str, tuple[str, ...]]:
    """The folder in which the project's commands are started, and how: by the same script, or the
    same ``module`` if it runs by ``python -m``.

    Raises ``ValueError``, in one sentence, for a script that nobody knows how to start.
    """
    base = working_folder() or os.getcwd()  # noqa: PTH109
    script = Path(argv0)
    if script.name == "django-admin":
        module = "django"
    if module:
        return base, (_interpreter(base), "-m", module)
    if not _is_like_manage_py(script):
        raise ValueError(
            f"{argv0} is no script that Python runs as it does manage.py: say it by "
            f"`python manage.py daemons ...`, or in the project's folder by `python -m django`"
        )
    folder = Path(base) / script.parent
    if ".." in script.parts:
        folder = folder.resolve()
    return str(folder), (_interpreter(str(folder)), script.name)


def _is_like_manage_py(script: Path) -> bool:
    """Whether Python runs this file, whatever its name, to hand its arguments to Django."""
    if not script.is_file():
        return False
    return script.suffix == ".py" or b"execute_from_command_line" in script.read_bytes()


def python_path(said: str) -> str:
    """$PYTHONPATH with the folders that it names written in full."""
    base = working_folder() or os.getcwd()  # noqa: PTH109
    folders = [str(Path(base) / part) for part in said.split(os.pathsep)] if said else []
    return os.pathsep.join(folders)


def _interpreter(folder: str) -> str:
    """This Python, by way of the same links as the folder if it lies in there."""
    real = os.path.realpath(folder)
    if sys.executable.startswith(f"{real}/"):
        return folder + sys.executable[len(real) :]
    return sys.executable


def project_name(folder: str) -> str:
    """A name for the project in a folder: the folder's, or that of the first above that says
    something."""
    for part in reversed(Path(folder).parts[1:]):
        name = re.sub(r"[^A-Za-z0-9_.]+", "-", part).strip("-.")
        if name and part.lower() not in _GENERIC:
            return name if name[0].isalpha() else f"project-{name}"
    return "project"


def systemd_version() -> int:
    """This machine's systemd; the oldest that we write for where there is none."""
    if systemctl := shutil.which("systemctl"):
        asked = subprocess.run(
            [systemctl, "--version"], capture_output=True, text=True, check=False
        )
        if found := re.match(r"systemd (\d+)", asked.stdout):
            return int(found[1])
    return OLDEST


def render_unit(
    deployment: Deployment, daemon: str, description: str = "", options: Sequence[str] = ()
) -> str:
    """The unit of one daemon, which is started with these options."""
    ours = deployment
    what = f"{ours.project}: {description or daemon}"
    command = [*ours.program, "run_daemon", daemon, *options]
    changes: dict[str, Sequence[str]] = {
        "Description": [f"Description={_specifiers(_line(what))}"],
        "PartOf": [f"PartOf={ours.target}"],
        "WantedBy": [f"WantedBy={ours.target}"],
        "Environment=PROJECT": [
            f"WorkingDirectory={_specifiers(_line(ours.folder))}",
            "# The folder as it is written, so that a reload follows a link that was moved.",
            f"Environment={_word(f'PWD={ours.folder}')}",
            f"Environment={_word(f'DJANGO_SETTINGS_MODULE={ours.settings}')}",
            *_python_path(ours.python_path),
        ],
        "ExecStart": [f"ExecStart={_command(command)}"],
        "EnvironmentFile": _environment_file(ours.environment_file),
        "RestartSec": _pause(ours.version),
        "StateDirectory": [f"StateDirectory={ours.project}"],
        "User": [f"User={_specifiers(ours.user or ours.account)}"],
    }
    if ours.version >= _RELOAD_IN_PROTOCOL:
        changes |= {"Type": ["Type=notify-reload"], "ExecReload": []}
    if ours.user:
        changes["DynamicUser"] = []
    used = [ours.folder, ours.program[0], sys.base_prefix, *ours.python_path.split(os.pathsep)]
    if any(_is_in_a_home(path) for path in used if path):
        changes["ProtectHome"] = ["ProtectHome=read-only"]
    if ours.user_manager:
        changes |= dict.fromkeys(_SYSTEM_ONLY, ())
    return _render("daemonkit@.service", _head(ours, ours.unit(daemon)), changes)


def render_target(deployment: Deployment) -> str:
    """The target of all the project's daemons."""
    wanted = "default.target" if deployment.user_manager else "multi-user.target"
    changes = {
        "Description": [f"Description={deployment.project}: all daemons"],
        "WantedBy": [f"WantedBy={wanted}"],
    }
    return _render("daemonkit.target", _head(deployment, deployment.target), changes)


def _head(deployment: Deployment, name: str) -> list[str]:
    return [
        deployment.mark,
        f"# as {name}.",
        "# `manage.py daemons install` writes it anew; what you change belongs into a drop-in, by",
        "# `systemctl edit`.",
    ]


def _environment_file(path: str) -> list[str]:
    if not path:
        return ["# No environment file: --environment-file names one."]
    return [f"EnvironmentFile={_specifiers(_line(path))}"]


def _python_path(said: str) -> list[str]:
    return [f"Environment={_word(f'PYTHONPATH={said}')}"] if said else []


def _pause(version: int) -> list[str]:
    growing = ["RestartSteps=6", "RestartMaxDelaySec=60"] if version >= _GROWING_PAUSE else []
    return ["RestartSec=5", *growing]


def _is_in_a_home(path: str) -> bool:
    return any(os.path.realpath(path).startswith(f"{home}/") for home in ("/home", "/root"))


# The template's text


def _render(template: str, head: Sequence[str], changes: Mapping[str, Sequence[str]]) -> str:
    """A template under another head, with the lines of some settings changed. A setting that has no
    lines left goes with its comment."""
    body = read_template(template).partition("\n\n")[2]
    lines = [*head, ""]
    for comment, line in _settings(body):
        key, _, value = line.partition("=")
        name = "Environment=PROJECT" if value.startswith("PROJECT=") else key
        changed = changes.get(name, [line])
        if name == "Environment=PROJECT" and name in changes:
            comment = []
        lines += [*comment, *changed] if changed else []
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines).rstrip() + "\n")


def _settings(body: str) -> Iterator[tuple[list[str], str]]:
    """Each line of a unit that is no comment, and the comment above it."""
    comment: list[str] = []
    for line in body.splitlines():
        if line.startswith("#"):
            comment.append(line)
        else:
            yield comment, line
            comment = []


def read_template(name: str) -> str:
    for folder in TEMPLATES:
        if (folder / name).is_file():
            return (folder / name).read_text()
    raise FileNotFoundError(f"{name} is neither in {TEMPLATES[0]} nor in {TEMPLATES[1]}")


# Quoting, as systemd.unit(5), systemd.syntax(7) and systemd.service(5) have it


def _line(text: str) -> str:
    return " ".join(text.split("\n"))


def _specifiers(text: str) -> str:
    return text.replace("%", "%%")


def _word(text: str) -> str:
    """One word of a line that systemd splits into words."""
    escaped = _specifiers(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    plain = re.fullmatch(r"[\w%@:+=,./\\-]+", escaped) and escaped == _specifiers(text)
    return escaped if plain else f'"{escaped}"'


def _command(words: Sequence[str]) -> str:
    """A command line: variables are expanded in its arguments, and not in the program's path."""
    program, *arguments = words
    return " ".join([_word(program), *(_word(each.replace("$", "$$")) for each in arguments)])
