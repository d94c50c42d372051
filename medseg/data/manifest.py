"""Manifests: a table of cases in CSV, or a JSON document with declarations."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from medseg.data.dataset import (
    Channel,
    LabelledDataset,
    Structure,
    TrainingCase,
    unique_structures,
)
from medseg.data.dicom_dataset import naming_faults, structures_of, unknown_names
from medseg.data.msd import channels_of
from medseg.data.pictures import PICTURES, channels_of_cases, structures_in
from medseg.errors import InputError, MedsegError
from medseg.io.dicom import is_segmentation, read_segmentation_header
from medseg.io.files import file_stem, file_suffix, is_image_file
from medseg.io.locator import Locator, Table, parse_locator, plain_path
from medseg.io.masks import LARGEST_LABEL

MANIFEST_NAMES = ("manifest.csv", "manifest.json", "dataset.csv")
"""In this order: beside a table of the same stem, a JSON file declares what is in it."""
LABEL_COLUMNS = ("label", "mask", "seg", "segmentation")
CASE_COLUMNS = ("case", "case_id", "id", "subject")
SPLIT_COLUMNS = ("split", "fold")
_IMAGE_COLUMN = re.compile(r"^(image|img)(?:[_-]?(.+))?$")


def open_manifest(path: Path, values: Table = ()) -> LabelledDataset:
    """Open a manifest.

    CSV: a column `image`, or several that begin with `image_` (one a channel, named by the rest),
    `label`, and where wanted `case` and `split` (`training`, `validation`, `test`) or `fold` (a
    number). Commas, semicolons and tabs separate. What channels and labels are is declared in a
    JSON file of the same stem beside it; without one the labels' values are read from the files.
    An image may be a DICOM folder, with `?series=UID` behind it where it holds several series; a
    label may be a DICOM SEG, whose segments get the values of the labels of the same names.

    JSON: `{"name", "channels": [name or {"name", "modality"}], "labels": {name: value or
    [values]}, "regions": bool, "background": [values], "ignored": [values], "objects": true,
    "cases": [{"case",
    "image": path or [paths] or {channel: path}, "label", "split"}]}`. Labels of several values that
    share some are nested regions. Ignored values are left out of training and scores. With
    `objects` every value above 0 of a label is an object of the one class. Paths are relative to
    the manifest.

    Args:
        path: The manifest.
        values: Of the structures that SEG files name, where the manifest declares none.

    Returns:
        The dataset.

    Raises:
        InputError: If it is no manifest, names no labelled case, or an id twice (`bad-manifest`).
    """
    with _manifest_errors(path):
        document, rows = _read(path)
        return _dataset(path, document, rows, values)


def read_manifest_cases(path: Path) -> tuple[tuple[str, ...], tuple[TrainingCase, ...]]:
    """Read the cases of a manifest that need no label.

    Args:
        path: The manifest, as `open_manifest` has it; a column `label` may be missing.

    Returns:
        Names of the image columns, or of the channels where it declares them; and the cases in
        the order of the file.

    Raises:
        InputError: As `open_manifest`.
    """
    with _manifest_errors(path):
        document, rows = _read(path, labelled=False)
        cases, names = _cases(path, rows)
        channels = _channels(document.get("channels"), names, path)
        return tuple(channel.name for channel in channels)[: len(names)], cases


Row = dict[str, Any]


@contextmanager
def _manifest_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"manifest must list cases, got {type(error).__name__}: {error} in {path.name}."
        raise InputError(msg, code="bad-manifest") from error


def _read(path: Path, *, labelled: bool = True) -> tuple[Mapping[str, Any], list[Row]]:
    """Return what is declared, and the rows."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix.lower() == ".json":
        document = json.loads(text)
        return document, _json_rows(document)
    beside = path.with_suffix(".json")
    document = json.loads(beside.read_text("utf-8-sig")) if beside.is_file() else {}
    return document, _csv_rows(text, path, labelled=labelled)


