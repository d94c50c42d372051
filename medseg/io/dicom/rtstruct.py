"""A segmentation as DICOM RT Structure Set: outlines on the slices of its source."""

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.uid import (
    ImplicitVRLittleEndian,
    RTStructureSetStorage,
    generate_uid,
)

import medseg
from medseg.errors import DicomError, Problem
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.contours import outlines, to_patient
from medseg.io.dicom.derived import SERIES_NUMBERS, Made, now, save_object
from medseg.io.dicom.source_headers import TYPE_2, SourceHeaders, on_slices, source_headers
from medseg.io.dicom.structure_codes import StructureCode, code_of_label
from medseg.io.label_parts import Box, boxes_of
from medseg.volume import Label, Segmentation

DECIMALS = 4
"""Of a coordinate in mm, which DICOM holds in 16 characters."""

COPIED = (
    *TYPE_2, "ReferringPhysicianName", "StudyInstanceUID", "StudyDescription", "PatientAge",
    "PatientWeight", "PatientSize", "SpecificCharacterSet", "PositionReferenceIndicator",
)  # fmt: skip
"""What a structure set has in common with the images of its patient and study."""

CONTOUR_DATA = Tag("ContourData")

DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
"""SOP class that structure sets refer to a study with."""

Array = npt.NDArray[Any]


class _Part(NamedTuple):
    """A part of a slice: number of the slice, values, row and column of the first."""

    slice: int
    values: Array
    corner: npt.NDArray[np.int64]


LESION = "Morphologically Abnormal Structure"


def write_rtstruct(
    path: Path, segmentation: Segmentation, algorithm: Algorithm
) -> tuple[Problem, ...]:
    """Write a segmentation as an RT Structure Set, atomically.

    Each label is a region of interest with its name and colour; on each slice where it is, each of
    its parts is one closed outline halfway between the pixels within and without, on which a
    reader that fills by the centres of pixels gives back the very mask. Holes are cut in through a
    slit. Slices are those that were acquired, also where the volume was resampled. A label without
    a voxel has a region without outlines.

    Args:
        path: File to write.
        segmentation: Of a DICOM volume.
        algorithm: What made it.

    Returns:
        Warnings: UIDs that the source lacks and that were made up (`made-up-uid`), slices that are
            not axial, which planning systems may refuse (`oblique-contours`).

    Raises:
        DicomError: If the source is no DICOM (`no-dicom-source`), has no place in the patient
            (`no-geometry`), or states no UIDs (`no-uid`).
        OutputError: If the file cannot be written.

    Source:
        DICOM PS3.3 A.19 and C.8.8.6 (keyholes).
    """
    made = structure_set(segmentation, algorithm)
    save_object(made.dataset, path)
    return made.problems


def structure_set(
    segmentation: Segmentation,
    algorithm: Algorithm,
    *,
    made_at: datetime.datetime | None = None,
) -> Made:
    """Make the structure set that `write_rtstruct` writes.

    Args:
        segmentation: Of a DICOM volume.
        algorithm: What made it.
        made_at: When; the present if None.

    Returns:
        The object, and the warnings of `write_rtstruct`.

    Raises:
        DicomError: As `write_rtstruct`.
    """
    headers = source_headers(segmentation.source)
    if headers.slices[0]["position"] is None or not headers.datasets[0].get("FrameOfReferenceUID"):
        msg = "source must have a place in the patient for a structure set, got a picture."
        raise DicomError(msg, code="no-geometry")
    planes = on_slices(segmentation.array, segmentation.source)
    codes = [code_of_label(label) for label in segmentation.labels]
    dataset = _new(headers, algorithm, made_at or now())
    dataset.ReferencedFrameOfReferenceSequence = [_referenced(headers)]
    numbered = list(enumerate(zip(segmentation.labels, codes, strict=True), start=1))
    frame_of_reference = str(headers.datasets[0].FrameOfReferenceUID)
    dataset.StructureSetROISequence = [
        _region(number, label, frame_of_reference, algorithm) for number, (label, _) in numbered
    ]
    dataset.ROIContourSequence = [
        _contours(number, label, _cut_out(planes, box), headers)
        for (number, (label, _)), box in zip(
            numbered, boxes_of(planes, segmentation.labels), strict=True
        )
    ]
    dataset.RTROIObservationsSequence = [
        _observation(number, label, code) for number, (label, code) in numbered
    ]
    return Made(dataset, (*headers.problems(), *_oblique(headers)))


