"""Files that name the classes of natural images, and perhaps their colours."""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medseg.data.dataset import Structure, unique_structures
from medseg.errors import InputError
from medseg.io.locator import Codes
from medseg.io.masks import LARGEST_LABEL
from medseg.volume import IGNORED

CLASS_FILES = (
    "classes.txt",
    "class_names.txt",
    "labels.txt",
    "label_colors.txt",
    "codes.txt",
    "classes.csv",
    "class_dict.csv",
    "label_colors.csv",
)
"""In this order: the first that is there names the classes."""

IGNORED_NAMES = ("void", "ignore", "_ignore_", "__ignore__", "ignored", "unlabeled", "unlabelled")
BACKGROUND_NAMES = ("background", "_background_", "__background__", "bg")
_UNNUMBERED = "__ignore__"
"""Labelme's first line: it takes no number."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ClassEntry:
    """One line of such a file.

    Attributes:
        name: Of the class.
        value: In label files.
        color: Red, green, blue; None where the file has no colours.
        counted: The value is the number of the line: the file states none.
    """

    name: str
    value: int
    color: Color | None = None
    counted: bool = field(default=False, compare=False)

    @property
    def is_ignored(self) -> bool:
        """Whether its name says that it is no class."""
        return self.name.casefold() in IGNORED_NAMES

    @property
    def is_background(self) -> bool:
        """Whether its name says that it is background."""
        return self.name.casefold() in BACKGROUND_NAMES


@dataclass(frozen=True)
class Classes:
    """What the values of labels mean.

    Attributes:
        background_name: Of class 0, which may be a thing like any other.
        background: Values of class 0.
        structures: The other classes.
        ignored: Values of what is left out.
        colors: Red, green, blue by the name of a class, class 0 included.
        codes: How the label files have to be read to give these values; empty: as they are.
    """

    background_name: str
    background: tuple[int, ...]
    structures: tuple[Structure, ...]
    ignored: tuple[int, ...] = ()
    colors: dict[str, Color] = field(default_factory=dict)
    codes: Codes = ()


def find_class_file(*folders: Path) -> Path | None:
    """Return the file that names the classes.

    Args:
        folders: Where it may lie, the nearest first.

    Returns:
        The first of `CLASS_FILES`; None where there is none.
    """
    paths = (folder / name for folder in folders for name in CLASS_FILES)
    return next((path for path in paths if path.is_file()), None)


def read_class_file(path: Path) -> tuple[ClassEntry, ...]:
    """Read the classes of a dataset.

    A line is a name, `index name`, `index name R G B`, `name R G B` or `R G B name`, separated by
    blanks, or by commas in CSV, which may have a header. Without an index lines count from 0;
    a first line `__ignore__`, as Labelme has it, does not count and has the value 255.

    Args:
        path: The file.

    Returns:
        Its entries in order.

    Raises:
        InputError: If it has no line, or lines of several kinds, a name, value or colour twice,
            or a number out of range (`bad-classes`).
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        msg = f"{path.name} must be a text file of classes, got {error}."
        raise InputError(msg, code="bad-classes") from error
    rows = [row for row in map(_cells, text.splitlines()) if row]
    if len(rows) > 1 and not _numbers(rows[0]) and all(map(_numbers, rows[1:])):
        rows = rows[1:]  # a header
    parsed = [_parsed(row) for row in rows]
    first_ignored = bool(parsed) and parsed[0][1] == _UNNUMBERED and parsed[0][0] is None
    counted = [n - first_ignored if n or not first_ignored else IGNORED for n in range(len(parsed))]
    entries = [
        ClassEntry(name, number if index is None else index, color, counted=index is None)
        for number, (index, name, color) in zip(counted, parsed, strict=True)
    ]
    _check(entries, [index is None for index, _, _ in parsed], path)
    return tuple(entries)


def _cells(line: str) -> list[str]:
    if not line.strip() or line.lstrip().startswith("#"):
        return []
    cells = next(csv.reader([line])) if "," in line else re.split(r"\s+", line.strip())
    return [cell.strip() for cell in cells if cell.strip()]


def _numbers(row: Sequence[str]) -> bool:
    return any(cell.isdigit() for cell in row)


