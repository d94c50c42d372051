"""Tables of labels for spreadsheets and statistics programs: a row a label, a column a number."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.io.atomic import atomic_path
from medseg.report.labels import STATISTICS

CASE_COLUMNS = ("case", "status", "error")
"""What a table of many cases has before the columns of a label."""

_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the begin of a formula."""


def flat_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a label with one name each; what has no value is left out.

    Args:
        row: As in `report.json`.

    Returns:
        Nested names joined by `_`, parts of a list counted from 0.

    Examples:
        >>> flat_row({"name": "liver", "intensity": {"mean": 80.5}, "box": {"first": [4, 0]}})
        {'name': 'liver', 'intensity_mean': 80.5, 'box_first_0': 4, 'box_first_1': 0}
    """
    return dict(_flat("", row))


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        parts: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    else:
        if not (value is None or (isinstance(value, float) and not math.isfinite(value))):
            yield name, value
        return
    for key, part in parts:
        yield from _flat(f"{name}_{key}" if name else str(key), part)


def label_columns(rows: Iterable[Mapping[str, Any]], first: Sequence[str] = ()) -> list[str]:
    """Return the columns of a table.

    Args:
        rows: As `flat_row` returns them.
        first: Columns that stand before all others.

    Returns:
        `first`, those of `label_statistics`, and every other one that a row has.
    """
    columns = dict.fromkeys((*first, *STATISTICS))
    for row in rows:
        columns |= dict.fromkeys(row)
    return list(columns)


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV file atomically: UTF-8, commas, Unix line ends; no value leaves a cell empty.

    Text that a spreadsheet would run as a formula gets an apostrophe before it.

    Args:
        path: The file to write.
        columns: Its head.
        rows: As `flat_row` returns them; what is in no column is left out.

    Raises:
        OutputError: If the file cannot be written.
    """
    with (
        atomic_path(path) as part,
        part.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow([cell_text(row.get(column)) for column in columns])


def cell_text(value: Any) -> str:
    """Return what stands in a cell.

    Args:
        value: A number, a truth value, text, or None.

    Returns:
        Its text; text that looks like a formula with an apostrophe before it.

    Examples:
        >>> cell_text("=1+1"), cell_text(-1.5), cell_text(True), cell_text(None)
        ("'=1+1", '-1.5', 'true', '')
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if isinstance(value, str) and text.lstrip(" ").startswith(_FORMULA_SIGNS):
        return f"'{text}"
    return text


def write_label_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the labels of one case as a CSV file, a row a label.

    Args:
        path: The file to write.
        rows: As in `report.json`.

    Raises:
        OutputError: If the file cannot be written.
    """
    flat = [flat_row(row) for row in rows]
    write_table(path, label_columns(flat), flat)


def case_rows(line: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the rows of a case in the table of all cases.

    Args:
        line: Of the manifest that `segment` writes: `case`, `status`, `error`, `labels`.

    Yields:
        A row a label; one row alone of a case without labels.
    """
    error = line.get("error")
    cells = line["case"], line["status"], error and error["code"]
    head = dict(zip(CASE_COLUMNS, cells, strict=True))
    labels: list[dict[str, Any]] = line.get("labels") or [{}]
    for row in labels:
        yield head | flat_row(row)
