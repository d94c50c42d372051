"""Paths that say more than where a file lies: which series of a folder, how a DICOM SEG is read.

Lists of training data hold paths as text. What a path alone cannot say stands behind a `?`, so that
it goes through MONAI's datasets, other processes and caches unchanged. (A `#` would not: MONAI's
configs turn it into `::`.)
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

Table = tuple[tuple[str, tuple[int, ...]], ...]
"""Name of each structure, and the values of a label that belong to it."""

_QUERY = re.compile(r"(?:series|grid|segments)=[^?]*")


@dataclass(frozen=True)
class Locator:
    """Where an image or a label lies.

    Attributes:
        path: File or folder.
        series: Volume id or SeriesInstanceUID; of `grid` where there is one, else of `path`.
        grid: The series whose grid the DICOM SEG at `path` is put on.
        segments: Values of the structures of that SEG.
    """

    path: Path
    series: str = ""
    grid: Path | None = None
    segments: Table = ()

    def as_path(self) -> Path:
        """Return the path that `parse_locator` understands."""
        parts = []
        if self.segments:
            table = (f"{_quoted(name)}:{'+'.join(map(str, vs))}" for name, vs in self.segments)
            parts.append(f"segments={','.join(table)}")
        if self.grid is not None:
            parts.append(f"grid={_quoted(str(self.grid.absolute()))}")
        if self.series:
            parts.append(f"series={_quoted(self.series)}")
        if not parts:
            return self.path
        return self.path.with_name(f"{self.path.name}?{'&'.join(parts)}")


def parse_locator(path: str | Path) -> Locator:
    """Take a path apart.

    Args:
        path: A path, with or without a query. What exists under the whole name is that file.

    Returns:
        What it says.

    Examples:
        >>> place = parse_locator("study/seg.dcm?segments=liver:1+2,tumour:2&grid=%2Fct")
        >>> place.path.name, str(place.grid), place.segments
        ('seg.dcm', '/ct', (('liver', (1, 2)), ('tumour', (2,))))
        >>> parse_locator("scans/case#1.nii").path.name
        'case#1.nii'
    """
    head, mark, query = str(path).rpartition("?")
    if not mark or not _QUERY.match(query) or os.path.lexists(path):
        return Locator(Path(path))
    values = dict(part.split("=", 1) for part in query.split("&"))
    return Locator(
        Path(head),
        unquote(values.get("series", "")),
        Path(unquote(values["grid"])) if "grid" in values else None,
        _table(values.get("segments", "")),
    )


def _table(text: str) -> Table:
    entries = (entry.rpartition(":") for entry in text.split(",") if entry)
    return tuple((unquote(name), tuple(map(int, vs.split("+")))) for name, _, vs in entries)


def _quoted(text: str) -> str:
    return quote(text, safe="")


def plain_path(path: str | Path) -> Path:
    """Return the file or folder that a path names.

    Args:
        path: With or without a query.

    Returns:
        The path without.
    """
    return parse_locator(path).path


def plain_names(paths: Iterable[Path]) -> str:
    """Return the names of files for a message.

    Args:
        paths: With or without querys.

    Returns:
        Names joined by `and`.
    """
    return " and ".join(plain_path(path).name for path in paths)
