"""A segmentation as DICOM SEG, on the slices of the series that it was made of."""

import datetime
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import highdicom as hd
import numpy as np
import numpy.typing as npt
import psutil
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid
from skimage.color import rgb2lab

from medseg.errors import InputError, Problem
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.derived import (
    Kind,
    Made,
    date_of_creation,
    declare_private_scheme,
    now,
    save_object,
    series_of,
)
from medseg.io.dicom.source_headers import (
    SourceHeaders,
    on_slices,
    orientation_of,
    position_of,
    source_headers,
    spacing_of,
)
from medseg.io.dicom.structure_codes import PRIVATE_SCHEME, StructureCode, code_of_label
from medseg.io.label_parts import boxes_of
from medseg.io.probabilities import LARGEST
from medseg.volume import Label, Segmentation, mask_dtype

Profile = Literal["binary", "labelmap", "fractional"]

KINDS: Mapping[Profile, Kind] = {
    "binary": "seg",
    "labelmap": "seg-labelmap",
    "fractional": "seg-fractional",
}

USABLE_SHARE = 0.4
"""Of the free memory, for probabilities: what makes the object holds parts of them again."""

NAMED = 5
"""Labels without a standard code that a warning names."""

Array = npt.NDArray[Any]


def write_segmentation(
    path: Path,
    segmentation: Segmentation,
    algorithm: Algorithm,
    profile: Profile = "binary",
) -> tuple[Problem, ...]:
    """Write a segmentation as DICOM SEG, atomically.

    Frames lie on the slices of the source as they were acquired, also where the volume was
    resampled (gantry tilt, uneven slices); positions, orientation and spacing are those that its
    files state, digit by digit. Study, patient and frame of reference are the source's. Labels
    without a voxel are left out, unless there is no other. `binary` has a frame for each segment
    and slice where it is, and regions may overlap in it; `labelmap` (Supplement 243) one a slice,
    with the values of the mask; `fractional` the probability of each segment that the mask holds,
    in steps of 1/255.

    Args:
        path: File to write.
        segmentation: Of a DICOM volume or picture; with probabilities for `fractional`.
        algorithm: What made it.
        profile: `binary`, `labelmap` or `fractional`.

    Returns:
        Warnings: labels without a standard code (`private-code`), UIDs that the source lacks and
        that were made up (`made-up-uid`), regions that a label map cannot hold whole
        (`overlapping-segments`).

    Raises:
        DicomError: If the source is no DICOM (`no-dicom-source`) or states no UIDs (`no-uid`).
        InputError: If the probabilities of so many labels do not fit in memory (`too-large`).
        OutputError: If the file cannot be written.

    Source:
        DICOM PS3.3 A.51 (Segmentation), PS3.16 CID 7150 and 7151; written by highdicom.
    """
    made = segmentation_object(segmentation, algorithm, profile)
    save_object(made.dataset, path)
    return made.problems