def _dataset(
    path: Path, document: Mapping[str, Any], rows: Sequence[Row], values: Table
) -> LabelledDataset:
    root = path.parent
    cases, names = _cases(path, rows)
    labelled = tuple(sorted((c for c in cases if c.label), key=lambda case: case.case_id))
    _require(bool(labelled), path, "cases with a label", "none")
    structures = _structures(document.get("labels", {}))
    regions = bool(document.get("regions", _overlap(structures)))
    segs = [case.label for case in labelled if case.label and _is_seg(case.label)]
    dealt = bool(segs) and not structures and not values
    if not structures and segs:
        _require(len(segs) == len(labelled), path, "declared labels", "masks, and SEG by name")
        structures, regions = _structures_of_segs(segs, values, path)
    elif not structures:
        structures = list(structures_in([case.label for case in labelled if case.label]))
    table = tuple((structure.name, structure.values) for structure in structures)
    labelled = tuple(_with_seg(case, segs, table) for case in labelled)
    if document.get("objects"):
        labelled = _with_numbers(labelled, document, table, path)
    return LabelledDataset(
        root=root,
        kind="manifest",
        name=str(
            document.get("name")
            or (root.resolve().name if path.name in MANIFEST_NAMES else path.stem)
        ),
        channels=_channels_of(labelled, document.get("channels"), names, path),
        structures=unique_structures(structures, regions=regions),
        cases=labelled,
        unlabelled=tuple(case for case in cases if case.label is None),
        regions=regions,
        background=tuple(sorted({0, *(int(v) for v in document.get("background", []))})),
        values_dealt=dealt,
        ignored=tuple(sorted({int(v) for v in document.get("ignored", [])})),
    )


def _cases(path: Path, rows: Sequence[Row]) -> tuple[tuple[TrainingCase, ...], list[str]]:
    """Return cases with ids of their own and equal channels, and the names of these."""
    cases = tuple(_case(path.parent, row) for row in rows)
    _require(bool(cases), path, "at least one case", "none")
    counts = Counter(case.case_id for case in cases)
    doubled = sorted(case for case, count in counts.items() if count > 1)
    _require(not doubled, path, "ids of their own", f"{doubled[:5]} more than once")
    names = list(rows[0]["image"])
    uneven = [r["case"] or i for i, r in enumerate(rows, 1) if list(r["image"]) != names]
    _require(not uneven, path, f"the channels {names} in every case", f"others in {uneven[:5]}")
    return cases, names


def _is_seg(path: Path) -> bool:
    return not is_image_file(path) and path.is_file() and is_segmentation(path)


def _structures_of_segs(
    segs: Sequence[Path], values: Table, path: Path
) -> tuple[list[Structure], bool]:
    headers = [read_segmentation_header(seg) for seg in segs]
    faults = [*naming_faults(headers, path.parent), *unknown_names(headers, values, path.parent)]
    _require(not faults, path, "unambiguous segments", "; ".join(faults[:5]))
    structures, regions = structures_of(headers, values)
    return list(structures), regions


def _with_seg(case: TrainingCase, segs: Sequence[Path], table: Table) -> TrainingCase:
    """Let a SEG take the grid of the case's first image."""
    if case.label is None or case.label not in segs:
        return case
    image = parse_locator(case.images[0])
    return replace(case, label=Locator(case.label, image.series, image.path, table).as_path())


def _with_numbers(
    cases: Sequence[TrainingCase], document: Mapping[str, Any], table: Table, path: Path
) -> tuple[TrainingCase, ...]:
    """Let every value of a label be the number of an object."""
    others = [key for key in ("regions", "background", "ignored") if document.get(key)]
    rule = "`objects` true, with one label of the value 1"
    one = [values for _, values in table] == [(1,)]
    plain = all(parse_locator(case.label or "") == Locator(case.label or Path()) for case in cases)
    got = [*others, *([] if plain else ["labels with a query"]), *map(str, table)]
    _require(document["objects"] is True and one and plain and not others, path, rule, str(got))
    codes = (("0", 0), (f"1-{LARGEST_LABEL}", 1))
    return tuple(
        replace(case, label=Locator(case.label, kind="numbers", codes=codes).as_path())
        for case in cases
        if case.label is not None
    )


def _require(holds: bool, path: Path, rule: str, got: str) -> None:
    if not holds:
        msg = f"{path.name} must have {rule}, got {got}."
        raise InputError(msg, code="bad-manifest")


