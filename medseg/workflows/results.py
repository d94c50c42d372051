"""The output folder: one folder a case, each file complete or absent.

Nothing written here names a patient, a date, an institution, a device or a UID.
"""

import json
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from medseg.errors import OutputError, UsageError
from medseg.io.atomic import atomic_folder, output_errors, remove_left_parts, write_json
from medseg.io.labels import LABEL_FILES, write_labels
from medseg.io.nifti import write_nifti_mask
from medseg.io.raster import write_palette_png
from medseg.io.sources import RESULT_RECORD, is_system_file
from medseg.objects import ObjectSegmentation
from medseg.report.labels import label_statistics
from medseg.report.overlay import write_overlay
from medseg.report.preview import write_preview
from medseg.report.regions import listed_statistics, region_summary
from medseg.report.report import write_report
from medseg.volume import Segmentation, Volume
from medseg.workflows.dicom_outputs import DICOM_FILES, write_dicom
from medseg.workflows.object_outputs import (
    OBJECT_FILES,
    object_summary,
    write_coco_of_classes,
    write_objects,
)

MASK = "segmentation.nii.gz"
PREVIEW = "preview.png"
REPORT = "report.json"
PALETTE = "segmentation.png"
OVERLAY = "overlay.png"
RECORD = RESULT_RECORD
"""What a folder holds, for `--resume`."""

_UID = re.compile(r"(?<![\d.])[0-2](?:\.\d+){4,}")

FILES = frozenset(
    {
        MASK,
        PREVIEW,
        REPORT,
        RECORD,
        PALETTE,
        OVERLAY,
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
    inside = folder.iterdir() if folder.is_dir() else [folder]
    foreign = sorted(file.name for file in inside if _is_foreign(file))
    if foreign:
        msg = (
            f"{folder} must hold no files but results of medseg, got {len(foreign)} others"
            f" ({foreign[0]} ...). Choose another output folder, or move them away."
        )
        raise OutputError(msg, code="output-exists")


def _is_foreign(file: Path) -> bool:
    return not (file.name in FILES and file.is_file()) and not is_system_file(file)


def prepare(output: Path) -> None:
    """Make the output folder and make sure that it can be written to, before any compute.

    Args:
        output: The output folder.

    Raises:
        OutputError: If the folder cannot be written to, or the disk is full.
    """
    probe = output / ".medseg-write-test"
    try:
        with output_errors(output):
            output.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(bytes(4096))
    finally:
        with suppress(OSError):
            probe.unlink()
    remove_left_parts(output)


def complete(
    folder: Path, outputs: tuple[str, ...], made_by: dict[str, Any]
) -> dict[str, Any] | None:
    """Return what a complete earlier run of a case left, for `--resume`.

    Args:
        folder: The case's folder.
        outputs: Kinds of output that are asked for.
        made_by: `bundle` (name, version, weights hash), `settings` and `input_sha256`.

    Returns:
        Outputs, labels and warnings; None when anything is missing, or it was made of another
        image, with other weights or other settings.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if any(record.get(key) != value for key, value in made_by.items()):
        return None
    if not set(outputs) <= set(record.get("requested", [])):
        return None
    files = {kind: folder / name for kind, name in record["outputs"].items()}
    if not all(file.is_file() for file in files.values()):
        return None
    return {
        "outputs": {kind: str(file) for kind, file in files.items()},
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
            relative to the input), `warnings` and `seconds` so far; `method` in place of a bundle.
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
    statistics = label_statistics(segmentation)
    listed, regions = statistics, {}
    if numbered:
        listed = [*map(dict, listed_statistics(statistics))]
        regions = {"regions": region_summary(statistics)}
    if isinstance(segmentation, ObjectSegmentation):
        regions["objects"] = object_summary(segmentation)
    context |= {"case": folder.name, **regions}
    with atomic_folder(folder) as part:
        files = _write_files(part, (volume, segmentation), outputs, statistics, context)
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
        }
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
    if isinstance(segmentation, ObjectSegmentation):
        files |= write_objects(part, segmentation, case)
    elif "coco" in outputs:
        files["coco"] = write_coco_of_classes(part, segmentation, case)
    dicom, problems = write_dicom(part, segmentation, outputs, context)
    files |= dicom
    context["warnings"] += _without_uids([problem.as_json() for problem in problems])
    if "png" in outputs:
        write_palette_png(segmentation.array, segmentation.labels, part / PALETTE)
        files["png"] = PALETTE
    if "overlay" in outputs:
        write_overlay(volume, segmentation, part / OVERLAY)
        files["overlay"] = OVERLAY
    if "preview" in outputs:
        write_preview(volume, segmentation, part / PREVIEW, statistics=statistics)
        files["preview"] = PREVIEW
    if "report" in outputs:
        seconds = {**context["seconds"], "write": time.perf_counter() - started}
        write_report(
            part / REPORT,
            volume,
            segmentation,
            statistics=statistics,
            context={**context, "seconds": seconds},
        )
        files["report"] = REPORT
    return files


def _without_uids(warnings: list[dict[str, str]]) -> list[dict[str, str]]:
    """Take out UIDs: exports often name files by them, and messages name files."""
    return [{**w, "message": _UID.sub("(UID)", w["message"])} for w in warnings]
