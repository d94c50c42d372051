"""Real scanner DICOM against the conversions of an independent program, and against its headers."""

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from medseg.geometry import apply_affine, corners
from medseg.io.dicom import DicomVolume, find_series, read_volume
from medseg.volume import Volume
from tests.real_data import data_folder

AFFINE_TOLERANCE_MM = 1e-3  # both programs round header fields and store float32
SCALED_BY_REFERENCE = {"mr_philips_classic", "mr_philips_enhanced"}


def _only_volume(path: Path) -> DicomVolume:
    (series,) = find_series(path).series
    (volume,) = series.volumes
    return volume


def _on_grid_of(reference: nibabel.Nifti1Image, volume: Volume) -> np.ndarray:
    """Return the volume's voxels in the axis order of a reference at the same world positions."""
    mapping = np.linalg.inv(volume.affine) @ reference.affine
    axes = np.abs(mapping[:3, :3]).argmax(axis=0)
    assert sorted(axes) == [0, 1, 2]
    signs = np.sign([mapping[axes[k], k] for k in range(3)])
    array = volume.array.transpose(1 + axes[0], 1 + axes[1], 1 + axes[2], 0)
    array = array[tuple(slice(None, None, int(sign)) for sign in signs)]
    exact = np.zeros((4, 4))
    exact[3, 3] = 1
    for k in range(3):
        exact[axes[k], k] = signs[k]
        exact[axes[k], 3] = 0 if signs[k] > 0 else volume.shape[axes[k]] - 1
    points = corners(reference.shape[:3])
    ours = apply_affine(volume.affine @ exact, points)
    assert np.abs(ours - apply_affine(reference.affine, points)).max() < AFFINE_TOLERANCE_MM
    return array


@pytest.mark.parametrize(
    "name",
    [
        "mr_ge_epi_4d",
        "mr_philips_classic",
        "mr_philips_enhanced",
        "mr_siemens_enhanced_4d",
        "mr_siemens_mosaic_axial",
        "mr_siemens_mosaic_coronal",
    ],
)
def test_series_agrees_with_the_reference_conversion(name: str) -> None:
    folder = data_folder("dicom_qa") / name
    (path,) = [*folder.glob("Ref/*.nii"), *folder.glob("Ref/*.nii.gz")]
    reference = nibabel.load(path)
    found = _only_volume(folder / "In")
    volume = read_volume(found)
    expected = np.asarray(reference.dataobj).reshape(*reference.shape[:3], -1)
    array = _on_grid_of(reference, volume)
    assert found.frames == volume.channels == expected.shape[3]
    assert found.size == volume.shape
    assert found.spacing_mm == pytest.approx(volume.spacing_mm)
    assert found.orientation == volume.orientation
    if name in SCALED_BY_REFERENCE:
        factor, offset = np.polyfit(expected.ravel(), array.ravel(), 1)
        np.testing.assert_allclose(array, expected * factor + offset, rtol=1e-5, atol=1e-3)
    else:
        np.testing.assert_array_equal(array, expected)


def test_enhanced_and_classic_files_give_the_same_volume() -> None:
    folder = data_folder("dicom_qa")
    classic = read_volume(_only_volume(folder / "mr_philips_classic" / "In"))
    enhanced = read_volume(_only_volume(folder / "mr_philips_enhanced" / "In"))
    np.testing.assert_allclose(enhanced.affine, classic.affine, atol=1e-4)
    np.testing.assert_array_equal(enhanced.array, classic.array)


def test_gantry_tilt_is_read_off_the_positions_and_regularised() -> None:
    folder = data_folder("dicom_qa") / "ct_philips_gantry_tilt"
    stack = json.loads((folder / "geometry.json").read_text())["stacks"][0]
    found = _only_volume(folder / "In")
    assert found.usable
    (tilt,) = found.problems
    assert tilt.code == "gantry-tilt"
    angle = float(re.search(r"by ([\d.]+) degrees", tilt.message)[1])
    assert angle == pytest.approx(stack["shear_angle_deg"], abs=0.01)
    volume = read_volume(found)
    assert [path.name for path in volume.source.instances] == stack["files_in_order_along_normal"]
    step = np.mean(stack["distance_between_slices_along_normal"])
    assert volume.spacing_mm == pytest.approx((*stack["pixel_spacing_row_col"], step), abs=1e-3)
    directions = volume.affine[:3, :3] / volume.spacing_mm
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    slices = volume.source.details["slices"]
    assert slices[0]["position"] == pytest.approx(stack["first_position"], abs=1e-3)
    assert slices[-1]["position"] == pytest.approx(stack["last_position"], abs=1e-3)
    _check_values_where_they_were_acquired(volume)