def _case(root: Path, row: Row) -> TrainingCase:
    images = tuple(root / value for value in row["image"].values())
    stem = file_stem(plain_path(images[0]))
    stem = re.sub(r"_\d{4}$", "", stem) if len(images) > 1 else stem
    label = root / row["label"] if row["label"] else None
    return TrainingCase(str(row["case"] or stem), images, label, row["split"])


def _json_rows(document: Mapping[str, Any]) -> list[Row]:
    rows = []
    if not isinstance(document, dict) or not isinstance(document.get("cases"), list):
        got = f"the keys {sorted(document)}" if isinstance(document, dict) else "no object"
        msg = (
            f'manifest must be JSON like {{"cases": [{{"image": ..., "label": ...}}]}}, got {got}.'
        )
        raise InputError(msg, code="bad-manifest")
    for entry in document["cases"]:
        image = entry["image"]
        if isinstance(image, str):
            image = {"image": image}
        elif isinstance(image, list):
            image = {f"image_{number}": value for number, value in enumerate(image)}
        split = entry.get("split", entry.get("fold"))
        rows.append(
            {
                "case": entry.get("case", ""),
                "image": image,
                "label": entry.get("label"),
                "split": _split("" if split is None else str(split)),
            }
        )
    return rows


def _csv_rows(text: str, path: Path, *, labelled: bool = True) -> list[Row]:
    lines = [line for line in text.splitlines() if line.strip(" ,;\t")]
    _require(bool(lines), path, "a header", "an empty file")
    separator = max(",;\t", key=lines[0].count)
    reader = csv.DictReader(io.StringIO("\n".join(lines)), delimiter=separator)
    columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
    images = {low: name for low, name in columns.items() if _IMAGE_COLUMN.match(low)}
    _require(bool(images), path, "a column `image`", f"the columns {list(columns)}")
    label, case, split = (
        next((columns[name] for name in names if name in columns), None)
        for names in (LABEL_COLUMNS, CASE_COLUMNS, SPLIT_COLUMNS)
    )
    missing = labelled and label is None
    _require(not missing, path, "a column `label`", f"the columns {list(columns)}")
    rows = []
    for number, row in enumerate(reader, start=2):
        found = {low: (row[name] or "").strip() for low, name in images.items()}
        empty = [low for low, value in found.items() if not value]
        _require(not empty, path, "an image in every row", f"none in row {number}")
        rows.append(
            {
                "case": (row[case] or "").strip() if case else "",
                "image": found,
                "label": (row[label] or "").strip() if label else "",
                "split": _split((row[split] or "").strip() if split else ""),
            }
        )
    return rows


def _split(text: str) -> str:
    known = {"train": "training", "val": "validation", "valid": "validation"}
    return known.get(text.lower(), text.lower())


def _channels_of(
    cases: Sequence[TrainingCase], declared: Any, names: Sequence[str], path: Path
) -> tuple[Channel, ...]:
    """Return what is declared, or named by the columns; one picture has those of its colours."""
    if not declared and len(names) == 1 and file_suffix(plain_path(cases[0].images[0])) in PICTURES:
        try:
            return channels_of_cases(cases)
        except MedsegError:  # the check of a dataset names every file that cannot be read
            return _channels(declared, names, path)
    return _channels(declared, names, path)


def _channels(declared: Any, names: Sequence[str], path: Path) -> tuple[Channel, ...]:
    if not declared:
        matches = [_IMAGE_COLUMN.match(name) for name in names]
        return channels_of(
            [(m[2] if m else None) or n for m, n in zip(matches, names, strict=True)]
        )
    channels = [
        channels_of([entry])[0]
        if isinstance(entry, str)
        else replace(channels_of([entry["name"]])[0], modality=entry.get("modality", ""))
        for entry in declared
    ]
    fits = len(names) in (1, len(channels))
    _require(fits, path, f"{len(channels)} image columns or one", f"{len(names)}")
    return tuple(channels)


def _structures(labels: Mapping[str, Any]) -> list[Structure]:
    structures = []
    for name, value in labels.items():
        values = tuple(int(v) for v in value) if isinstance(value, list) else (int(value),)
        if values != (0,) and name != "background":
            structures.append(Structure(str(name), values))
    return structures


def _overlap(structures: Sequence[Structure]) -> bool:
    values = [value for structure in structures for value in structure.values]
    return len(set(values)) != len(values)
