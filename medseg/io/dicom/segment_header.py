"""What a DICOM SEG says of itself: its segments, and the images it was made on."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from medseg.errors import DicomError
from medseg.io.dicom.instance import PARSE_ERRORS

SEGMENTATION_CLASS = "1.2.840.10008.5.1.4.1.1.66.4"
LABEL_MAP_CLASS = "1.2.840.10008.5.1.4.1.1.66.7"


@dataclass(frozen=True)
class SegmentationHeader:
    """What a DICOM SEG says of itself.

    Attributes:
        path: The file.
        segments: Number and name of each segment; several may share a name.
        kind: `BINARY`, `FRACTIONAL` or `LABELMAP`.
        series_uids: SeriesInstanceUIDs of the images it was made on.
        instance_uids: SOPInstanceUIDs of these images.
        frame_of_reference_uid: UID, empty when missing.
        may_overlap: Whether voxels may belong to several segments.
    """

    path: Path
    segments: tuple[tuple[int, str], ...]
    kind: str
    series_uids: tuple[str, ...]
    instance_uids: frozenset[str]
    frame_of_reference_uid: str
    may_overlap: bool

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the structures, each once."""
        return tuple(dict.fromkeys(name for _, name in self.segments))


def is_segmentation(path: Path) -> bool:
    """Say whether a file is a DICOM SEG; reads a few bytes of it.

    Args:
        path: Any path.

    Returns:
        Whether it is one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's on odd values
            ds = dcmread(path, specific_tags=["SOPClassUID"], stop_before_pixels=True)
            return str(ds.get("SOPClassUID", "")) in (SEGMENTATION_CLASS, LABEL_MAP_CLASS)
    except PARSE_ERRORS:
        return False


def read_segmentation_header(path: Path) -> SegmentationHeader:
    """Read what a DICOM SEG says of itself, and no pixel.

    Args:
        path: The file.

    Returns:
        Its segments and the images it belongs to.

    Raises:
        DicomError: If it is no DICOM SEG (`not-a-segmentation`), damaged (`unreadable`), or has a
            segment without a name (`unnamed-segment`).
    """
    return header_of(read_dataset(path, pixels=False), path)


def read_dataset(path: Path, *, pixels: bool = True) -> Dataset:
    """Read a DICOM file with pydicom.

    Args:
        path: The file.
        pixels: Whether to read the pixel data as well.

    Returns:
        The dataset.

    Raises:
        DicomError: If it is no DICOM file (`not-a-segmentation`).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's on odd values
            return dcmread(path, stop_before_pixels=not pixels)
    except PARSE_ERRORS as error:
        msg = f"path must be a DICOM SEG, got {path.name}, which is no readable DICOM file."
        raise DicomError(msg, code="not-a-segmentation") from error


def header_of(ds: Dataset, path: Path) -> SegmentationHeader:
    """Return what the dataset of a DICOM SEG says of it.

    Args:
        ds: The dataset.
        path: Its file.

    Returns:
        As `read_segmentation_header`.

    Raises:
        DicomError: As `read_segmentation_header`.
    """
    sop_class = str(ds.get("SOPClassUID", ""))
    if sop_class not in (SEGMENTATION_CLASS, LABEL_MAP_CLASS):
        msg = f"path must be a DICOM SEG, got {path.name} of another kind."
        raise DicomError(msg, code="not-a-segmentation")
    kind = "LABELMAP" if sop_class == LABEL_MAP_CLASS else str(ds.get("SegmentationType", ""))
    try:
        segments = tuple(
            (int(item.SegmentNumber), _name(item, path))
            for item in ds.SegmentSequence
            if int(item.SegmentNumber)  # 0 is the background of label maps
        )
        series = list(ds.get("ReferencedSeriesSequence") or ())
        instances = {
            str(item.ReferencedSOPInstanceUID)
            for one in series
            for item in one.get("ReferencedInstanceSequence") or ()
        }
        for groups in ds.get("PerFrameFunctionalGroupsSequence") or ():
            instances |= {uid for uid, _ in sources_of(groups)}
        result = SegmentationHeader(
            path=path,
            segments=segments,
            kind=kind,
            series_uids=tuple(str(one.SeriesInstanceUID) for one in series),
            instance_uids=frozenset(instances),
            frame_of_reference_uid=str(ds.get("FrameOfReferenceUID") or ""),
            may_overlap=kind != "LABELMAP" and str(ds.get("SegmentsOverlap") or "") != "NO",
        )
    except PARSE_ERRORS as error:
        msg = f"header must follow the DICOM standard, got {error} in {path.name}."
        raise DicomError(msg, code="unreadable") from error
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP") or not segments:
        msg = f"path must be a SEG with segments, got {kind or 'no type'} in {path.name}."
        raise DicomError(msg, code="unreadable")
    return result


def sources_of(groups: Dataset) -> list[tuple[str, int]]:
    """Return the images that a frame was derived from.

    Args:
        groups: Item of PerFrameFunctionalGroupsSequence.

    Returns:
        SOPInstanceUID and frame, from 1, of each.
    """
    found = []
    for derivation in groups.get("DerivationImageSequence") or ():
        for item in derivation.get("SourceImageSequence") or ():
            frames = item.get("ReferencedFrameNumber") or 1
            numbers = frames if isinstance(frames, Iterable) else [frames]
            found += [(str(item.ReferencedSOPInstanceUID), int(number)) for number in numbers]
    return found


def _name(segment: Dataset, path: Path) -> str:
    """Return SegmentLabel, else SegmentDescription, else the meaning of the property's code."""
    types = segment.get("SegmentedPropertyTypeCodeSequence") or [Dataset()]
    for text in (
        segment.get("SegmentLabel"),
        segment.get("SegmentDescription"),
        types[0].get("CodeMeaning"),
    ):
        name = " ".join(str(text or "").split())
        if name:
            return name
    msg = f"segments must have a SegmentLabel, got segment {segment.SegmentNumber} of {path.name}."
    raise DicomError(msg, code="unnamed-segment")
