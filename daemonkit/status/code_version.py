"""The version of the project's code: DAEMONKIT["version"], or the commit of its Git repository."""

from __future__ import annotations

from pathlib import Path

from daemonkit import conf

LENGTH = 100
"""Characters of a version that are kept."""


def code_version(folder: Path | None = None) -> str:
    """The version of the code in this folder, by default the current one; "" if it is unknown."""
    given = conf.version()
    if given is not None:
        return given[:LENGTH]
    try:
        return _commit((folder or Path.cwd()).resolve())
    except (OSError, ValueError):
        return ""


def _commit(folder: Path) -> str:
    """The first twelve digits of the commit, read without running git."""
    for place in (folder, *folder.parents):
        repository = place / ".git"
        if repository.is_file():  # of a worktree or a submodule
            repository = place / repository.read_text().partition("gitdir:")[2].strip()
        head = repository / "HEAD"
        if head.is_file():
            return _resolved(repository, head.read_text().strip())[:12]
    return ""


def _resolved(repository: Path, head: str) -> str:
    if not head.startswith("ref: "):
        return head
    name, common = head.removeprefix("ref: "), repository / "commondir"
    folders = [repository]
    if common.is_file():
        folders.append(repository / common.read_text().strip())
    for folder in folders:
        if (folder / name).is_file():
            return (folder / name).read_text().strip()
        if (folder / "packed-refs").is_file():
            for line in (folder / "packed-refs").read_text().splitlines():
                if line.endswith(f" {name}"):
                    return line.partition(" ")[0]
    return ""
