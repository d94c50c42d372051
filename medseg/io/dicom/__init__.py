"""DICOM in; the only place that touches pydicom and highdicom."""

from medseg.io.dicom.instance import Rejected
from medseg.io.dicom.patient import patient_key
from medseg.io.dicom.read import read_volume
from medseg.io.dicom.scan import Scan, find_series
from medseg.io.dicom.segment_header import (
    SegmentationHeader,
    is_segmentation,
    read_segmentation_header,
)
from medseg.io.dicom.segmentation import read_combinations, read_segmentation
from medseg.io.dicom.series import DicomVolume, Series

__all__ = [
    "DicomVolume",
    "Rejected",
    "Scan",
    "SegmentationHeader",
    "Series",
    "find_series",
    "is_segmentation",
    "patient_key",
    "read_combinations",
    "read_segmentation",
    "read_segmentation_header",
    "read_volume",
]
