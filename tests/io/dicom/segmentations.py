"""DICOM SEG objects over series of DICOM files, written by highdicom."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

WANTED = (
    "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime",
    "ReferringPhysicianName",
)  # fmt: skip


def series_files(folder: Path) -> list[Dataset]:
    """Read a folder's image slices, in the order of their position along the normal."""
    found = [dcmread(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    found = [ds for ds in found if ds.Modality != "SEG"]
    for ds in found:
        for keyword in WANTED:  # highdicom asks for them
            if keyword not in ds:
                setattr(ds, keyword, None)
    row, column = np.asarray(found[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row, column)
    return sorted(found, key=lambda ds: float(np.asarray(ds.ImagePositionPatient, float) @ normal))


def write_seg(
    path: Path,
    sources: Sequence[Dataset],
    masks: Mapping[str, npt.NDArray[Any]],
    *,
    kind: str = "BINARY",
    **options: Any,
) -> Path:
    """Write (slices, rows, columns) masks, in the order of `sources`, one segment a name."""
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(masks, start=1)
    ]
    array = np.stack(list(masks.values()), -1)
    if kind == "LABELMAP":
        array = (array * np.arange(1, len(masks) + 1)).sum(-1)
    elif kind == "BINARY":
        array = array.astype(np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seg = hd.seg.Segmentation(
            source_images=list(sources),
            pixel_array=array.astype(array.dtype if array.dtype.kind == "f" else np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues[kind],
            segment_descriptions=descriptions,
            series_instance_uid=hd.UID(),
            series_number=100,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="test",
            manufacturer_model_name="test",
            software_versions="1",
            device_serial_number="1",
            **options,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return path
