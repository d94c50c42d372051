"""Small DICOM files with planted identifiers, written with pydicom alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
PLANTED = ("Planted^Name", "PLANTED-ID", "19330303", "Planted Hospital")
STUDY, SERIES, FRAME_OF_REFERENCE = (generate_uid(entropy_srcs=[s]) for s in ("a", "b", "c"))


def header(**tags: Any) -> FileDataset:
    """Return a CT slice's header without pixels; keywords override any element."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = tags.pop("TransferSyntaxUID", ExplicitVRLittleEndian)
    little = meta.TransferSyntaxUID != ExplicitVRBigEndian
    ds = FileDataset(None, {}, b"\0" * 128, meta, is_implicit_VR=False, is_little_endian=little)
    modality = tags.get("Modality", "CT")
    values = {
        "SOPClassUID": MRImageStorage if modality == "MR" else CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "PatientName": PLANTED[0],
        "PatientID": PLANTED[1],
        "PatientBirthDate": PLANTED[2],
        "InstitutionName": PLANTED[3],
        "Modality": "CT",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "FrameOfReferenceUID": FRAME_OF_REFERENCE,
        "SeriesNumber": 3,
        "SeriesDescription": "synthetic",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": [0.0, 0.0, 0.0],
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": [1.0, 1.0],
        "SliceThickness": 9.0,  # wrong on purpose: geometry comes from the positions
        **({"RescaleSlope": 1, "RescaleIntercept": -1024} if modality == "CT" else {}),
        **tags,
    }
    for keyword, value in values.items():
        if value is not None:
            setattr(ds, keyword, value)
    meta.MediaStorageSOPClassUID = ds.get("SOPClassUID") or CTImageStorage
    meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or generate_uid()
    return ds


def set_pixels(ds: Dataset, pixels: np.ndarray, **layout: Any) -> None:
    """Set pixel data and its description from an array of 8, 16 or 32 bits."""
    bits = pixels.dtype.itemsize * 8
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    shape = pixels.shape[:-1] if colour else pixels.shape
    values = {
        "Rows": shape[-2],
        "Columns": shape[-1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": layout.get("BitsStored", bits) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        **({"PlanarConfiguration": 0} if colour else {}),
        **({"NumberOfFrames": shape[0]} if len(shape) > 2 else {}),
        **layout,
    }
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    ds.PixelData = np.ascontiguousarray(pixels).tobytes() + b"\0" * (pixels.nbytes % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"


def save(ds: FileDataset, path: Path) -> Path:
    """Write a part-10 file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def ct_pixels(slices: int = 5, rows: int = 12, columns: int = 16, seed: int = 0) -> np.ndarray:
    """Return (slices, rows, columns) stored values that look like HU at intercept -1024."""
    return np.random.default_rng(seed).integers(0, 2000, (slices, rows, columns), np.uint16)


def write_series(
    folder: Path,
    pixels: np.ndarray,
    positions: Sequence[Sequence[float]] | None = None,
    *,
    layout: dict[str, Any] | None = None,
    per_slice: Sequence[dict[str, Any]] | None = None,
    **tags: Any,
) -> list[Path]:
    """Write one file a slice, in an order that is not that of the positions."""
    count = len(pixels)
    places = positions if positions is not None else [(0.0, 0.0, 2.0 * k) for k in range(count)]
    paths = []
    for k in np.random.default_rng(1).permutation(count):
        own = per_slice[k] if per_slice else {}
        ds = header(
            **{
                "InstanceNumber": int(k) + 1,
                "ImagePositionPatient": [float(v) for v in places[k]],
                **tags,
                **own,
            }
        )
        set_pixels(ds, pixels[k], **(layout or {}))
        number = len(list(folder.glob("*"))) if folder.exists() else 0
        paths.append(save(ds, folder / f"I{number:04d}"))
    return paths


def item(**tags: Any) -> Dataset:
    """Return a sequence item."""
    ds = Dataset()
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    return ds


def sequence(**tags: Any) -> DicomSequence:
    """Return a sequence of one item."""
    return DicomSequence([item(**tags)])


def enhanced(pixels: np.ndarray, positions: Sequence[Sequence[float]], **tags: Any) -> FileDataset:
    """Return an enhanced MR file: shared orientation and spacing, one position a frame.

    `frame_content`, `frame_groups`: one dict a frame, of FrameContent and of whole groups.
    """
    orientation = tags.pop("orientation", AXIAL)
    spacing = tags.pop("spacing", (1.0, 1.0))
    content = tags.pop("frame_content", [{} for _ in positions])
    groups = tags.pop("frame_groups", [{} for _ in positions])
    ds = header(
        **{
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.1",
            "Modality": "MR",
            "ImagePositionPatient": None,
            "ImageOrientationPatient": None,
            "PixelSpacing": None,
            "ImageType": ["ORIGINAL", "PRIMARY", "T1", "NONE"],
            **tags,
        }
    )
    set_pixels(ds, pixels)
    ds.SharedFunctionalGroupsSequence = sequence(
        PlaneOrientationSequence=sequence(ImageOrientationPatient=list(orientation)),
        PixelMeasuresSequence=sequence(PixelSpacing=list(spacing), SliceThickness=9.0),
    )
    ds.PerFrameFunctionalGroupsSequence = DicomSequence(
        item(
            PlanePositionSequence=sequence(ImagePositionPatient=[float(v) for v in position]),
            FrameContentSequence=sequence(**content[k]),
            **groups[k],
        )
        for k, position in enumerate(positions)
    )
    return ds