def _check_values_where_they_were_acquired(volume: Volume) -> None:
    """Sample the regular grid at the world positions of original pixels, slice by slice."""
    for k, path in enumerate(volume.source.instances):
        image = sitk.ReadImage(str(path))
        original = sitk.GetArrayFromImage(image)[0].astype(float)
        rows, columns = np.mgrid[20:500:7, 20:500:7]
        lps = [
            image.TransformIndexToPhysicalPoint((int(c), int(r), 0))
            for r, c in zip(rows.ravel(), columns.ravel(), strict=True)
        ]
        ijk = apply_affine(np.linalg.inv(volume.affine), np.asarray(lps) * [-1, -1, 1])
        np.testing.assert_allclose(ijk[:, 2], k, atol=1e-3)
        np.testing.assert_allclose(ijk[:, 0], columns.ravel(), atol=1e-3)
        low = np.floor(ijk[:, 1] + 1e-6).astype(int)
        part = ijk[:, 1] - low
        plane = volume.array[0, :, :, k].astype(float)
        around = [plane[columns.ravel(), low + d] for d in (0, 1)]
        sampled = around[0] * (1 - part) + around[1] * part
        inside = original[20:500:7, 20:500:7].ravel()
        smooth = np.ptp([original[19 + d : 499 + d : 7, 20:500:7] for d in range(4)], axis=0) < 60
        assert smooth.mean() > 0.5
        assert np.abs(sampled - inside)[smooth.ravel()].max() <= 60
        assert abs((sampled - inside).mean()) < 1


ODD_FILES = {
    "CT_small.dcm": "too-few-slices",
    "JLSL_16_15_1_1F.dcm": (1, 128, 128),
    "MR_small.dcm": "too-few-slices",
    "MR_small_RLE.dcm": "too-few-slices",
    "MR_small_bigendian.dcm": "too-few-slices",
    "MR_small_jp2klossless.dcm": "too-few-slices",
    "MR_truncated.dcm": "truncated",
    "SC_rgb_rle.dcm": (3, 100, 100),
    "color-px.dcm": (3, 120, 256),
    "eCT_Supplemental.dcm": "not-hu-like",
    "emri_small.dcm": "no-geometry",
    "emri_small_RLE.dcm": "no-geometry",
    "examples_palette.dcm": (3, 350, 800),
    "liver_1frame.dcm": "rejected: not-an-image",
    "meta_missing_tsyntax.dcm": "rejected: not-an-image",
    "no_meta.dcm": "rejected: not-dicom",
    "rtstruct.dcm": "rejected: not-an-image",
}


@pytest.mark.parametrize("name", ODD_FILES)
def test_odd_file_is_read_or_refused_with_its_code(name: str) -> None:
    path = data_folder("dicom_odd") / name
    expected = ODD_FILES[name]
    scan = find_series(path)
    if isinstance(expected, str) and expected.startswith("rejected"):
        assert scan.series == ()
        assert [f"rejected: {r.code}" for r in scan.rejected] == [expected]
        return
    volume = _only_volume(path)
    if isinstance(expected, str):
        assert not volume.usable
        assert expected in [p.code for p in volume.problems if p.is_error]
        return
    array = read_volume(volume).array
    assert array.shape == expected
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(path))).squeeze()
    if name == "examples_palette.dcm":  # 16-bit entries there, their high byte here
        image = image >> 8 if image.dtype == np.uint16 else image
    np.testing.assert_array_equal(
        array.squeeze(), np.moveaxis(image, -1, 0) if image.ndim == 3 else image
    )


def test_nothing_of_a_mixed_folder_is_dropped_without_being_listed() -> None:
    folder = data_folder("dicom_odd")
    scan = find_series(folder)
    listed = sum(series.instances for series in scan.series) + len(scan.rejected)
    assert listed == len([path for path in folder.iterdir() if path.is_file()])


@pytest.mark.parametrize(
    "folder",
    [
        "dicom/Study3/11_HCropVolume",
        "dicom/Study3/11-T1post-18670",
        "totalseg_example/example_ct_dicom",
    ],
)
def test_plain_series_agrees_with_simpleitk(folder: str) -> None:
    path = data_folder(folder)
    found = _only_volume(path)
    assert found.usable
    volume = read_volume(found)
    reader = sitk.ImageSeriesReader()
    (series,) = reader.GetGDCMSeriesIDs(str(path)) or ("",)
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path), series))
    image = reader.Execute()
    array = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    points = corners(volume.shape)
    lps = [image.TransformContinuousIndexToPhysicalPoint(point.tolist()) for point in points]
    np.testing.assert_allclose(
        apply_affine(volume.affine, points), np.asarray(lps) * [-1, -1, 1], atol=1e-3
    )
    np.testing.assert_array_equal(volume.array[0], array)


def test_series_without_uids_lies_on_the_grid_of_its_reference_mask() -> None:
    folder = data_folder("totalseg_example")
    volume = _only_volume(folder / "example_ct_dicom")
    assert volume.size == (512, 512, 20)
    assert [p.code for p in volume.problems] == ["missing-uid"]
    reference = nibabel.load(folder / "example_seg_dicom.nii.gz")
    _on_grid_of(reference, read_volume(volume))