def segmentation_object(
    segmentation: Segmentation,
    algorithm: Algorithm,
    profile: Profile = "binary",
    *,
    made_at: datetime.datetime | None = None,
) -> Made:
    """Make the DICOM SEG that `write_segmentation` writes.

    Args:
        segmentation: As `write_segmentation`.
        algorithm: What made it.
        profile: As `write_segmentation`.
        made_at: When; the present if None.

    Returns:
        The object, the warnings of `write_segmentation`, and the number of each label's segment.

    Raises:
        DicomError: As `write_segmentation`.
    """
    headers = source_headers(segmentation.source)
    planes = on_slices(segmentation.array, segmentation.source)
    labels = _present(planes, segmentation.labels)
    coded = [code_of_label(label) for label in labels]
    if profile == "fractional":
        pixels, numbers, slices = _shares(segmentation, labels)
    else:
        pixels, numbers, slices = _pixels(planes, labels, profile)
    described = [
        _described(number, label, code, algorithm)
        for number, label, code in zip(numbers, labels, coded, strict=True)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on values of the source, which are copied as they are
        series = series_of(headers, KINDS[profile], algorithm, made_at or now())
        dataset = _dataset(headers, pixels, described, slices, (profile, series))
        if any(code.is_private for code in coded):
            declare_private_scheme(dataset)
    problems = (*_uncoded(labels, coded), *headers.problems(), *_cut(labels, profile))
    of_label = {label.index: number for label, number in zip(labels, numbers, strict=True)}
    return Made(dataset, problems, of_label)


def reference_to(made: Made) -> Made:
    """Return of a DICOM SEG what other objects refer to, without its pixels.

    Args:
        made: What `segmentation_object` returned.

    Returns:
        UIDs, and number and tracking UID of each segment; stays as it is when the SEG changes.
    """
    dataset = Dataset()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID"):
        setattr(dataset, keyword, made.dataset[keyword].value)
    dataset.SegmentSequence = [Dataset() for _ in made.dataset.SegmentSequence]
    for item, segment in zip(dataset.SegmentSequence, made.dataset.SegmentSequence, strict=True):
        item.SegmentNumber, item.TrackingUID = segment.SegmentNumber, segment.TrackingUID
    return Made(dataset, made.problems, made.segments)


def _present(planes: Array, labels: Sequence[Label]) -> list[Label]:
    """Return the labels that have a voxel; all of them where none has."""
    boxes = boxes_of(planes, labels)
    present = [label for label, box in zip(labels, boxes, strict=True) if box is not None]
    return present or list(labels)


def _pixels(
    planes: Array, labels: Sequence[Label], profile: Profile
) -> tuple[Array, list[int], list[int]]:
    """Return the array that highdicom takes, the segments' numbers, and the slices it is of."""
    everything = list(range(len(planes)))
    if profile == "labelmap":
        return np.ascontiguousarray(planes), [label.index for label in labels], everything
    numbers = list(range(1, len(labels) + 1))
    if not planes.any():  # one empty frame a segment will do
        return np.zeros((1, *planes.shape[1:]), np.uint8), numbers, [0]
    if any(label.inside != (label.index,) for label in labels):
        whole = np.empty((*planes.shape, len(labels)), np.uint8)
        for place, label in enumerate(labels):
            for out, plane in zip(whole, planes, strict=True):
                out[..., place] = np.isin(plane, label.inside)
        return whole, numbers, everything
    table = np.zeros(int(np.iinfo(planes.dtype).max) + 1, planes.dtype)
    table[[label.index for label in labels]] = numbers
    # planes apart in memory, which highdicom goes through a label at a time
    result = np.empty(planes.shape, mask_dtype(len(numbers)))
    for out, plane in zip(result, planes, strict=True):
        out[...] = table[plane]
    return result, numbers, everything


def _shares(
    segmentation: Segmentation, labels: Sequence[Label]
) -> tuple[Array, list[int], list[int]]:
    """Return probabilities as `_pixels` returns masks: of each slice on which one is above 0."""
    store = segmentation.probabilities
    if store is None:
        msg = "segmentation must have probabilities for a fractional DICOM SEG, got none"
        raise ValueError(msg)
    place_of = {index: place for place, (index, _) in enumerate(store.channels)}
    maps = [
        on_slices(store.channel(place_of[label.index]), segmentation.source) for label in labels
    ]
    least = LARGEST / 255 / 2  # what is less is written as 0
    slices = [n for n in range(len(maps[0])) if any(one[n].max() >= least for one in maps)] or [0]
    needed = 4 * len(slices) * math.prod(maps[0].shape[1:]) * len(labels)
    free = psutil.virtual_memory().available
    if needed > USABLE_SHARE * free:
        msg = (
            f"labels must fit in memory for a fractional DICOM SEG, got {len(labels)} of"
            f" {needed / 2**30:.1f} GiB with {free / 2**30:.1f} GiB free. Name fewer (--labels), or"
            " write the probabilities as NIfTI."
        )
        raise InputError(msg, code="too-large")
    result = np.empty((len(slices), *maps[0].shape[1:], len(labels)), np.float32)
    for place, one in enumerate(maps):
        for out, number in zip(result, slices, strict=True):
            np.divide(one[number], LARGEST, out=out[..., place], dtype=np.float32)
    return result, list(range(1, len(labels) + 1)), slices


def _described(
    number: int, label: Label, code: StructureCode, algorithm: Algorithm
) -> hd.seg.SegmentDescription:
    lightness, a, b = (float(v) for v in rgb2lab(np.array([[label.color]], np.float64) / 255)[0, 0])
    described = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=code.category,
        segmented_property_type=code.kind,
        algorithm_type="AUTOMATIC" if algorithm.automatic else "SEMIAUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm.name[:64],
            family=codes.DCM.ArtificialIntelligence,
            version=algorithm.version[:64],
            parameters=dict(algorithm.parameters) or None,
        ),
        tracking_uid=generate_uid(),
        tracking_id=label.name[:64],
        anatomic_regions=[code.region] if code.region else None,
        display_color=hd.color.CIELabColor(lightness, a, b),
    )
    if code.laterality is not None:
        modifier = hd.sr.CodedConcept.from_code(code.laterality)
        if code.region is not None:
            described.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [modifier]
        else:
            kind = described.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return described


def _dataset(
    headers: SourceHeaders,
    pixels: Array,
    described: Sequence[hd.seg.SegmentDescription],
    slices: Sequence[int],
    stated: tuple[Profile, dict[str, Any]],
) -> Dataset:
    """Return the object of a profile and of what `series_of` returned."""
    profile, series = stated
    first = headers.datasets[0]
    places: dict[str, Any] = {}
    if headers.slices[0]["position"] is not None and first.get("FrameOfReferenceUID"):
        places = {
            "plane_positions": [_position(headers, place) for place in slices],
            "plane_orientation": _orientation(headers),
            "pixel_measures": _measures(headers),
        }
    dataset: Dataset = hd.seg.Segmentation(
        source_images=[_with_shared_groups(headers, source) for source in headers.datasets],
        pixel_array=pixels,
        omit_empty_frames=bool(pixels.any()),
        segmentation_type=profile.upper(),
        segment_descriptions=described,
        fractional_type="PROBABILITY",
        max_fractional_value=255,
        content_label="SEGMENTATION",
        content_description=f"made by {series['manufacturer_model_name']}"[:64],
        **places,
        **series,
    )
    date_of_creation(dataset, series)
    dataset.ContentCreatorName = None
    if places:
        _refer(dataset, headers)
    else:
        dataset.PatientOrientation = first.get("PatientOrientation")
    return dataset


