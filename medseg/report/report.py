"""The report of one case: what was found, on what grid, by which model and software."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medseg._version import __version__
from medseg.io.atomic import write_json
from medseg.report.measures import intensity_unit
from medseg.report.regions import listed_statistics
from medseg.volume import Segmentation, Volume

PACKAGES = ("torch", "monai", "numpy")
"""Whose versions a report states, beside medseg's own and Python's."""

_BUNDLE_KEYS = ("name", "version", "weights_sha256")
_METHOD_KEYS = ("method", "settings", "regions")
"""What the context of a method without a bundle holds besides."""
_DECIMALS = 6


def write_report(
    path: Path,
    volume: Volume,
    segmentation: Segmentation,
    *,
    statistics: Sequence[Mapping[str, Any]],
    context: Mapping[str, Any],
) -> None:
    """Write `report.json` of a case.

    It holds what `report_document` returns and no more: nothing of `source` that could name a
    patient, a date, a place, a device or a UID.

    Args:
        path: The file to write.
        volume: The image that was segmented.
        segmentation: Its labels.
        statistics: What `label_numbers(volume, segmentation)` returned, or `label_statistics`.
        context: `bundle` (name, version, weights_sha256), `input` (path relative to the input),
            `warnings` and `seconds`; all safe to write.

    Raises:
        OutputError: If the file cannot be written.
    """
    write_json(path, report_document(volume, segmentation, statistics, context))


def report_document(
    volume: Volume,
    segmentation: Segmentation,
    statistics: Sequence[Mapping[str, Any]],
    context: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the report as a document.

    Where no bundle made the mask, it states `method`, `settings` and `regions` of the context too.

    Args:
        volume: As `write_report`.
        segmentation: As `write_report`.
        statistics: As `write_report`.
        context: As `write_report`.

    Returns:
        `{"schema": 1, "bundle", "input", "source": {"format", "modality", "size", "spacing_mm",
        "orientation", "channels", "intensity_unit"}, "labels", "objects" where they are told
        apart, "plausibility": {"checked", "findings"}, "found", "warnings", "seconds", "inference",
        "versions"}`.
        `spacing_mm` is None for a 2D image that states no pixel size.
    """
    bundle = context.get("bundle") or {}
    listed = statistics if "regions" not in context else listed_statistics(statistics)
    return {
        "schema": 1,
        "bundle": {key: bundle.get(key) for key in _BUNDLE_KEYS},
        "input": context.get("input"),
        "source": {
            "format": volume.source.format,
            "modality": volume.source.modality,
            "size": list(volume.shape),
            "spacing_mm": [round(value, _DECIMALS) for value in volume.spacing_mm]
            if volume.source.has_spacing
            else None,
            "orientation": volume.orientation,
            "channels": volume.channels,
            "intensity_unit": intensity_unit(volume),
        },
        "labels": [dict(row) for row in listed],
        **({"objects": context["objects"]} if "objects" in context else {}),
        "plausibility": {
            "checked": bool(context.get("seen")),
            "findings": list(context.get("findings", ())),
        },
        "found": sum(1 for row in statistics if row["voxels"]),
        "warnings": list(context.get("warnings", ())),
        "seconds": {
            stage: round(float(value), 3)
            for stage, value in (segmentation.seconds | dict(context.get("seconds", {}))).items()
        },
        "inference": dict(segmentation.inference),
        "versions": {"medseg": __version__, "python": platform.python_version()}
        | {name: _version(name) for name in PACKAGES},
    } | ({key: context[key] for key in _METHOD_KEYS if key in context} if not bundle else {})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is not installed
        return None
