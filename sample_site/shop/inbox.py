"""The folder into which price files are put.

A writer uses another name, or one that starts with a dot, and renames the file to *.csv when it is
complete. So a *.csv file is always complete.
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
    """Import the first waiting file by name. Returns the result, "" if no file waits."""
    for path in waiting(inbox):
        # If the file is gone, another process has moved it: try the next one.
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
    """Return a path that does not overwrite an earlier file with this name and other content."""
    folder.mkdir(exist_ok=True)
    place = folder / name
    if not place.exists() or place.read_bytes() == content:
        return place
    return place.with_stem(f"{place.stem}.{sha256(content).hexdigest()[:12]}")


def move(path: Path, file: BinaryIO, place: Path) -> None:
    """Move the file, unless another process has moved it or a new file has the same name."""
    with suppress(FileNotFoundError):
        if os.path.samestat(path.stat(), os.fstat(file.fileno())):
            path.replace(place)
