"""A list as the input of `segment`: a text file with the path of a study a line."""

import os
from pathlib import Path

from medseg.errors import InputError
from medseg.io.files import file_stem, unique_ids
from medseg.io.locator import parse_locator
from medseg.workflows.entries import Entry

LIST_SUFFIX = ".txt"


def is_list(path: Path) -> bool:
    """Say whether an input is a list of studies, by its name.

    Args:
        path: What the user named.

    Returns:
        Whether it is a file of a list's suffix.
    """
    return path.suffix.lower() == LIST_SUFFIX and path.is_file()


def read_list(path: Path) -> tuple[Entry, ...]:
    """Read a list; whether the studies are there is seen when their turn comes.

    Args:
        path: A text file, UTF-8: a path a line, absolute or relative to the folder of the list,
            with `?series=UID` behind it where one series is meant. Empty lines and those that
            begin with `#` are passed over, and so is a path that was there before.

    Returns:
        An entry a path, in the order of the list. Names that are equal begin with their folders.

    Raises:
        InputError: If it cannot be read or is no text (`bad-list`), or names nothing
            (`empty-list`).
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        msg = f"list must be readable, got {path.name}: {error.strerror}."
        raise InputError(msg, code="bad-list") from error
    if "\0" in text:
        msg = f"list must be a text file with a path a line, got {path.name}, which is binary."
        raise InputError(msg, code="bad-list")
    lines = [line.strip() for line in text.splitlines()]
    places = dict.fromkeys(path.parent / line for line in lines if line and line[0] != "#")
    if not places:
        msg = f"list must name at least one study, got {path.name} without any. Add a path a line."
        raise InputError(msg, code="empty-list")
    found = [parse_locator(place) for place in places]
    full = [_plain(place.path) for place in found]
    shown = _relative(full, _plain(path.parent))
    stems = [(file_stem(place), name) for place, name in zip(full, shown, strict=True)]
    ids = unique_ids(stems) if len({*full}) == len(full) else [stem for stem, _ in stems]
    return tuple(
        Entry(place.path, name.as_posix(), case, place.series)
        for place, name, case in zip(found, shown, ids, strict=True)
    )


def _plain(path: Path) -> Path:
    """Return an absolute path without `..`; the name of a link stays."""
    return Path(os.path.normpath(path.absolute()))


def _relative(places: list[Path], folder: Path) -> list[Path]:
    """Return paths relative to the list, or to the deepest folder that holds those elsewhere."""
    elsewhere = [place.parent for place in places if not place.is_relative_to(folder)]
    root = Path(os.path.commonpath(elsewhere)) if elsewhere else folder
    return [place.relative_to(folder if place.is_relative_to(folder) else root) for place in places]
