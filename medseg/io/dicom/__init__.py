"""DICOM in; the only place that touches pydicom and highdicom."""

from medseg.io.dicom.instance import Rejected
from medseg.io.dicom.read import read_volume
from medseg.io.dicom.scan import Scan, find_series
from medseg.io.dicom.series import DicomVolume, Series

__all__ = ["DicomVolume", "Rejected", "Scan", "Series", "find_series", "read_volume"]