def _parsed(row: Sequence[str]) -> tuple[int | None, str, Color | None]:
    """Take an index, a name and a colour from a line; the rest of the words is the name."""
    cells, index, color = list(row), None, None
    if len(cells) > 3 and all(cell.isdigit() for cell in cells[-3:]):
        red, green, blue = map(int, cells[-3:])
        cells, color = cells[:-3], (red, green, blue)
    elif len(cells) > 3 and all(cell.isdigit() for cell in cells[:3]):
        red, green, blue = map(int, cells[:3])
        cells, color = cells[3:], (red, green, blue)
    if len(cells) > 1 and cells[0].isdigit():
        index = int(cells[0])
        cells = cells[1:]
    return index, " ".join(cells), color


def _check(entries: Sequence[ClassEntry], unnumbered: Sequence[bool], path: Path) -> None:
    names, values = [e.name for e in entries], [e.value for e in entries]
    colors = [entry.color for entry in entries if entry.color is not None]
    wrong = ""
    if not entries:
        wrong = "none"
    elif len(set(unnumbered)) > 1:
        wrong = "an index in some lines alone"
    elif colors and len(colors) != len(entries):
        wrong = "a colour in some lines alone"
    elif twice := next((n for n in names if names.count(n) > 1), None):
        wrong = f"{twice!r} twice"
    elif len(set(values)) != len(values):
        wrong = "a value twice"
    elif len(set(colors)) != len(colors):
        wrong = "a colour of two classes"
    elif any(part > 255 for color in colors for part in color):
        wrong = "a colour with a number above 255"
    elif max(values) > LARGEST_LABEL:
        wrong = f"the value {max(values)}"
    if wrong:
        msg = f"{path.name} must name each class once, got {wrong}. A line is: index name R G B."
        raise InputError(msg, code="bad-classes")


def classes_of(entries: Sequence[ClassEntry], *, by_color: bool = False) -> Classes:
    """Decide what is background, what is a class and what is left out.

    Class 0 is the entry named background; without one it is what has the value 0, whatever it
    is called. Entries named void, unlabelled or alike are left out. Labels that give 0 to what is
    left out, and colours, are brought to values of their own: classes from 0, 255 left out.

    Args:
        entries: The classes.
        by_color: Label files hold the colours.

    Returns:
        The classes.

    Raises:
        InputError: If there is no class besides the background, or more than fit (`bad-dataset`).
    """
    ignored = [entry for entry in entries if entry.is_ignored]
    kept = [entry for entry in entries if not entry.is_ignored]
    zero = next((e for e in kept if e.is_background), None)
    zero = zero or next((e for e in kept if e.value == 0), None)
    recode = by_color or any(e.value == 0 for e in ignored) or (zero is not None and zero.value > 0)
    if zero is None and recode and kept:
        zero = kept[0]
    others = [entry for entry in kept if entry is not zero]
    values = {e.name: number if recode else e.value for number, e in enumerate(others, start=1)}
    if recode and ignored and len(others) >= IGNORED:
        msg = f"classes must be at most {IGNORED} where some are left out, got {len(others) + 1}."
        raise InputError(msg, code="bad-dataset")
    codes = {e.name: value for e, value in ((e, values.get(e.name, 0)) for e in kept)}
    codes |= {entry.name: IGNORED for entry in ignored}
    return Classes(
        background_name=zero.name if zero and not zero.is_background else "background",
        background=(0,),
        structures=unique_structures(
            [Structure(e.name, (values[e.name],)) for e in others], regions=False
        ),
        ignored=((IGNORED,) if ignored else ()) if recode else tuple(e.value for e in ignored),
        colors={
            "background" if e.is_background else e.name: e.color
            for e in kept
            if e.color is not None
        },
        codes=tuple((_code(e, by_color=by_color), codes[e.name]) for e in entries)
        if recode
        else (),
    )


def _code(entry: ClassEntry, *, by_color: bool) -> str:
    if not by_color:
        return str(entry.value)
    red, green, blue = entry.color or (0, 0, 0)
    return f"{red:02x}{green:02x}{blue:02x}"
