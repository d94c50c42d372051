"""Paths that say more than where a file lies: which series of a folder, how a label is read.

Lists of training data hold paths as text. What a path alone cannot say stands behind a `?`, so that
it goes through MONAI's datasets, other processes and caches unchanged. (A `#` would not: MONAI's
configs turn it into `::`.)
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args
from urllib.parse import quote, unquote

from medseg.errors import UsageError

Table = tuple[tuple[str, tuple[int, ...]], ...]
"""Name of each structure, and the values of a label that belong to it."""

Codes = tuple[tuple[str, int], ...]
"""What stands for a class in a file, and the value that it gets."""

Kind = Literal[
    "", "values", "colors", "objects", "numbers", "voc-objects", "labelme", "labelme-image", "coco"
]  # fmt: skip

_QUERY = re.compile(r"(?:series|grid|segments|kind)=[^?]*")


@dataclass(frozen=True)
class Locator:
    """Where an image or a label lies.

    Attributes:
        path: File or folder.
        series: Volume id or SeriesInstanceUID; of `grid` where there is one, else of `path`.
        grid: The series whose grid the DICOM SEG at `path` is put on.
        segments: Values of the structures of that SEG.
        kind: How a label of a natural image is read. `values`: of an image file, by the ranges
            in `codes` (`0`, `1-65535`); `colors`: of a colour image, by the hexadecimal colours
            in `codes`; `objects`: a folder with a mask of each object; `numbers`: of an image
            file with a number for each object, by the ranges in `codes`; `voc-objects`: of an
            image file of classes, by the ranges in `codes`, and one of object numbers;
            `labelme`: a JSON file, by the names in `codes`; `coco`: a JSON file, by the category
            ids in `codes`. `labelme-image` is the image within the JSON file. Empty: the file is
            the label.
        entry: Id of the image in a COCO file; of `voc-objects` the file of object numbers,
            relative to the folder of `path`.
        codes: Values of what stands for the classes.
    """

    path: Path
    series: str = ""
    grid: Path | None = None
    segments: Table = ()
    kind: Kind = ""
    entry: str = ""
    codes: Codes = ()

    def as_path(self) -> Path:
        """Return the path that `parse_locator` understands."""
        parts = []
        if self.kind:
            parts.append(f"kind={self.kind}")
        if self.entry:
            parts.append(f"entry={_quoted(self.entry)}")
        if self.codes:
            codes = ",".join(f"{_quoted(code)}:{value}" for code, value in self.codes)
            parts.append(f"codes={codes}")
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
        _kind(values.get("kind", "")),
        unquote(values.get("entry", "")),
        _codes(values.get("codes", "")),
    )


def _kind(text: str) -> Kind:
    found: Kind | None = next((kind for kind in get_args(Kind) if kind == text), None)
    if found is None:
        msg = f"kind must be one of {', '.join(filter(None, get_args(Kind)))}, got {text!r}."
        raise UsageError(msg)
    return found


def _codes(text: str) -> Codes:
    entries = (entry.rpartition(":") for entry in text.split(",") if entry)
    return tuple((unquote(code), int(value)) for code, _, value in entries)


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
