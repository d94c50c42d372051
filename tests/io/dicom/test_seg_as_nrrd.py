"""Segments as the NRRD files that programs for DICOM SEG make of them: in place, voxel by voxel.

The frames are decoded by pydicom, put in order by their positions and written by SimpleITK, as
dcmqi's segimage2itkimage does; nothing of medseg takes part but the mask that they are compared to.
"""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from medseg.geometry import LPS_TO_RAS
from medseg.io.dicom.seg_write import write_segmentation
from medseg.volume import Segmentation
from tests.io.dicom.made import MADE_BY, segmented, volume_of
from tests.io.dicom.synthetic import ct_pixels, enhanced, save, write_series
from tests.real_data import data_folder

OBLIQUE = [0.8, 0.6, 0.0, -0.36, 0.48, 0.8]


def write_nrrd(seg: Path, folder: Path) -> dict[str, Path]:
    """Write each segment of a DICOM SEG as NRRD, on the slices from its first to its last."""
    ds = pydicom.dcmread(seg)
    shared = ds.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    row, column = cosines.reshape(2, 3)
    normal = np.cross(row, column)
    down, across = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    pixels = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns)
    places, numbers = [], []
    for groups in ds.PerFrameFunctionalGroupsSequence:
        places.append([float(v) for v in groups.PlanePositionSequence[0].ImagePositionPatient])
        numbers.append(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
    depths = np.array(places) @ normal
    step = np.diff(np.unique(depths.round(3))).min()
    written = {}
    for segment in ds.SegmentSequence:
        own = [n for n, number in enumerate(numbers) if number == segment.SegmentNumber]
        first = min(own, key=lambda n: depths[n])
        levels = {n: round((depths[n] - depths[first]) / step) for n in own}
        array = np.zeros((max(levels.values()) + 1, ds.Rows, ds.Columns), np.uint8)
        for n, level in levels.items():
            array[level] = pixels[n]
        image = sitk.GetImageFromArray(array)
        image.SetOrigin(places[first])
        image.SetSpacing((across, down, float(step)))
        image.SetDirection(np.column_stack([row, column, normal]).ravel().tolist())
        written[segment.SegmentLabel] = folder / f"{segment.SegmentNumber}.nrrd"
        sitk.WriteImage(image, str(written[segment.SegmentLabel]))
    return written


def voxels_in_place(path: Path, segmentation: Segmentation) -> np.ndarray:
    """Return a mask on the grid of a segmentation, of what a NRRD has at the same places."""
    image = sitk.ReadImage(str(path))
    inside = np.argwhere(sitk.GetArrayFromImage(image) > 0)[:, ::-1]
    direction = np.array(image.GetDirection()).reshape(3, 3)
    lps = inside * image.GetSpacing() @ direction.T + image.GetOrigin()
    to_voxels = np.linalg.inv(LPS_TO_RAS @ segmentation.affine)
    exact = lps @ to_voxels[:3, :3].T + to_voxels[:3, 3]
    index = np.rint(exact).astype(int)
    assert np.abs(exact - index).max() < 1e-3
    mask = np.zeros(segmentation.array.shape, bool)
    mask[tuple(index.T)] = True
    assert mask.sum() == len(inside)
    return mask


def source_of(folder: Path, kind: str) -> Path:
    row, column = np.array(OBLIQUE).reshape(2, 3)
    if kind == "oblique":
        places = [np.array([-10.5, 7.25, 3]) + 2.5 * k * np.cross(row, column) for k in range(9)]
        tags = {"ImageOrientationPatient": OBLIQUE, "PixelSpacing": [0.75, 1.125]}
        write_series(folder, ct_pixels(9), places, **tags)
    elif kind == "descending":
        write_series(folder, ct_pixels(9), [(5, 6, -2.0 * k) for k in range(9)])
    elif kind == "enhanced":
        places = [(-3.5, 4.25, 2.5 * k) for k in range(9)]
        save(enhanced(ct_pixels(9), places, spacing=(0.75, 1.5)), folder / "one")
    else:
        first, _, rest = kind.partition("/")
        return data_folder(first) / rest
    return folder


@pytest.mark.parametrize(
    "kind",
    [
        *("oblique", "descending", "enhanced", "dicom/Study3/11_HCropVolume"),
        *("dicom_qa/mr_philips_enhanced/In", "totalseg_example/example_ct_dicom"),
    ],
)
def test_segments_as_nrrd_lie_on_the_mask(tmp_path: Path, kind: str) -> None:
    segmentation = segmented(volume_of(source_of(tmp_path / "in", kind)))
    write_segmentation(tmp_path / "seg.dcm", segmentation, MADE_BY)
    written = write_nrrd(tmp_path / "seg.dcm", tmp_path)
    assert list(written) == [label.name for label in segmentation.labels]
    for label in segmentation.labels:
        found = voxels_in_place(written[label.name], segmentation)
        np.testing.assert_array_equal(found, segmentation.array == label.index)
