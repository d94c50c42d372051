"""DICOM in; the only place that touches pydicom and highdicom."""
