"""Convert DICOM volumes, or other 3D image files, to NIfTI."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medseg.errors import ChoiceError, InputError, MedsegError, OutputError, Problem, UsageError
from medseg.io.cases import REGRID_CODES
from medseg.io.dicom import DicomVolume, read_volume
from medseg.io.files import describe_file, read_file
from medseg.io.nifti import write_nifti_image
from medseg.io.sources import ImageFile, Sources, first_error, open_sources
from medseg.volume import Volume
from medseg.workflows.inspect import problem_documents

logger = logging.getLogger(__name__)

SCHEMA = 1

NIFTI_SUFFIXES = (".nii.gz", ".nii")
OTHER_IMAGE_SUFFIXES = (".nrrd", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".tif", ".tiff")

BESIDE_DICOM = "beside-dicom"

NOT_FOR_CONVERSION = frozenset(
    {BESIDE_DICOM, "localizer", "not-an-image", "secondary-capture", "too-few-slices"}
)
"""What is no volume in the first place is left out of a folder of volumes, and listed; every
other unusable volume counts as failed."""

Status = Literal["done", "failed", "skipped"]


@dataclass(frozen=True)
class ConvertOptions:
    """What to convert, and where to.

    Attributes:
        path: A DICOM folder, file or .zip; an image file; or a folder of any mixture.
        output: A .nii or .nii.gz file for one volume, or a folder for every usable one.
        series: SeriesInstanceUID or volume id to take; None takes every usable one.
        regrid: Resample volumes with missing or unevenly spaced slices to an even grid.
        overwrite: Replace files that exist.
    """

    path: Path
    output: Path
    series: str | None = None
    regrid: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Converted:
    """What became of one volume.

    Attributes:
        volume_id: Its id.
        series_instance_uid: None for a file that is not DICOM.
        status: `done`, `failed`, or `skipped` where it was not asked for or is no volume.
        output: The file written.
        problems: Everything found wrong with it.
        error: Why it failed.
    """

    volume_id: str
    series_instance_uid: str | None
    status: Status
    output: Path | None
    problems: tuple[Problem, ...]
    error: Problem | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the volume's entry of the JSON document."""
        error = self.error and {"code": self.error.code, "message": self.error.message}
        return {
            "volume_id": self.volume_id,
            "series_instance_uid": self.series_instance_uid,
            "status": self.status,
            "output": None if self.output is None else str(self.output),
            "problems": problem_documents(self.problems),
            "error": error,
        }


@dataclass(frozen=True)
class ConvertResult:
    """What became of every volume found.

    Attributes:
        volumes: One entry a volume.
    """

    volumes: tuple[Converted, ...]

    @property
    def exit_code(self) -> int:
        """0, or 1 when a volume failed."""
        return int(any(volume.status == "failed" for volume in self.volumes))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {"schema": SCHEMA, "volumes": [volume.as_json() for volume in self.volumes]}


@dataclass(frozen=True)
class _Item:
    """One volume before it is read."""

    volume_id: str
    series_instance_uid: str | None
    problems: tuple[Problem, ...]
    blocking: Problem | None
    read: Callable[[], Volume]

    def report(
        self, status: Status, output: Path | None = None, error: Problem | None = None
    ) -> Converted:
        return Converted(
            self.volume_id, self.series_instance_uid, status, output, self.problems, error
        )


def convert(
    options: ConvertOptions, *, progress: Callable[[int, int], None] | None = None
) -> ConvertResult:
    """Convert one volume to a file, or every usable one into a folder.

    CT becomes Hounsfield units in int16; a 4D acquisition becomes one 4D file. A volume that fails
    is reported and the others go on. Files written hold no identifiers.

    Args:
        options: What to convert, and where to.
        progress: Called with the work done and its total: first files scanned, then volumes.

    Returns:
        What became of every volume found.

    Raises:
        InputError: If the path does not exist, is empty, or is an unsafe archive.
        ChoiceError: If nothing is usable, or a single file is asked for and several are.
        OutputError: If a file to be written exists and `overwrite` is not set.
        UsageError: If the output is no NIfTI file and no folder.
    """
    single = _is_single_file(options.output)
    output = None if single else options.output
    with open_sources(options.path, output=output, progress=progress) as sources:
        items = _items(sources, options.regrid)
        chosen = _chosen(items, options, single=single)
        targets = {id(item): _target(options.output, item, single=single) for item in chosen}
        _refuse_existing(targets.values(), overwrite=options.overwrite)
        results = []
        for done, item in enumerate(items):
            if progress is not None:
                progress(done, len(items))
            target = targets.get(id(item))
            if target is not None:
                results.append(_convert_one(item, target))
            else:
                results.append(_left_out(item, options, single=single))
    return ConvertResult(tuple(results))


def _is_single_file(output: Path) -> bool:
    name = output.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return True
    if name.endswith(OTHER_IMAGE_SUFFIXES):
        msg = (
            f"OUT must be a .nii.gz or .nii file or a folder, got {output.name!r}."
            " Choose the suffix .nii.gz."
        )
        raise UsageError(msg)
    if output.is_file():
        msg = (
            f"OUT must be a folder or end in .nii.gz, got the file {str(output)!r}."
            " Choose another name."
        )
        raise UsageError(msg)
    return False


