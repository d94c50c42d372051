"""Label names and colours beside a mask: JSON, ITK-SNAP and 3D Slicer."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.errors import InputError
from medseg.io.atomic import write_json, write_text
from medseg.volume import Label

JSON_NAME = "labels.json"
ITKSNAP_NAME = "labels_itksnap.txt"
SLICER_NAME = "labels_slicer.ctbl"
LABEL_FILES = (JSON_NAME, ITKSNAP_NAME, SLICER_NAME)

MOST_LISTED = 255
"""Numbered regions beyond this are counted in `labels.json` and not listed."""

_ITKSNAP_RULE = "#" * 48
_ITKSNAP_HEAD = (
    _ITKSNAP_RULE,
    "# ITK-SnAP Label Description File",
    "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL",
    "# index, red, green, blue (0 to 255), opacity (0 to 1), visible, mesh visible, name",
    _ITKSNAP_RULE,
)


def write_labels(
    labels: Sequence[Label], folder: Path, *, numbered: bool = False
) -> tuple[Path, Path, Path]:
    """Write what the values of a mask mean, for programs and for viewers.

    Args:
        labels: The structures, background left out.
        folder: Where the mask lies.
        numbered: They are regions whose name says no more than their number: above 255
            `labels.json` says how many there are and lists none; the viewers' files list all.

    Returns:
        `labels.json`, `labels_itksnap.txt` and `labels_slicer.ctbl`.

    Raises:
        OutputError: If writing fails.
    """
    paths = (folder / JSON_NAME, folder / ITKSNAP_NAME, folder / SLICER_NAME)
    unlisted = numbered and len(labels) > MOST_LISTED
    write_json(paths[0], _regions_json(labels) if unlisted else labels_json(labels))
    write_text(paths[1], itksnap_text(labels))
    write_text(paths[2], slicer_text(labels))
    return paths


def labels_json(labels: Sequence[Label]) -> dict[str, Any]:
    """Return the JSON document of labels.

    Args:
        labels: The structures.

    Returns:
        `{"schema": 1, "labels": [{"index", "name", "color"}]}`; a region that others lie within
        has `values` too, all those inside it.
    """
    entries = [
        {"index": label.index, "name": label.name, "color": list(label.color)}
        | ({"values": list(label.values)} if label.values else {})
        for label in labels
    ]
    return {"schema": 1, "labels": entries}


def _regions_json(labels: Sequence[Label]) -> dict[str, Any]:
    last = max(label.index for label in labels)
    note = f"{len(labels)} numbered regions without names, with values from 1 to {last}"
    return {"schema": 1, "labels": [], "regions": len(labels), "note": note}


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read labels back.

    Args:
        path: `labels.json`, or the folder that holds it.

    Returns:
        Labels in the order of the file.

    Raises:
        InputError: If the file is missing or does not fit its schema.
    """
    path = path / JSON_NAME if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        labels = tuple(_label(entry) for entry in document["labels"])
    except FileNotFoundError as error:
        msg = f"path must be an existing labels file, got {str(path)!r}."
        raise InputError(msg, code="not-found") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"path must be a labels file of schema 1, got {path.name}: {error}."
        raise InputError(msg) from error
    if len({label.index for label in labels}) != len(labels):
        msg = f"labels must have different indices, got {path.name} where one occurs twice."
        raise InputError(msg)
    return labels


def itksnap_text(labels: Sequence[Label]) -> str:
    """Return an ITK-SNAP label description file.

    Args:
        labels: The structures.

    Returns:
        Text; label 0 is ITK-SNAP's clear label. Double quotes in names become single ones.
    """
    rows = [(0, (0, 0, 0), 0, "Clear Label")]
    rows += [(label.index, label.color, 1, _one_line(label.name)) for label in labels]
    lines = []
    for index, (red, green, blue), shown, name in rows:
        quoted = name.replace('"', "'")
        colors = f"{index:5d} {red:5d} {green:4d} {blue:4d} {shown:8d}"
        lines.append(f'{colors} {shown:2d} {shown:2d}    "{quoted}"')
    return "\n".join((*_ITKSNAP_HEAD, *lines)) + "\n"


def slicer_text(labels: Sequence[Label]) -> str:
    """Return a 3D Slicer colour table.

    Slicer splits lines at blanks and writes spaces of names as underscores; so does this.

    Args:
        labels: The structures.

    Returns:
        Text: index, name, red, green, blue, opacity (0 to 255); label 0 is transparent.
    """
    lines = [f"# {len(labels) + 1} values", "0 background 0 0 0 0"]
    for label in labels:
        name = "_".join(label.name.split()) or f"label_{label.index}"
        lines.append(f"{label.index} {name} {' '.join(map(str, label.color))} 255")
    return "\n".join(lines) + "\n"


def _one_line(name: str) -> str:
    return " ".join(name.split())


def _label(entry: dict[str, Any]) -> Label:
    red, green, blue = (int(value) for value in entry["color"])
    index = entry["index"]
    if not isinstance(index, int) or not 1 <= index <= 65535:
        msg = f"index must be a whole number from 1 to 65535, got {index!r}"
        raise ValueError(msg)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        msg = f"color must be three numbers from 0 to 255, got {entry['color']!r}"
        raise ValueError(msg)
    values = tuple(int(value) for value in entry.get("values", ()))
    if values and index not in values:
        msg = f"values must hold the index {index}, got {list(values)}"
        raise ValueError(msg)
    return Label(index, str(entry["name"]), (red, green, blue), values)
