"""The folder that price files are dropped into.

A writer gives its file another name, or one that begins with a dot, and renames it to *.csv when it
is complete: what is called *.csv is never half a file.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from shop.price_files import BadPriceFile
from shop.prices import import_prices


def import_next(inbox: Path) -> str:
    """Import the first file that waits, by name, and say what came of it; "" if none waits."""
    for path in waiting(inbox):
        # A file that is gone was moved by another process: the next one, then.
        with suppress(FileNotFoundError), path.open("rb") as file:
            return import_and_move(path, file)
    return ""


def waiting(inbox: Path) -> Iterator[Path]:
    inbox.mkdir(exist_ok=True)
    for path in sorted(inbox.glob("*.csv")):
        if path.is_file() and not path.name.startswith("."):
            yield path


def import_and_move(path: Path, file: BinaryIO) -> str:
    name = path.name.encode(errors="replace").decode()  # a name may be any bytes
    content = file.read()
    try:
        count = import_prices(name, content)
    except BadPriceFile as error:
        aside = place_in(path.parent / "bad", path.name, content)
        aside.with_name(f"{aside.name}.reason").write_text(f"{error}\n", encoding="utf-8")
        move(path, file, aside)
        return f"{name}: moved to bad/, {error}"
    move(path, file, place_in(path.parent / "done", path.name, content))
    return f"{name}: was imported before" if count is None else f"{name}: {count} prices"


def place_in(folder: Path, name: str, content: bytes) -> Path:
    """A path that does not take the place of an earlier file of that name with other content."""
    folder.mkdir(exist_ok=True)
    place = folder / name
    if not place.exists() or place.read_bytes() == content:
        return place
    return place.with_stem(f"{place.stem}.{sha256(content).hexdigest()[:12]}")


def move(path: Path, file: BinaryIO, place: Path) -> None:
    """Unless another process has moved it, or a new file has come under the same name."""
    with suppress(FileNotFoundError):
        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
            path.replace(place)
