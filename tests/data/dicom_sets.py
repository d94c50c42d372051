"""Labelled datasets of DICOM series and DICOM SEG objects, for tests."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.uid import generate_uid

from medseg.geometry import LPS_TO_RAS, direction, spacing_mm
from medseg.volume import Volume
from tests.data.datasets import case_arrays
from tests.io.dicom.segmentations import series_files, write_seg
from tests.io.dicom.synthetic import write_series

OBLIQUE = np.array(
    [[-0.9, 0.1, 0.3, 12], [0.2, -1.1, 0.5, -7], [0.13, 0.3, 2.0, 30], [0, 0, 0, 1]], np.float64
)


def oblique_affine() -> npt.NDArray[np.float64]:
    """Return a tilted RAS affine with perpendicular axes of 0.9, 1.2 and 2 mm."""
    q, r = np.linalg.qr(OBLIQUE[:3, :3])
    affine = OBLIQUE.copy()
    affine[:3, :3] = q * np.sign(np.diag(r)) * (0.9, 1.2, 2.0)
    if np.linalg.det(affine[:3, :3]) < 0:  # rows, columns and slices of DICOM are right-handed
        affine[:3, 2] *= -1
    return affine


def write_dicom_series(folder: Path, volume: Volume, uid: str, **tags: Any) -> list[Path]:
    """Write one channel of whole numbers as an MR series; `uid` names study, patient and series."""
    affine = LPS_TO_RAS @ volume.affine
    cosines, spacing = direction(affine), spacing_mm(affine)
    pixels = np.ascontiguousarray(volume.array[0].transpose(2, 1, 0).astype(np.int16))
    values = {
        "Modality": "MR",
        "StudyInstanceUID": generate_uid(entropy_srcs=["study", uid]),
        "SeriesInstanceUID": generate_uid(entropy_srcs=["series", uid]),
        "FrameOfReferenceUID": generate_uid(entropy_srcs=["frame", uid]),
        "PatientID": f"patient {uid}",
        "ImageOrientationPatient": [*map(float, cosines[:, 0]), *map(float, cosines[:, 1])],
        "PixelSpacing": [float(spacing[1]), float(spacing[0])],
        "PixelRepresentation": 1,
        **tags,
    }
    for keyword in ("ImageOrientationPatient", "PixelSpacing"):
        values[keyword] = [float(f"{value:.9g}") for value in values[keyword]]
    positions = [
        [float(f"{value:.9g}") for value in affine[:3, 3] + k * affine[:3, 2]]
        for k in range(volume.shape[2])
    ]
    return write_series(folder, pixels, positions, **values)


def planes_of(label: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (I, J, K) as (slices, rows, columns)."""
    return np.ascontiguousarray(label.transpose(2, 1, 0))


def write_dicom_case(
    folder: Path, volume: Volume, masks: Mapping[str, npt.NDArray[Any]], uid: str, **tags: Any
) -> Path:
    """Write a series in `folder/images` and its SEG as `folder/seg.dcm`; (I, J, K) masks."""
    write_dicom_series(folder / "images", volume, uid, **tags)
    sources = series_files(folder / "images")
    if _descends(volume):
        masks = {name: mask[:, :, ::-1] for name, mask in masks.items()}
    return write_seg(
        folder / "seg.dcm", sources, {name: planes_of(mask) for name, mask in masks.items()}
    )


def _descends(volume: Volume) -> bool:
    """Whether the last axis of a volume runs against the normal of its slices."""
    return float(np.linalg.det((LPS_TO_RAS @ volume.affine)[:3, :3])) < 0


def write_dicom_set(root: Path, count: int = 4, **tags: Any) -> Path:
    """Write cases of noise with a bright box a label, one folder each."""
    for number in range(count):
        image, label = case_arrays(number)
        volume = Volume((100 * image[None]).round().astype(np.int16), oblique_affine())
        masks = {"left": label == 1, "right": label == 2}
        write_dicom_case(root / f"p{number}", volume, masks, str(number), **tags)
    return root
