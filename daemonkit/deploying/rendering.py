"""Render a project's units from the templates.

Paths are escaped, because they may contain spaces, quotes, "%" and "$".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from daemonkit.deploying.deployment import Deployment
from daemonkit.deploying.quoting import escape_specifiers, one_line, quoted_command, quoted_word
from daemonkit.deploying.template import render

_NOTIFY_RELOAD, _RESTART_STEPS = 253, 254  # the versions of systemd that introduced these

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
"""Settings that a user's own manager is not allowed to use, or that do not exist for it."""


def render_unit(
    deployment: Deployment, daemon: str, description: str = "", options: Sequence[str] = ()
) -> str:
    """Return the unit of one daemon, which starts with these options."""
    title = f"{deployment.project}: {description or daemon}"
    command = [*deployment.program, "run_daemon", daemon, *options]
    changes: dict[str, Sequence[str]] = {
        "Description": [f"Description={escape_specifiers(one_line(title))}"],
        "PartOf": [f"PartOf={deployment.target}"],
        "ReloadPropagatedFrom": [f"ReloadPropagatedFrom={deployment.target}"],
        "WantedBy": [f"WantedBy={deployment.target}"],
        "Environment=PROJECT": [
            f"WorkingDirectory={escape_specifiers(one_line(deployment.folder))}",
            "# The folder as it was given, so that a reload follows a link that was changed.",
            f"Environment={quoted_word(f'PWD={deployment.folder}')}",
            f"Environment={quoted_word(f'DJANGO_SETTINGS_MODULE={deployment.settings}')}",
            *_python_path(deployment.python_path),
        ],
        "ExecStart": [f"ExecStart={quoted_command(command)}"],
        "EnvironmentFile": _environment_file(deployment.environment_file),
        "RestartSec": _pause(deployment.version),
        "StateDirectory": [f"StateDirectory={deployment.project}"],
        "User": [f"User={escape_specifiers(deployment.user or deployment.account)}"],
    }
    if deployment.version >= _NOTIFY_RELOAD:
        changes |= {"Type": ["Type=notify-reload"], "ExecReload": []}
    if deployment.user:
        changes["DynamicUser"] = []
    used = [
        deployment.folder,
        deployment.program[0],
        sys.base_prefix,
        *deployment.python_path.split(os.pathsep),
    ]
    if any(_is_in_a_home(path) for path in used if path):
        changes["ProtectHome"] = ["ProtectHome=read-only"]
    if deployment.user_manager:
        changes |= dict.fromkeys(_SYSTEM_ONLY, ())
    return render("daemonkit@.service", _head(deployment, deployment.unit(daemon)), changes)


def render_target(deployment: Deployment) -> str:
    """Return the target that starts and stops all daemons of the project."""
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
        "# `manage.py daemons install` overwrites this file. Put your changes into a drop-in, with",
        "# `systemctl edit`.",
    ]


def _environment_file(path: str) -> list[str]:
    if not path:
        return ["# No environment file: --environment-file names one."]
    return [f"EnvironmentFile={escape_specifiers(one_line(path))}"]


def _python_path(value: str) -> list[str]:
    return [f"Environment={quoted_word(f'PYTHONPATH={value}')}"] if value else []


def _pause(version: int) -> list[str]:
    growing = ["RestartSteps=6", "RestartMaxDelaySec=60"] if version >= _RESTART_STEPS else []
    return ["RestartSec=5", *growing]


def _is_in_a_home(path: str) -> bool:
    return any(os.path.realpath(path).startswith(f"{home}/") for home in ("/home", "/root"))