def _with_shared_groups(headers: SourceHeaders, source: Dataset) -> Dataset:
    """Return a source whose groups of the first slice are shared by all, as highdicom reads them.

    An enhanced object may state them of each frame.
    """
    if not source.get("SharedFunctionalGroupsSequence"):
        return source
    result, shared = Dataset(source), Dataset(source.SharedFunctionalGroupsSequence[0])
    result.file_meta = source.file_meta
    shared.PixelMeasuresSequence = [headers.group(0, "PixelMeasuresSequence")]
    shared.PlaneOrientationSequence = [headers.group(0, "PlaneOrientationSequence")]
    result.SharedFunctionalGroupsSequence = [shared]
    return result


def _position(headers: SourceHeaders, place: int) -> hd.PlanePositionSequence:
    sequence = hd.PlanePositionSequence("PATIENT", headers.slices[place]["position"])
    sequence[0].ImagePositionPatient = position_of(headers, place)
    return sequence


def _orientation(headers: SourceHeaders) -> hd.PlaneOrientationSequence:
    sequence = hd.PlaneOrientationSequence("PATIENT", headers.slices[0]["orientation"])
    sequence[0].ImageOrientationPatient = orientation_of(headers)
    return sequence


def _measures(headers: SourceHeaders) -> hd.PixelMeasuresSequence:
    stated = headers.group(0, "PixelMeasuresSequence")
    thickness = stated.get("SliceThickness") or headers.datasets[0].get("SliceThickness")
    positions = np.array([one["position"] for one in headers.slices], np.float64)
    row, column = np.asarray(headers.slices[0]["orientation"], np.float64).reshape(2, 3)
    depths = positions @ np.cross(row, column)
    between = float(np.median(np.abs(np.diff(depths)))) if len(depths) > 1 else None
    sequence = hd.PixelMeasuresSequence(
        headers.slices[0]["spacing"], float(thickness or between or 1.0)
    )
    sequence[0].PixelSpacing = spacing_of(headers)
    if thickness:
        sequence[0].SliceThickness = thickness
    return sequence


def _refer(dataset: Dataset, headers: SourceHeaders) -> None:
    """Say of each frame where it lies, in the text of its source, and of which frame it was made.

    highdicom matches planes by their numbers and takes every time point that fits.
    """
    positions = np.array([one["position"] for one in headers.slices], np.float64)
    texts = [position_of(headers, place) for place in range(len(positions))]
    for frame in dataset.PerFrameFunctionalGroupsSequence:
        own = frame.PlanePositionSequence[0]
        gaps = np.linalg.norm(positions - np.array(own.ImagePositionPatient, np.float64), axis=1)
        place = int(gaps.argmin())
        own.ImagePositionPatient = texts[place]
        frame.DerivationImageSequence = [_derivation(headers, place)]


def _derivation(headers: SourceHeaders, place: int) -> Dataset:
    one, source = headers.slices[place], headers.datasets[headers.number_of(place)]
    image = Dataset()
    image.ReferencedSOPClassUID = source.SOPClassUID
    image.ReferencedSOPInstanceUID = source.SOPInstanceUID
    if int(source.get("NumberOfFrames") or 1) > 1:
        image.ReferencedFrameNumber = one["frame"] + 1
    image.SpatialLocationsPreserved = "YES" if one["tile"] is None else "NO"
    image.PurposeOfReferenceCodeSequence = [
        hd.sr.CodedConcept.from_code(codes.DCM.SourceImageForImageProcessingOperation)
    ]
    derivation = Dataset()
    derivation.SourceImageSequence = [image]
    derivation.DerivationCodeSequence = [hd.sr.CodedConcept.from_code(codes.DCM.Segmentation)]
    return derivation


def _uncoded(labels: Sequence[Label], coded: Sequence[StructureCode]) -> tuple[Problem, ...]:
    names = [label.name for label, code in zip(labels, coded, strict=True) if code.is_private]
    if not names:
        return ()
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    text = (
        f"no standard code is known for {', '.join(names[:NAMED])}{more}: the DICOM SEG has private"
        f" ones ({PRIVATE_SCHEME})"
    )
    return (Problem("private-code", text, "warning"),)


def _cut(labels: Sequence[Label], profile: Profile) -> tuple[Problem, ...]:
    whole = [label.name for label in labels if label.inside != (label.index,)]
    if profile != "labelmap" or not whole:
        return ()
    text = (
        f"a label map holds one segment a voxel: of {', '.join(whole[:NAMED])} it holds what no"
        " other covers. The profile binary holds all of it"
    )
    return (Problem("overlapping-segments", text, "warning"),)
