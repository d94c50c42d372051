"""The headers of the images that a DICOM object is derived from, and masks on their slices."""

import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pydicom.valuerep import DA, TM, format_number_as_ds

from medseg.errors import DicomError, Problem
from medseg.io.dicom.segment_frames import macro
from medseg.io.dicom.segment_header import read_dataset
from medseg.io.dicom.write import made_up_uid
from medseg.volume import Source

TYPE_2 = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime",
)  # fmt: skip
"""What every object of a patient states, be it empty."""

PARSED: Mapping[str, type[DA] | type[TM]] = {
    "PatientBirthDate": DA,
    "StudyDate": DA,
    "StudyTime": TM,
}
"""What is written only in the form of the standard."""

SEXES = ("M", "F", "O", "", None)

STORED_UIDS = {
    "SOPClassUID": "MediaStorageSOPClassUID",
    "SOPInstanceUID": "MediaStorageSOPInstanceUID",
}
"""Keyword of a header to that of the file's own header, which holds the same."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SourceHeaders:
    """Headers of a volume's files, complete enough to refer to.

    Attributes:
        datasets: A file each, without pixels, in the order of its first slice.
        slices: Of the volume, as `Source.details` has them.
        made_up: Keywords of UIDs that the files lack and that were made up.
    """

    datasets: tuple[Dataset, ...]
    slices: tuple[Mapping[str, Any], ...]
    made_up: tuple[str, ...]

    @cached_property
    def _numbers(self) -> Mapping[Path, int]:
        paths = dict.fromkeys(one["path"] for one in self.slices)
        return {path: number for number, path in enumerate(paths)}

    def number_of(self, place: int) -> int:
        """Return which file a slice is of.

        Args:
            place: Of the slice.
        """
        return self._numbers[self.slices[place]["path"]]

    def problems(self) -> tuple[Problem, ...]:
        """Return a warning where UIDs were made up."""
        if not self.made_up:
            return ()
        text = (
            f"the files state no {' and '.join(self.made_up)}: those in DICOM outputs were made"
            " up, and an archive will not file them with their source"
        )
        return (Problem("made-up-uid", text, "warning"),)

    def group(self, place: int, sequence: str) -> Dataset:
        """Return what a header says of one slice, in a functional group or at its top.

        Args:
            place: Of the slice.
            sequence: Keyword of the group's sequence.
        """
        dataset = self.datasets[self.number_of(place)]
        try:
            return macro(dataset, self.slices[place]["frame"], sequence)
        except KeyError:
            return dataset


def source_headers(source: Source) -> SourceHeaders:
    """Read the headers of the files that a volume was read from.

    What an object that refers to them has to state, and they lack, is filled in: UIDs are made up
    of those that are there, and are the same every time.

    Args:
        source: Of a DICOM volume.

    Returns:
        The headers.

    Raises:
        DicomError: If the volume is not of DICOM files (`no-dicom-source`), or a file states no
            SOP instance that could be referred to (`no-uid`), or one of a private or retired class
            (`retired-class`).
    """
    slices = tuple(source.details.get("slices", ()))
    if source.format != "dicom" or not slices:
        msg = f"source must be DICOM files for a DICOM object, got {source.format}."
        raise DicomError(msg, code="no-dicom-source")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's on odd values
        datasets = [_header(path) for path in dict.fromkeys(one["path"] for one in slices)]
    instances = hashlib.sha256("".join(str(d.SOPInstanceUID) for d in datasets).encode())
    made_up: dict[str, None] = {}
    for dataset in datasets:
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
            if not dataset.get(keyword):
                setattr(dataset, keyword, made_up_uid(keyword, instances.hexdigest()))
                made_up[keyword] = None
    return SourceHeaders(tuple(datasets), slices, tuple(made_up))


def _header(path: Path) -> Dataset:
    """Read a header and fill in what an object that refers to it has to state."""
    dataset = read_dataset(path, pixels=False)
    meta = getattr(dataset, "file_meta", Dataset())
    for keyword, stored in STORED_UIDS.items():
        if not dataset.get(keyword):
            if not meta.get(stored):
                msg = f"source must state its {keyword}, got none in {path.name}."
                raise DicomError(msg, code="no-uid")
            setattr(dataset, keyword, meta[stored].value)
    _require_class_in_use(dataset.SOPClassUID, path)
    for keyword in TYPE_2:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    for keyword, kind in PARSED.items():
        dataset[keyword].value = _conforming(str(dataset.get(keyword) or ""), kind)
    if dataset.PatientSex not in SEXES:
        dataset.PatientSex = None
    return dataset


def _require_class_in_use(sop_class: UID, path: Path) -> None:
    """Refuse what is of no class of today's standard: highdicom knows no modules of it."""
    if sop_class.is_private or sop_class.is_retired:
        msg = (
            f"source must be of a class of today's DICOM, got {sop_class.name} in {path.name}."
            " Bring it up to date first, or leave out the DICOM outputs."
        )
        raise DicomError(msg, code="retired-class")


