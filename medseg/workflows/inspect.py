"""List what a path holds: series, volumes, problems, files that are no images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import MedsegError, Problem
from medseg.io.dicom import DicomVolume, Series
from medseg.io.files import describe_file
from medseg.io.sources import ImageFile, Sources, Tick, open_sources

SCHEMA = 1


@dataclass(frozen=True)
class InspectOptions:
    """What to look at.

    Attributes:
        path: A DICOM folder, file or .zip; an image file; or a folder of any mixture.
    """

    path: Path


@dataclass(frozen=True)
class InspectResult:
    """What was found.

    Attributes:
        series: One document a series, or an image file.
        rejected: One document a file that is no image.
    """

    series: tuple[dict[str, Any], ...]
    rejected: tuple[dict[str, str], ...]

    @property
    def exit_code(self) -> int:
        """Always 0: an unusable volume is a finding, and listed."""
        return 0

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {"schema": SCHEMA, "series": list(self.series), "rejected": list(self.rejected)}


def inspect(options: InspectOptions, *, progress: Tick | None = None) -> InspectResult:
    """List every series and volume of a path with its problems; only headers are read.

    Args:
        options: What to look at.
        progress: Called with the files scanned and their total.

    Returns:
        What was found.

    Raises:
        InputError: If the path does not exist, is empty, or is an unsafe archive.
    """
    with open_sources(options.path, progress=progress) as sources:
        return _describe(sources)


def _describe(sources: Sources) -> InspectResult:
    series = [_series_document(series) for series in sources.series]
    rejected = [
        {"path": item.path.as_posix(), "code": item.code, "message": item.message}
        for item in sources.rejected
    ]
    for file in sources.files:
        try:
            series.append(_file_document(file))
        except MedsegError as error:
            rejected.append({"path": file.shown, "code": error.code, "message": str(error)})
    return InspectResult(tuple(series), tuple(rejected))


def _series_document(series: Series) -> dict[str, Any]:
    return {
        "series_instance_uid": series.series_instance_uid,
        "modality": series.modality,
        "description": series.description,
        "instances": series.instances,
        "problems": problem_documents(series.problems),
        "volumes": [_volume_document(volume) for volume in series.volumes],
    }


def _volume_document(volume: DicomVolume) -> dict[str, Any]:
    return {
        "volume_id": volume.volume_id,
        "size": list(volume.size),
        "frames": volume.frames,
        "spacing_mm": list(volume.spacing_mm),
        "orientation": volume.orientation,
        "usable": volume.usable,
        "problems": problem_documents(volume.problems),
    }


def problem_documents(problems: Sequence[Problem]) -> list[dict[str, str]]:
    """Return problems as they stand in the JSON documents.

    Args:
        problems: Any problems.

    Returns:
        One document a problem.
    """
    return [problem.as_json() for problem in problems]


def _file_document(file: ImageFile) -> dict[str, Any]:
    record = describe_file(file.path)
    volume = {
        "volume_id": file.volume_id,
        "size": _in_three_axes(record.size, 1),
        "frames": record.frames,
        "spacing_mm": _in_three_axes(record.spacing_mm, 0.0),
        "orientation": record.orientation,
        "usable": not any(problem.is_error for problem in record.problems),
        "problems": problem_documents(record.problems),
    }
    return {
        "series_instance_uid": None,
        "modality": "",
        "description": file.shown,
        "instances": 1,
        "problems": [],
        "volumes": [volume],
    }


def _in_three_axes(values: Sequence[float], last: float) -> list[float]:
    """Turn (rows, columns) of a 2D image into (i, j, k); what is not known is 0."""
    return [*values[::-1], *([0.0] * (2 - len(values))), last] if len(values) < 3 else list(values)