def _new(headers: SourceHeaders, algorithm: Algorithm, made_at: datetime.datetime) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    # an explicit length of decimal strings ends at 64 kB, which a long outline exceeds
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset = FileDataset("", {}, b"\0" * 128, meta)
    first, date, time = headers.datasets[0], f"{made_at:%Y%m%d}", f"{made_at:%H%M%S}"
    for keyword in COPIED:
        if keyword in first:
            dataset[keyword] = first[keyword]
    values = {
        "SOPClassUID": RTStructureSetStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "Modality": "RTSTRUCT",
        "SeriesInstanceUID": generate_uid(),
        "SeriesNumber": SERIES_NUMBERS["rtstruct"] + int(first.get("SeriesNumber") or 0),
        "SeriesDescription": f"medseg {algorithm.name}"[:64],
        "SeriesDate": date,
        "SeriesTime": time,
        "OperatorsName": "",
        "InstanceNumber": 1,
        "InstanceCreationDate": date,
        "InstanceCreationTime": time,
        "FrameOfReferenceUID": first.FrameOfReferenceUID,
        "PositionReferenceIndicator": first.get("PositionReferenceIndicator") or "",
        "Manufacturer": "medseg",
        "ManufacturerModelName": algorithm.name[:64],
        "SoftwareVersions": medseg.__version__,
        "ReferringPhysicianName": first.get("ReferringPhysicianName") or "",
        "StructureSetLabel": "medseg",
        "StructureSetName": algorithm.name[:64],
        "StructureSetDescription": algorithm.text,
        "StructureSetDate": date,
        "StructureSetTime": time,
        "ApprovalStatus": "UNAPPROVED",
    }
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def _referenced(headers: SourceHeaders) -> Dataset:
    first = headers.datasets[0]
    series = _item(
        SeriesInstanceUID=first.SeriesInstanceUID,
        ContourImageSequence=[_image(headers, place) for place in range(len(headers.slices))],
    )
    study = _item(
        ReferencedSOPClassUID=DETACHED_STUDY,
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _item(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _image(headers: SourceHeaders, place: int) -> Dataset:
    source = headers.datasets[headers.number_of(place)]
    item = _item(
        ReferencedSOPClassUID=source.SOPClassUID, ReferencedSOPInstanceUID=source.SOPInstanceUID
    )
    if int(source.get("NumberOfFrames") or 1) > 1:
        item.ReferencedFrameNumber = headers.slices[place]["frame"] + 1
    return item


def _region(number: int, label: Label, frame_of_reference: str, algorithm: Algorithm) -> Dataset:
    return _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=frame_of_reference,
        ROIName=label.name[:64],
        ROIGenerationAlgorithm="AUTOMATIC" if algorithm.automatic else "SEMIAUTOMATIC",
        ROIGenerationDescription=algorithm.name[:64],
    )


def _cut_out(planes: Array, box: Box | None) -> list[_Part]:
    """Return of each slice in a box its number, the part of it, and where that begins."""
    if box is None:
        return []
    slices, rows, columns = box
    corner = np.array([rows.start, columns.start])
    return [_Part(n, planes[n, rows, columns], corner) for n in range(slices.start, slices.stop)]


def _contours(number: int, label: Label, parts: Sequence[_Part], headers: SourceHeaders) -> Dataset:
    found: list[Dataset] = []
    for place, plane, corner in parts:
        one, image = headers.slices[place], _image(headers, place)
        for points in outlines(np.isin(plane, label.inside)):
            corners = to_patient(
                points + corner, one["position"], one["orientation"], one["spacing"]
            )
            contour = _item(
                ContourNumber=len(found) + 1,
                ContourImageSequence=[image],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
            )
            contour[CONTOUR_DATA] = _coordinates(corners)
            found.append(contour)
    result = _item(ReferencedROINumber=number, ROIDisplayColor=list(label.color))
    if found:
        result.ContourSequence = found
    return result


def _coordinates(corners: npt.NDArray[np.float64]) -> RawDataElement:
    """Return ContourData as it is stored; pydicom would check the text of every number."""
    text = "\\".join(f"{value:.{DECIMALS}f}" for value in corners.ravel().tolist())
    stored = (text + " " * (len(text) % 2)).encode("ascii")
    return RawDataElement(CONTOUR_DATA, "DS", len(stored), stored, 0, True, True)


def _observation(number: int, label: Label, code: StructureCode) -> Dataset:
    item = _item(
        ObservationNumber=number,
        ReferencedROINumber=number,
        ROIObservationLabel=label.name[:16],
        RTROIInterpretedType="" if code.category.meaning == LESION else "ORGAN",
        ROIInterpreter="",
    )
    if not code.is_private:
        item.RTROIIdentificationCodeSequence = [_coded(code.kind)]
    return item


def _coded(code: Code) -> Dataset:
    return _item(
        CodeValue=code.value,
        CodingSchemeDesignator=code.scheme_designator,
        CodeMeaning=code.meaning[:64],
    )


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _oblique(headers: SourceHeaders) -> Sequence[Problem]:
    along, down = np.asarray(headers.slices[0]["orientation"], np.float64).reshape(2, 3)
    if abs(float(np.cross(along, down)[2])) > 1 - 1e-4:
        return ()
    text = (
        "the slices are not axial: the structure set is right, and planning systems may refuse"
        " outlines on other slices"
    )
    return (Problem("oblique-contours", text, "warning"),)
