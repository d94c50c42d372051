"""The output folder: one folder a case, each file complete or absent.

Nothing written here names a patient, a date, an institution, a device or a UID.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from medseg.errors import OutputError, Problem, UsageError
from medseg.io.atomic import (
    PART_PREFIX,
    atomic_folder,
    output_errors,
    remove_left_parts,
    write_json,
)
from medseg.io.labels import LABEL_FILES, write_labels
from medseg.io.nifti import write_nifti_image, write_nifti_mask
from medseg.io.probabilities import NAMES, NIFTI, write_probabilities
from medseg.io.raster import write_palette_png
from medseg.io.sources import RESULT_RECORD, is_system_file
from medseg.objects import ObjectSegmentation
from medseg.report.labels import STATISTICS, label_statistics
from medseg.report.measures import intensity_unit, label_numbers
from medseg.report.overlay import write_overlay
from medseg.report.page import write_page
from medseg.report.plausibility import implausible
from medseg.report.preview import write_preview
from medseg.report.regions import listed_statistics, region_summary
from medseg.report.report import write_report
from medseg.report.tables import write_label_table
from medseg.volume import Segmentation, Volume
from medseg.workflows.case_files import are_whole, file_digests, utc_now
from medseg.workflows.dicom_outputs import DICOM_FILES, write_dicom
from medseg.workflows.label_outputs import FOLDERS, NRRD, write_label_outputs
from medseg.workflows.object_outputs import (
    OBJECT_FILES,
    object_summary,
    write_coco_of_classes,
    write_objects,
)

MASK = "segmentation.nii.gz"
IMAGE = "image.nii.gz"
PREVIEW = "preview.png"
REPORT = "report.json"
PAGE = "report.html"
PALETTE = "segmentation.png"
OVERLAY = "overlay.png"
LABEL_TABLE = "labels.csv"
RECORD = RESULT_RECORD
"""What a folder holds, for `--resume`."""

_RUN_KEYS = ("input", "source", "started")
"""What a record repeats of the run that made it."""

_UID = re.compile(r"(?<![\d.])[0-2](?:\.\d+){4,}")

FILES = frozenset(
    {
        *(MASK, IMAGE, PREVIEW, REPORT, PAGE, LABEL_TABLE, RECORD, PALETTE, OVERLAY, NRRD),
        *(NIFTI, NAMES),
        *LABEL_FILES,
        *OBJECT_FILES,
        *DICOM_FILES.values(),
    }
)
"""Every file that `write` writes: any other in a case's folder is the user's."""


def refuse_existing(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds results, unless the user said what becomes of them.

    Args:
        output: The output folder.
        resume: Results that are there are kept.
        overwrite: Results that are there are replaced.

    Raises:
        UsageError: If results are there and neither was asked for (code `output-exists`), or the
            output is a file (code `output-not-a-folder`).
    """
    if output.exists() and not output.is_dir():
        msg = f"output must be a folder, got the file {str(output)!r}. Choose another name."
        raise UsageError(msg, code="output-not-a-folder")
    if resume or overwrite:
        return
    names = (RECORD, MASK)
    results = sorted({file.parent.name for name in names for file in output.glob(f"*/{name}")})
    if results:
        msg = (
            f"output must hold no results, got {len(results)} in {output} ({results[0]} ...)."
            " Add --resume to keep them or --overwrite to replace them."
        )
        raise UsageError(msg, code="output-exists")


def refuse_foreign(folder: Path) -> None:
    """Refuse a case's folder that holds anything which was not written here: it would be lost.

    Args:
        folder: The case's folder, which `write` exchanges as a whole.

    Raises:
        OutputError: If it holds other files (code `output-exists`).
    """
    if not folder.exists():
        return
    foreign = sorted(_foreign(folder)) if folder.is_dir() else [folder.name]
    if foreign:
        msg = (
            f"{folder} must hold no files but results of medseg, got {len(foreign)} others"
            f" ({foreign[0]} ...). Choose another output folder, or move them away."
        )
        raise OutputError(msg, code="output-exists")


def _foreign(folder: Path) -> Iterator[str]:
    written = FILES | _in_folders(read_record(folder))
    for item in folder.iterdir():
        is_folder = item.name in FOLDERS and item.is_dir()
        for file in item.iterdir() if is_folder else [item]:
            name = file.relative_to(folder).as_posix()
            if not (name in written and file.is_file()) and not is_system_file(file):
                yield name


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of an earlier run.

    Args:
        folder: The case's folder.

    Returns:
        What `write` left there; empty where there is none.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_ours = isinstance(record, dict) and {"bundle", "requested", "outputs"} <= record.keys()
    return record if is_ours else {}


