"""What was measured of each label, as DICOM Structured Report (TID 1500)."""

import datetime
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from highdicom import sr
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from medseg.errors import Problem
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.derived import Made, date_of_creation, declare_private_scheme, now, series_of
from medseg.io.dicom.source_headers import SourceHeaders, source_headers
from medseg.io.dicom.structure_codes import StructureCode, code_of_label
from medseg.io.dicom.write import made_up_uid
from medseg.volume import Label, Segmentation

INTENSITIES = {
    "CT": (codes.DCM.AttenuationCoefficient, codes.UCUM.HounsfieldUnit),
    "MR": (codes.DCM.MRSignalIntensity, codes.UCUM.NoUnits),
}
"""Modality to what the values of its voxels are, and their unit; of others there is no code."""

Number = tuple[Code, float, Code, Code | None]
"""What was measured, its value and unit, and how it was derived of many."""


class _Setting(NamedTuple):
    """What all groups of a report share."""

    headers: SourceHeaders
    segmentation: Segmentation
    algorithm: sr.AlgorithmIdentification
    seg: Made | None


def measurement_report(
    segmentation: Segmentation,
    statistics: Sequence[Mapping[str, Any]],
    algorithm: Algorithm,
    *,
    seg: Made | None = None,
    made_at: datetime.datetime | None = None,
) -> Made:
    """Make a Comprehensive 3D SR with the measurements of each label that was found.

    Of each: its code, volume (of 2D images with a pixel size: area), and where `statistics` has
    them mean and standard deviation of CT and MR, the largest diameter, and the longest one within
    a slice with the one across it. Where a DICOM SEG is given each group has the tracking UID of
    its segment, and of a volume refers to it. Where nothing was found, all labels are listed
    with a volume of 0.

    Args:
        segmentation: Of a DICOM volume or picture.
        statistics: Of each label, as `report.label_statistics` gives them: `index`, `voxels`,
            `volume_ml`; `intensity` (`mean`, `sd`), `largest_diameter_mm`,
            `in_plane_diameter_mm` and `in_plane_short_mm` where they are known.
        algorithm: What made the segmentation.
        seg: DICOM SEG of the segmentation, which is written as well.
        made_at: When; the present if None.

    Returns:
        The object, and a warning where the source lacks UIDs (`made-up-uid`).

    Raises:
        DicomError: If the source is no DICOM (`no-dicom-source`) or states no UIDs (`no-uid`).

    Source:
        DICOM PS3.16 TID 1500, 1410, 1411 and 1501; written by highdicom.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on values of the source, which are copied as they are
        headers = source_headers(segmentation.source)
        identified = sr.AlgorithmIdentification(
            name=algorithm.name[:64],
            version=algorithm.version[:64],
            parameters=[f"{key} {text}" for key, text in algorithm.parameters.items()] or None,
        )
        setting = _Setting(headers, segmentation, identified, seg)
        rows = [row for row in statistics if row["voxels"]] or list(statistics)
        labels = {label.index: label for label in segmentation.labels}
        groups = [_group(labels[row["index"]], row, setting) for row in rows]
        content = sr.MeasurementReport(
            observation_context=sr.ObservationContext(observer_device_context=_device(algorithm)),
            procedure_reported=codes.SCT.ImagingProcedure,
            imaging_measurements=groups,
            title=codes.DCM.ImagingMeasurementReport,
        )
        series = series_of(headers, "sr", algorithm, made_at or now())
        dataset = sr.Comprehensive3DSR(
            evidence=[*headers.datasets, *([] if seg is None else [seg.dataset])],
            content=content[0],
            is_complete=True,
            **series,
        )
        dataset.SpecificCharacterSet = "ISO_IR 192"
        date_of_creation(dataset, series)
        if any(code_of_label(labels[row["index"]]).is_private for row in rows):
            declare_private_scheme(dataset)
    problems: tuple[Problem, ...] = headers.problems()
    return Made(dataset, problems)


def _device(algorithm: Algorithm) -> sr.ObserverContext:
    return sr.ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
            uid=made_up_uid("device", algorithm.name, algorithm.version),
            name="medseg",
            manufacturer_name="medseg",
            model_name=algorithm.name[:64],
        ),
    )


def _group(label: Label, row: Mapping[str, Any], setting: _Setting) -> Any:
    """Return the measurements of one label, of the template that fits what it can refer to."""
    code = code_of_label(label)
    number = None if setting.seg is None else setting.seg.segments.get(label.index)
    common: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(_tracking_uid(setting, number), label.name),
        "finding_type": code.kind,
        "finding_category": code.category,
        "algorithm_id": setting.algorithm,
        "finding_sites": _sites(code),
        "measurements": [
            sr.Measurement(name=name, value=value, unit=unit, derivation=derivation)
            for name, value, unit, derivation in _numbers(row, setting.segmentation)
        ],
    }
    is_picture = setting.segmentation.array.ndim == 2
    if setting.seg is None or number is None or is_picture:
        images = _source_of_picture(setting.headers) if is_picture else None
        return sr.MeasurementsAndQualitativeEvaluations(**common, source_images=images)
    segment = sr.ReferencedSegment(
        setting.seg.dataset.SOPClassUID,
        setting.seg.dataset.SOPInstanceUID,
        number,
        source_series=sr.SourceSeriesForSegmentation(setting.headers.datasets[0].SeriesInstanceUID),
    )
    return sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        **common, referenced_segment=segment
    )


def _numbers(row: Mapping[str, Any], segmentation: Segmentation) -> Iterator[Number]:
    """Yield what is known of a label."""
    source, intensity = segmentation.source, row.get("intensity") or {}
    if row.get("volume_ml") is not None:
        yield codes.SCT.Volume, float(row["volume_ml"]), codes.UCUM.CubicCentimeter, None
    elif source.has_spacing:
        pixel_mm2 = abs(float(np.linalg.det(segmentation.affine[:2, :2])))
        yield codes.SCT.Area, round(row["voxels"] * pixel_mm2, 6), codes.UCUM.SquareMillimeter, None
    kind = INTENSITIES.get(source.modality)
    for key, derivation in (("mean", codes.SCT.Mean), ("sd", codes.SCT.StandardDeviation)):
        if kind is not None and intensity.get(key) is not None:
            yield kind[0], float(intensity[key]), kind[1], derivation
    for key, name, derivation in (
        ("largest_diameter_mm", codes.SCT.Diameter, codes.SCT.Maximum),
        ("in_plane_diameter_mm", codes.SCT.LongAxis, None),
        ("in_plane_short_mm", codes.SCT.ShortAxis, None),
    ):
        if row.get(key) is not None:
            yield name, float(row[key]), codes.UCUM.Millimeter, derivation


def _sites(code: StructureCode) -> list[sr.FindingSite] | None:
    """Return where a lesion lies, or on which side a structure does; None where nobody said."""
    if code.region is None and code.laterality is None:
        return None
    return [sr.FindingSite(code.region or code.kind, laterality=code.laterality)]


def _tracking_uid(setting: _Setting, number: int | None) -> str:
    """Return the tracking UID that a segment states, else a new one."""
    if setting.seg is not None and number is not None:
        for segment in setting.seg.dataset.SegmentSequence:
            if segment.SegmentNumber == number:
                return str(segment.TrackingUID)
    return str(generate_uid())


def _source_of_picture(headers: SourceHeaders) -> list[sr.SourceImageForMeasurementGroup]:
    """Return the image of a 2D segmentation; those of a volume are listed as evidence."""
    first = headers.datasets[0]
    return [sr.SourceImageForMeasurementGroup(first.SOPClassUID, first.SOPInstanceUID)]