def _target(output: Path, item: "_Item", *, single: bool) -> Path:
    return output if single else output / f"{item.volume_id}.nii.gz"


def _items(sources: Sources, regrid: bool) -> list[_Item]:
    volumes = [_dicom_item(volume, regrid) for volume in sources.volumes]
    beside = Problem(BESIDE_DICOM, "it lies beside DICOM series; convert it by its own path")
    blocking = beside if volumes else None
    return volumes + [_file_item(file, blocking) for file in sources.files]


def _file_item(file: ImageFile, blocking: Problem | None) -> _Item:
    def read() -> Volume:
        return read_file(file.path, channels=describe_file(file.path).frames)

    problems = () if blocking is None else (blocking,)
    return _Item(file.volume_id, None, problems, blocking, read)


def _dicom_item(volume: DicomVolume, regrid: bool) -> _Item:
    overridden = REGRID_CODES if regrid else frozenset()
    blocking = first_error([p for p in volume.problems if p.code not in overridden])
    needed = regrid and any(problem.code in REGRID_CODES for problem in volume.problems)
    return _Item(
        volume.volume_id,
        volume.series_instance_uid,
        volume.problems,
        blocking,
        lambda: read_volume(volume, regrid=needed),
    )


def _chosen(items: Sequence[_Item], options: ConvertOptions, *, single: bool) -> list[_Item]:
    asked = [item for item in items if _is_asked(item, options.series)]
    if not items:
        name = str(options.path)
        msg = f"PATH must hold an image, got {name!r}. See what is there: medseg inspect {name}"
        raise InputError(msg, code="no-images")
    if not asked:
        known = ", ".join(item.volume_id for item in items) or "none"
        msg = f"PATH must hold the series asked for, got volumes: {known}. See medseg inspect."
        raise ChoiceError(msg)
    usable = [item for item in asked if item.blocking is None]
    if not usable:
        reasons = [f"{item.volume_id} ({item.blocking.code})" for item in asked if item.blocking]
        hint = "medseg inspect says what is wrong with each."
        if any(item.blocking.code in REGRID_CODES for item in asked if item.blocking):
            hint = "--regrid resamples missing or uneven slices to an even grid."
        msg = f"PATH must hold a usable volume, got {', '.join(reasons)}. {hint}"
        raise ChoiceError(msg)
    if single and len(usable) > 1:
        ids = ", ".join(item.volume_id for item in usable)
        msg = (
            f"OUT must be a folder where several volumes are usable, got one file for {ids}."
            " Choose one with --series, or give a folder."
        )
        raise ChoiceError(msg, code="ambiguous-volume")
    return usable


def _is_asked(item: _Item, series: str | None) -> bool:
    return series in (None, "all", item.volume_id, item.series_instance_uid)


def _refuse_existing(targets: Iterable[Path], *, overwrite: bool) -> None:
    existing = [target for target in targets if target.exists()]
    if existing and not overwrite:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        msg = (
            f"OUT must not exist yet, got {str(existing[0])!r}{more}."
            " Choose another name, or give --overwrite."
        )
        raise OutputError(msg, code="output-exists")


def _convert_one(item: _Item, target: Path) -> Converted:
    try:
        volume, rounded = _hounsfield(item.read())
        write_nifti_image(volume, target)
    except MedsegError as error:
        logger.debug("volume %s failed", item.volume_id, exc_info=True)
        return item.report("failed", error=Problem(error.code, str(error)))
    except Exception as error:
        logger.debug("volume %s failed", item.volume_id, exc_info=True)
        text = f"{type(error).__name__}: {error}"
        return item.report("failed", error=Problem("internal", text))
    extra = tuple(p for p in (*volume.source.problems, *rounded) if p not in item.problems)
    return replace(item, problems=item.problems + extra).report("done", target)


def _hounsfield(volume: Volume) -> tuple[Volume, tuple[Problem, ...]]:
    """Store CT as int16, rounding what a fractional rescale slope gives."""
    array = volume.array
    if volume.source.modality != "CT" or array.dtype == np.int16:
        return volume, ()
    limits = np.iinfo(np.int16)
    if not (array.min() >= limits.min and array.max() <= limits.max):  # also false for NaN
        text = "values do not fit the 16 bits of Hounsfield units and are stored as they are"
        return volume, (Problem("not-hounsfield", text, "warning"),)
    whole = np.empty_like(array, np.int16)
    fraction = 0.0
    for index in np.ndindex(array.shape[0], array.shape[-1]):  # slice by slice: no second copy
        plane = array[index[0], ..., index[1]]
        rounded = np.rint(plane)
        fraction = max(fraction, float(np.abs(rounded - plane).max()))
        whole[index[0], ..., index[1]] = rounded
    text = f"values are rounded to whole Hounsfield units, by at most {fraction:.2g}"
    problems = (Problem("rounded-hu", text, "warning"),) if fraction else ()
    return replace(volume, array=whole), problems


def _left_out(item: _Item, options: ConvertOptions, *, single: bool) -> Converted:
    unasked = single or not _is_asked(item, options.series)
    if unasked or item.blocking is None or item.blocking.code in NOT_FOR_CONVERSION:
        return item.report("skipped")
    return item.report("failed", error=item.blocking)