def _in_folders(record: dict[str, Any]) -> set[str]:
    """Return the files of the folders that a run wrote, relative to the case's folder."""
    folders = record.get("folders", {})
    return {f"{folder}/{name}" for folder, names in folders.items() for name in names}


def prepare(output: Path, *, older_than_s: float = 0.0, alone: bool = False) -> None:
    """Make the output folder and make sure that it can be written to, before any compute.

    What killed runs left half-written is removed.

    Args:
        output: The output folder.
        older_than_s: See `remove_left_parts`.
        alone: See `remove_left_parts`.

    Raises:
        OutputError: If the folder cannot be written to, or the disk is full.
    """
    with output_errors(output):
        output.mkdir(parents=True, exist_ok=True)
    require_writable(output)
    remove_left_parts(output, older_than_s=older_than_s, alone=alone)


def require_writable(output: Path) -> None:
    """Make sure that a folder can be written to.

    Args:
        output: The folder.

    Raises:
        OutputError: If it cannot be written to, or the disk is full.
    """
    probe = output / f"{PART_PREFIX}{os.getpid()}-write-test"
    try:
        with output_errors(output):
            probe.write_bytes(bytes(4096))
    finally:
        with suppress(OSError):
            probe.unlink()


def complete(
    folder: Path, outputs: tuple[str, ...], made_by: dict[str, Any]
) -> dict[str, Any] | None:
    """Return what a complete earlier run of a case left, for `--resume`.

    Args:
        folder: The case's folder.
        outputs: Kinds of output that are asked for.
        made_by: `bundle` (name, version, weights hash), `settings` and `input_sha256`.

    Returns:
        Outputs, labels and warnings; None when a file is missing or not the one that was written,
        or it was made of another image, with other weights or other settings.
    """
    record = read_record(folder)
    if not record or any(record.get(key) != value for key, value in made_by.items()):
        return None
    if not set(outputs) <= set(record.get("requested", [])):
        return None
    folders = FOLDERS.intersection(record["outputs"].values())
    if not all((folder / name).is_dir() for name in folders):
        return None
    if "files" not in record or not are_whole(folder, record["files"]):
        return None
    return {
        "outputs": {kind: str(folder / name) for kind, name in record["outputs"].items()},
        "labels": record["labels"],
        "warnings": record["warnings"],
    } | {key: record[key] for key in ("regions", "objects") if key in record}


def write(
    folder: Path,
    volume: Volume,
    segmentation: Segmentation,
    outputs: tuple[str, ...],
    context: dict[str, Any],
    *,
    numbered: bool = False,
) -> dict[str, Any]:
    """Write all outputs of a case; an earlier result stays until its successor is complete.

    The case's folder is exchanged as a whole: it never mixes the files of two runs.

    Args:
        folder: The case's folder.
        volume: The image that was segmented.
        segmentation: Its mask.
        outputs: Kinds of output.
        context: `bundle` (name, version, weights hash), `settings`, `input_sha256`, `input` (path
            relative to the input), `warnings` and `seconds` so far; `method` in place of a bundle;
            `seen`, what the bundle saw in training, where it says so.
        numbered: The labels are numbered regions: they are summed up as `regions`, and beyond 255
            no longer listed.

    Returns:
        Outputs (kind to path), label statistics, `regions` where they are numbered, `objects`
        where they are told apart, and the seconds spent.

    Raises:
        OutputError: If a file cannot be written.
    """
    started = time.perf_counter()
    context = {**context, "warnings": _without_uids(context["warnings"])}
    if numbered:
        numbers = label_statistics(segmentation)
        listed = [*map(dict, listed_statistics(numbers))]
        regions = {"regions": region_summary(numbers)}
    else:
        numbers = label_numbers(volume, segmentation)
        listed = [{key: row[key] for key in STATISTICS} for row in numbers]
        regions = {}
    if isinstance(segmentation, ObjectSegmentation):
        regions["objects"] = object_summary(segmentation)
    findings = implausible(volume, numbers, context.get("seen", {}))
    context["warnings"] += [Problem(one.code, one.message, "warning").as_json() for one in findings]
    context |= {
        "case": folder.name,
        "intensity_unit": intensity_unit(volume),
        "findings": [finding.as_json() for finding in findings],
        **regions,
    }
    with atomic_folder(folder) as part:
        files = _write_files(part, (volume, segmentation), outputs, numbers, context)
        record = {
            "schema": 1,
            "bundle": context["bundle"],
            "settings": context["settings"],
            "input_sha256": context["input_sha256"],
            "requested": sorted(outputs),
            "outputs": files,
            "labels": listed,
            "warnings": context["warnings"],
            **regions,
            "numbers": listed_statistics(numbers) if numbered else numbers,
            **{key: context[key] for key in _RUN_KEYS if key in context},
            "seconds": _rounded(context["seconds"] | {"write": time.perf_counter() - started}),
            "ended": utc_now(),
            "files": file_digests(part),
        }
        folders = sorted(FOLDERS.intersection(files.values()))
        if folders:
            record["folders"] = {n: sorted(f.name for f in (part / n).iterdir()) for n in folders}
        if "method" in context:
            record["method"] = context["method"]
        write_json(part / RECORD, record)
    return {
        "outputs": {kind: str(folder / name) for kind, name in files.items()},
        "labels": listed,
        "warnings": context["warnings"],
        **regions,
        "seconds": {"write": time.perf_counter() - started},
    }


