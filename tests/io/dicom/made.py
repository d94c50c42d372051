"""Segmentations of small DICOM series, and what a validator says of the objects made of them."""

import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from medseg.io.dicom import find_series
from medseg.io.dicom.algorithm import Algorithm
from medseg.io.dicom.read import read_volume
from medseg.report.labels import label_statistics
from medseg.volume import Segmentation, Volume, make_labels
from tests.io.dicom.synthetic import ct_pixels, header, save, set_pixels, write_series

NAMES = ["liver", "kidney_left", "liver tumour", "odd thing"]
MADE_BY = Algorithm("bundle", "1.2.3", {"weights_sha256": "0123abcd"})


def volume_of(path: Path) -> Volume:
    """Read the one volume of a folder or file, of several frames the first."""
    (series,) = find_series(path).series
    (found,) = series.volumes
    return read_volume(found, frame=0 if found.frames > 1 else None)


def ct_volume(folder: Path, **tags: Any) -> Volume:
    """Write and read a series of seven slices."""
    write_series(folder, ct_pixels(7), **tags)
    return volume_of(folder)


def picture(folder: Path, *, rows: int = 20, columns: int = 24, **tags: Any) -> Volume:
    """Write and read a 2D radiograph."""
    stated = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1",
        "Modality": "DX",
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "FrameOfReferenceUID": None,
        "SliceThickness": None,
        "PixelSpacing": [0.5, 0.25],
        **tags,
    }
    ds = header(**stated)
    set_pixels(ds, ct_pixels(1, rows, columns)[0])
    save(ds, folder / "one.dcm")
    return volume_of(folder / "one.dcm")


def segmented(volume: Volume, names: list[str] | None = None) -> Segmentation:
    """Blocks of labels; the last label is one voxel."""
    names, side = names or NAMES, 4 if max(volume.shape) < 64 else 64
    coarse = np.random.default_rng(0).integers(0, len(names), [-(-n // side) for n in volume.shape])
    whole = np.kron(coarse, np.ones((side,) * coarse.ndim, int))
    array = whole[tuple(slice(n) for n in volume.shape)]
    array[tuple(n // 2 for n in volume.shape)] = len(names)
    return Segmentation(array.astype(np.uint8), volume.affine, make_labels(names), volume.source)


def statistics_of(segmentation: Segmentation) -> list[dict[str, Any]]:
    """Return statistics with measurements, which some labels lack."""
    rows = label_statistics(segmentation)
    for number, row in enumerate(rows):
        row["intensity"] = {"mean": 10.25 + number, "sd": 0.5 + number}
        row["largest_diameter_mm"] = 33.125 + number
    rows[0] |= {"in_plane_diameter_mm": 20.5, "in_plane_short_mm": 9.75}
    rows[1] |= {"intensity": None, "largest_diameter_mm": None}
    return rows


def said(path: Path) -> set[str]:
    """Return the errors that dciodvfy finds in a file."""
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    return {line for line in done.stderr.splitlines() if line.startswith("Error")}


REAL = [
    "dicom/Study3/11_HCropVolume",
    "dicom_qa/ct_philips_gantry_tilt/In",
    "dicom_qa/mr_philips_enhanced/In",
    "dicom_qa/mr_siemens_mosaic_axial/In",
    "totalseg_example/example_ct_dicom",
    "dicom_odd/examples_palette.dcm",
    "dicom_odd/JLSL_16_15_1_1F.dcm",
]
"""Real files: plain, tilted, enhanced, a mosaic, without UIDs, in colour, of before 1993."""