def _conforming(text: str, kind: type[DA] | type[TM]) -> str | None:
    """Return a date or time as the standard writes it; None where it cannot be made out.

    Files of before 1993 have `1992.10.31` and `11:20:00`.
    """
    form = text.replace("." if kind is DA else ":", "")
    try:
        kind(form)
    except ValueError:
        return None
    return form


def on_slices(mask: Array, source: Source) -> Array:
    """Bring a mask back to the slices as they were acquired.

    The grid of a tilted or unevenly spaced stack is not that of its slices: each of their pixels
    takes the value of the nearest voxel.

    Args:
        mask: (I, J, K) on the grid of the volume, or (rows, columns) of a picture.
        source: Of the volume.

    Returns:
        (slices, rows, columns); a view where nothing was resampled.
    """
    if mask.ndim == 2:
        return mask[None]
    planes = mask.transpose(2, 1, 0)
    if not source.details.get("resampled"):
        return planes
    slices = source.details["slices"]
    offsets, depths = source.details["offsets"], source.details["depths"]
    rows, columns = slices[0]["rows"], slices[0]["columns"]
    result = np.zeros((len(slices), rows, columns), mask.dtype)
    for out, offset, depth in zip(result, offsets, depths, strict=True):
        plane = planes[int(np.clip(np.rint(depth), 0, len(planes) - 1))]
        column, row = (int(value) for value in np.rint(offset))
        part = plane[max(row, 0) : row + rows, max(column, 0) : column + columns]
        top, left = max(-row, 0), max(-column, 0)
        out[top : top + part.shape[0], left : left + part.shape[1]] = part
    return result


def position_of(headers: SourceHeaders, place: int) -> list[Any]:
    """Return ImagePositionPatient of a slice: the stored text, or what was worked out of it.

    Args:
        headers: Of the volume.
        place: Of the slice.

    Returns:
        Three decimal strings.
    """
    return _stored(headers, place, "PlanePositionSequence", "ImagePositionPatient", "position")


def orientation_of(headers: SourceHeaders) -> list[Any]:
    """Return ImageOrientationPatient of the slices, as `position_of`.

    Args:
        headers: Of the volume.
    """
    names = ("PlaneOrientationSequence", "ImageOrientationPatient", "orientation")
    return _stored(headers, 0, *names)


def spacing_of(headers: SourceHeaders) -> list[Any]:
    """Return PixelSpacing of the slices, as `position_of`.

    Args:
        headers: Of the volume.
    """
    return _stored(headers, 0, "PixelMeasuresSequence", "PixelSpacing", "spacing")


def _stored(
    headers: SourceHeaders, place: int, sequence: str, keyword: str, name: str
) -> list[Any]:
    own: Sequence[float] = headers.slices[place][name]
    stored = headers.group(place, sequence).get(keyword)
    same = stored is not None and np.array_equal(np.asarray(stored, float), np.asarray(own, float))
    if same:  # of a mosaic the header states another
        return list(stored)
    return [format_number_as_ds(float(value)) for value in own]
