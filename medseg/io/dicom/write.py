"""Write a volume as a classic single-frame CT series: for phantoms and tests, not for patients."""

import hashlib
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pydicom.valuerep import DSfloat

from medseg.errors import GeometryError
from medseg.geometry import LPS_TO_RAS, Affine, direction, spacing_mm
from medseg.volume import Volume

RESCALE_INTERCEPT_HU = -1024
HU_RANGE = (-32768 + RESCALE_INTERCEPT_HU, 32767 + RESCALE_INTERCEPT_HU)
IN_PLANE_TOLERANCE = 1e-4
"""Rows and columns must be perpendicular within this cosine."""


def made_up_uid(*parts: object) -> str:
    """Return a valid UID that depends on nothing but `parts`.

    Args:
        parts: Whatever tells the UID apart from others.

    Returns:
        A UID under `2.25`, the root that needs no registration.

    Source:
        DICOM PS3.5 B.2.

    Examples:
        >>> made_up_uid("study", 1) == made_up_uid("study", 1) != made_up_uid("study", 2)
        True
    """
    digest = hashlib.sha256("\0".join(str(part) for part in parts).encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def default_name(number: int) -> str:
    """Return the file name of an instance number: `IM_0001.dcm`."""
    return f"IM_{number:04d}.dcm"


def write_ct_series(
    volume: Volume,
    folder: Path,
    *,
    series_number: int = 1,
    description: str = "phantom",
    study_uid: str = "",
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL"),
    seed: int = 0,
    name: Callable[[int], str] = default_name,
) -> list[Path]:
    """Write a volume as CT Image Storage, one file a slice along the last axis.

    The made-up patient is called PHANTOM. Equal arguments give equal files, UIDs included. Two
    series of one `study_uid` share the frame of reference. Slices may be offset within their
    plane, as with a tilted gantry.

    Args:
        volume: (1, I, J, K), integers, HU; I runs along a row, J down a column.
        folder: Made when missing.
        series_number: SeriesNumber; part of the series' UID.
        description: SeriesDescription.
        study_uid: StudyInstanceUID; made from `seed` when empty.
        image_type: ImageType.
        seed: Part of every UID.
        name: File name, or path relative to `folder`, of an InstanceNumber counted from 1.

    Returns:
        The files, in the order of the last axis.

    Raises:
        ValueError: If the volume is not one channel of 3D integers that 16 bits hold.
        GeometryError: If rows and columns are not perpendicular.
    """
    stored = _stored_values(volume)
    affine_lps = LPS_TO_RAS @ volume.affine
    study = study_uid or made_up_uid("study", seed)
    common = _common(volume, affine_lps)
    common.StudyInstanceUID = study
    common.SeriesInstanceUID = made_up_uid("series", seed, study, series_number)
    common.FrameOfReferenceUID = made_up_uid("frame", study)
    common.SeriesNumber = series_number
    common.SeriesDescription = description
    common.ImageType = list(image_type)
    files = []
    for k in range(stored.shape[2]):
        path = folder / name(k + 1)
        path.parent.mkdir(parents=True, exist_ok=True)
        instance = _instance(common, stored[:, :, k], affine_lps, k)
        instance.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _stored_values(volume: Volume) -> npt.NDArray[np.int16]:
    """Return (I, J, K) values as stored: HU less the intercept."""
    array = volume.array
    if array.ndim != 4 or volume.channels != 1 or not np.issubdtype(array.dtype, np.integer):
        msg = (
            "volume must be one channel of 3D integers, got"
            f" {array.dtype} of shape {array.shape}. Round to int16 first."
        )
        raise ValueError(msg)
    low, high = int(array.min()), int(array.max())
    if low < HU_RANGE[0] or high > HU_RANGE[1]:
        msg = f"volume must lie within {HU_RANGE[0]} to {HU_RANGE[1]} HU, got {low} to {high}"
        raise ValueError(msg)
    stored = array[0].astype(np.int32) - RESCALE_INTERCEPT_HU
    return np.asarray(stored.astype(np.int16))


def _common(volume: Volume, affine_lps: Affine) -> Dataset:
    """Return what all instances of a series share."""
    cosines = direction(affine_lps)
    if abs(float(cosines[:, 0] @ cosines[:, 1])) > IN_PLANE_TOLERANCE:
        msg = (
            "volume must have perpendicular rows and columns, got a cosine of"
            f" {cosines[:, 0] @ cosines[:, 1]:.2g}. Resample it first."
        )
        raise GeometryError(msg, code="sheared-affine")
    spacing = spacing_mm(affine_lps)
    normal = np.cross(cosines[:, 0], cosines[:, 1])
    step = abs(float(normal @ affine_lps[:3, 2]))
    common = Dataset()
    common.update(_made_up_patient())
    common.ImageOrientationPatient = _decimals([*cosines[:, 0], *cosines[:, 1]])
    common.PixelSpacing = _decimals([spacing[1], spacing[0]])
    common.SliceThickness = _decimals([step])[0]
    common.Rows, common.Columns = volume.shape[1], volume.shape[0]
    return common


def _made_up_patient() -> Dataset:
    """Return the attributes that are the same in every file."""
    patient = Dataset()
    patient.SpecificCharacterSet = "ISO_IR 100"
    patient.SOPClassUID = CTImageStorage
    patient.StudyDate = patient.ContentDate = patient.AcquisitionDate = "20000101"
    patient.StudyTime = patient.ContentTime = patient.AcquisitionTime = "120000"
    patient.AccessionNumber = ""
    patient.Modality = "CT"
    patient.Manufacturer = "PHANTOM"
    patient.ReferringPhysicianName = ""
    patient.StudyDescription = "PHANTOM"
    patient.PatientName = "PHANTOM"
    patient.PatientID = "PHANTOM"
    patient.PatientBirthDate = ""
    patient.PatientSex = "O"
    patient.PatientPosition = "HFS"
    patient.KVP = "120"
    patient.StudyID = "1"
    patient.AcquisitionNumber = 1
    patient.PositionReferenceIndicator = ""
    patient.SamplesPerPixel = 1
    patient.PhotometricInterpretation = "MONOCHROME2"
    patient.BitsAllocated, patient.BitsStored, patient.HighBit = 16, 16, 15
    patient.PixelRepresentation = 1
    patient.RescaleIntercept = str(RESCALE_INTERCEPT_HU)
    patient.RescaleSlope = "1"
    patient.RescaleType = "HU"
    patient.WindowCenter, patient.WindowWidth = "60", "400"
    return patient


def _instance(common: Dataset, plane: npt.NDArray[np.int16], affine_lps: Affine, k: int) -> Dataset:
    """Return one file: slice `k`, its (I, J) stored values and its place."""
    instance = Dataset()
    instance.update(common)
    instance.SOPInstanceUID = made_up_uid("instance", common.SeriesInstanceUID, k)
    instance.InstanceNumber = k + 1
    instance.ImagePositionPatient = _decimals(affine_lps[:3, 3] + k * affine_lps[:3, 2])
    pixels = plane.T.astype("<i2")  # (rows, columns)
    instance.SmallestImagePixelValue = int(pixels.min())
    instance.LargestImagePixelValue = int(pixels.max())
    instance.PixelData = np.ascontiguousarray(pixels).tobytes()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = instance.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.file_meta = meta
    return instance


def _decimals(values: npt.ArrayLike) -> list[DSfloat]:
    """Return numbers as decimal strings of at most 16 characters."""
    return [DSfloat(float(value), auto_format=True) for value in np.atleast_1d(values)]