def _write_files(
    part: Path,
    result: tuple[Volume, Segmentation],
    outputs: tuple[str, ...],
    statistics: list[dict[str, Any]],
    context: dict[str, Any],
) -> dict[str, str]:
    (volume, segmentation), case = result, context["case"]
    started = time.perf_counter()
    write_nifti_mask(segmentation, part / MASK)
    write_labels(segmentation.labels, part, numbered="regions" in context)
    files = {"nifti": MASK, "labels": "labels.json"}
    if "image" in outputs:
        write_nifti_image(volume, part / IMAGE)
        files["image"] = IMAGE
    if "probabilities" in outputs:
        files["probabilities"], files["probability_names"] = write_probabilities(segmentation, part)
    if isinstance(segmentation, ObjectSegmentation):
        files |= write_objects(part, segmentation, case)
    elif "coco" in outputs:
        files["coco"] = write_coco_of_classes(part, segmentation, case)
    dicom, problems = write_dicom(part, result, outputs, statistics, context)
    files |= dicom
    context["warnings"] += _without_uids([problem.as_json() for problem in problems])
    files |= write_label_outputs(part, segmentation, outputs, context.get("mesh"))
    if "png" in outputs:
        write_palette_png(segmentation.array, segmentation.labels, part / PALETTE)
        files["png"] = PALETTE
    if "overlay" in outputs:
        write_overlay(volume, segmentation, part / OVERLAY)
        files["overlay"] = OVERLAY
    if "preview" in outputs:
        write_preview(volume, segmentation, part / PREVIEW, statistics=statistics)
        files["preview"] = PREVIEW
    seconds = {**context["seconds"], "write": time.perf_counter() - started}
    files |= _write_report(part, result, outputs, statistics, {**context, "seconds": seconds})
    return files


def _write_report(
    part: Path,
    result: tuple[Volume, Segmentation],
    outputs: tuple[str, ...],
    statistics: list[dict[str, Any]],
    context: dict[str, Any],
) -> dict[str, str]:
    if not {"report", "numbers"}.intersection(outputs):
        return {}
    said: dict[str, Any] = {"statistics": statistics, "context": context}
    write_report(part / REPORT, *result, **said)
    listed = statistics if "regions" not in context else listed_statistics(statistics)
    write_label_table(part / LABEL_TABLE, listed)
    files = {"report": REPORT, "table": LABEL_TABLE}
    if "numbers" in outputs:
        files["numbers"] = REPORT
    if "report" in outputs:
        write_page(part / PAGE, *result, **said)
        files["html"] = PAGE
    return files


def _rounded(seconds: dict[str, float]) -> dict[str, float]:
    return {stage: round(float(value), 3) for stage, value in seconds.items()}


def without_uids(text: str) -> str:
    """Take out UIDs: exports often name files by them, and messages name files.

    Args:
        text: Any.

    Returns:
        The text with `(UID)` in place of each.
    """
    return _UID.sub("(UID)", text)


def _without_uids(warnings: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{**w, "message": without_uids(w["message"])} for w in warnings]
