"""The options of the actions that deploy daemons, checked, and the units that they ask for."""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from daemonkit.deploying.closed_folders import closed_folder
from daemonkit.deploying.deployment import Deployment
from daemonkit.deploying.installing import Installation
from daemonkit.deploying.project import project_folder, project_name, python_path
from daemonkit.deploying.rendering import render_target, render_unit
from daemonkit.deploying.systemctl import systemd_version
from daemonkit.discovery import find_daemon
from daemonkit.settings.attributes import has_jobs
from daemonkit.settings.parsing import usage
from daemonkit.settings.settings import Settings


def add_names(parser: Any) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help="put their options after --")


def add_project_options(parser: Any) -> None:
    """Add the options that name the project and choose the systemd manager."""
    parser.add_argument(
        "--project", help="the first part of the units' names (default: the folder's name)"
    )
    parser.add_argument("--user", action="store_true", help="use the user's own systemd")


def add_deployment_options(parser: Any) -> None:
    """Add the options that say how the daemons of a project run."""
    add_project_options(parser)
    parser.add_argument("--as", dest="account", metavar="USER", help="run as this existing user")
    parser.add_argument(
        "--environment-file", metavar="PATH", help="default: /etc/PROJECT.env if it exists"
    )


def deployment_of(options: dict[str, Any]) -> Deployment:
    """Return the deployment that the options describe. Raises ``CommandError`` (exit code 2)."""
    try:
        folder, program = project_folder(sys.argv[0], _module())
    except ValueError as error:
        raise usage(str(error)) from error
    project = options["project"] or project_name(folder)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", project):
        raise usage(f"--project takes letters, digits, '-', '_' and '.', not {project!r}")
    user = options.get("account") or ""
    if user and options["user"]:
        raise usage("use --user or --as USER, not both")
    try:
        pwd.getpwnam(user or "root")
    except KeyError:
        raise usage(f"there is no user {user!r}") from None
    usual = Path(f"/etc/{project}.env")
    file = options.get("environment_file") or (usual if usual.is_file() else "")
    return Deployment(
        project=project,
        folder=folder,
        program=program,
        settings=settings.SETTINGS_MODULE,
        user=user,
        environment_file=str(Path(file).absolute()) if file else "",
        python_path=python_path(os.environ.get("PYTHONPATH", "")),
        user_manager=options["user"],
        version=systemd_version(),
    )


def unit_of(deployment: Deployment, name: str, options: Sequence[str] = ()) -> str:
    """Return the unit of a daemon, after checking that the daemon starts with these options.

    Arguments after another ``--`` are for a command that is not a daemon. Raises ``CommandError``
    (exit code 2).
    """
    own = list(options)
    cut = own.index("--") if "--" in own else len(own)
    daemon = find_daemon(name, own[cut + 1 :])
    try:
        parsed = daemon.create_parser("manage.py", name).parse_args(own[:cut])
    except CommandError as error:
        raise usage(f"{name}: {str(error).removeprefix('Error: ')}") from error
    has_work = daemon.schedule is not None or daemon.has_serve or has_jobs(type(daemon))
    if not own and not has_work:
        raise usage(
            f"{name} {daemon.missing_schedule}; put a daemon's options after --, as in "
            f"`daemons install {name} -- --every 1h`"
        )
    Settings(daemon, vars(parsed))
    return render_unit(deployment, name, daemon.help, own)


def install(
    deployment: Deployment,
    names: Sequence[str],
    options: Sequence[str],
    say: Callable[[str], object],
    *,
    dry_run: bool,
) -> None:
    """Install these daemons as units that run now and after each boot.

    Calls ``say`` with each thing that was done, or with ``dry_run`` would be done. Raises
    ``CommandError`` with exit code 2 for bad options, and 1 for what this machine does not allow.
    """
    units = {deployment.unit(name): unit_of(deployment, name, options) for name in names}
    units[deployment.target] = render_target(deployment)
    if closed := closed_folder(deployment):
        raise CommandError(str(closed))
    if (file := deployment.environment_file) and not Path(file).is_file():
        raise usage(f"there is no environment file {file}")
    installation = Installation(deployment, units, say)
    if dry_run:
        installation.rehearse()
    else:
        installation.install()


def _module() -> str:
    """Return the module that was started by ``python -m``; "" if a script was started."""
    spec = sys.modules["__main__"].__spec__
    return spec.name.removesuffix(".__main__") if spec is not None else ""
