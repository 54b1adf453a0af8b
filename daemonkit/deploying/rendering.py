"""A project's units, rendered from the templates.

What systemd expands is escaped: a path may hold spaces, quotes, "%" and "$".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from daemonkit.deploying.deployment import Deployment
from daemonkit.deploying.quoting import escape_specifiers, one_line, quoted_command, quoted_word
from daemonkit.deploying.template import render

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


def render_unit(
    deployment: Deployment, daemon: str, description: str = "", options: Sequence[str] = ()
) -> str:
    """The unit of one daemon, which is started with these options."""
    ours = deployment
    what = f"{ours.project}: {description or daemon}"
    command = [*ours.program, "run_daemon", daemon, *options]
    changes: dict[str, Sequence[str]] = {
        "Description": [f"Description={escape_specifiers(one_line(what))}"],
        "PartOf": [f"PartOf={ours.target}"],
        "ReloadPropagatedFrom": [f"ReloadPropagatedFrom={ours.target}"],
        "WantedBy": [f"WantedBy={ours.target}"],
        "Environment=PROJECT": [
            f"WorkingDirectory={escape_specifiers(one_line(ours.folder))}",
            "# The folder as it is written, so that a reload follows a link that was moved.",
            f"Environment={quoted_word(f'PWD={ours.folder}')}",
            f"Environment={quoted_word(f'DJANGO_SETTINGS_MODULE={ours.settings}')}",
            *_python_path(ours.python_path),
        ],
        "ExecStart": [f"ExecStart={quoted_command(command)}"],
        "EnvironmentFile": _environment_file(ours.environment_file),
        "RestartSec": _pause(ours.version),
        "StateDirectory": [f"StateDirectory={ours.project}"],
        "User": [f"User={escape_specifiers(ours.user or ours.account)}"],
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
    return render("daemonkit@.service", _head(ours, ours.unit(daemon)), changes)


def render_target(deployment: Deployment) -> str:
    """The target of all the project's daemons."""
    wanted = "default.target" if deployment.user_manager else "multi-user.target"
    changes = {
        "Description": [f"Description={deployment.project}: all daemons"],
        "WantedBy": [f"WantedBy={wanted}"],
    }
    return render("daemonkit.target", _head(deployment, deployment.target), changes)


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
    return [f"EnvironmentFile={escape_specifiers(one_line(path))}"]


def _python_path(said: str) -> list[str]:
    return [f"Environment={quoted_word(f'PYTHONPATH={said}')}"] if said else []


def _pause(version: int) -> list[str]:
    growing = ["RestartSteps=6", "RestartMaxDelaySec=60"] if version >= _GROWING_PAUSE else []
    return ["RestartSec=5", *growing]


def _is_in_a_home(path: str) -> bool:
    return any(os.path.realpath(path).startswith(f"{home}/") for home in ("/home", "/root"))
