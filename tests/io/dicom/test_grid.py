"""Slices onto an even grid: order, gaps, jitter, tilt; refusal where there is none."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from medseg.errors import DicomError
from medseg.geometry import apply_affine, corners
from medseg.io.dicom import DicomVolume, find_series, read_volume
from tests.io.dicom.synthetic import ct_pixels, write_series


def _only(path: Path) -> DicomVolume:
    (series,) = find_series(path).series
    (volume,) = series.volumes
    return volume


def _codes(volume: DicomVolume, *, errors: bool) -> list[str]:
    return [p.code for p in volume.problems if p.is_error is errors]


def _rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q if np.linalg.det(q) > 0 else -q


ORIENTATIONS = [
    (*(sign_a * np.eye(3)[a]), *(sign_b * np.eye(3)[b]))
    for a, b in product(range(3), repeat=2)
    if a != b
    for sign_a, sign_b in product((1, -1), repeat=2)
] + [tuple(_rotation(seed)[:, :2].T.ravel()) for seed in range(4)]


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: " ".join(f"{v:.2g}" for v in o))
@pytest.mark.parametrize("direction", [1, -1])
def test_every_orientation_agrees_with_simpleitk(
    tmp_path: Path, orientation: tuple[float, ...], direction: int
) -> None:
    pixels = ct_pixels()
    row, column = np.reshape(orientation, (2, 3))
    normal = np.cross(row, column)
    positions = [np.array([-31.5, 12.25, 7.0]) + direction * 2.5 * k * normal for k in range(5)]
    paths = write_series(
        tmp_path,
        pixels,
        positions,
        ImageOrientationPatient=[float(f"{v:.9f}") for v in orientation],
        PixelSpacing=[0.5, 0.75],
    )
    volume = read_volume(_only(tmp_path))
    assert volume.array.shape == (1, 16, 12, 5)
    assert volume.spacing_mm == pytest.approx((0.75, 0.5, 2.5))
    image = sitk.ReadImage([str(path) for path in _by_depth(paths, normal)])
    expected = sitk.GetArrayFromImage(image).transpose(2, 1, 0)
    np.testing.assert_array_equal(volume.array[0], expected)
    points = corners(volume.shape)
    lps = [image.TransformContinuousIndexToPhysicalPoint(point.tolist()) for point in points]
    np.testing.assert_allclose(
        apply_affine(volume.affine, points), np.asarray(lps) * [-1, -1, 1], atol=1e-4
    )


def _by_depth(paths: list[Path], normal: np.ndarray) -> list[Path]:
    def depth(path: Path) -> float:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        return float(np.dot(reader.GetOrigin(), normal))

    return sorted(paths, key=depth)


def test_array_is_a_view_of_one_contiguous_buffer(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels())
    array = read_volume(_only(tmp_path)).array
    assert array.transpose(0, 3, 2, 1).flags.c_contiguous


def test_missing_slice_is_refused_naming_gap_and_neighbours(tmp_path: Path) -> None:
    for path in write_series(tmp_path, ct_pixels(8)):
        if sitk.ReadImage(str(path)).GetOrigin()[2] == 8.0:
            path.unlink()
    volume = _only(tmp_path)
    assert _codes(volume, errors=True) == ["missing-slices"]
    assert "4.00 mm between instance 4 and 6" in volume.problems[0].message
    assert not volume.usable
    with pytest.raises(DicomError, match="Slices are missing") as caught:
        read_volume(volume)
    assert caught.value.code == "missing-slices"


def test_regridding_interpolates_missing_slices_linearly(tmp_path: Path) -> None:
    ramp = np.broadcast_to((np.arange(8) * 100)[:, None, None], (8, 12, 16)).astype(np.uint16)
    paths = write_series(tmp_path, ramp)
    for path in paths:
        if sitk.ReadImage(str(path)).GetOrigin()[2] in (6.0, 8.0):
            path.unlink()
    volume = read_volume(_only(tmp_path), regrid=True)
    assert volume.shape == (16, 12, 8)
    assert volume.spacing_mm == pytest.approx((1, 1, 2))
    np.testing.assert_array_equal(volume.array[0], ramp.T.astype(np.int16) - 1024)
    assert [p.code for p in volume.source.problems] == ["missing-slices", "regridded"]
    assert not any(p.is_error for p in volume.source.problems)


@pytest.mark.parametrize(
    ("share", "warning", "error"),
    [(0.005, [], []), (0.05, ["slice-jitter"], []), (0.25, [], ["irregular-spacing"])],
)
def test_jitter_is_accepted_reported_or_refused(
    tmp_path: Path, share: float, warning: list[str], error: list[str]
) -> None:
    heights = 2.0 * np.arange(9)
    heights[4] += 2.0 * share
    write_series(tmp_path, ct_pixels(9), [(0, 0, z) for z in heights])
    volume = _only(tmp_path)
    assert (_codes(volume, errors=False), _codes(volume, errors=True)) == (warning, error)


def test_irregular_spacing_regrids_to_the_median(tmp_path: Path) -> None:
    heights = np.array([0.0, 2.0, 4.0, 6.9, 8.0, 10.0, 12.0])
    values = np.broadcast_to((heights * 50)[:, None, None], (7, 12, 16)).astype(np.uint16)
    write_series(tmp_path, values, [(0, 0, z) for z in heights])
    volume = _only(tmp_path)
    assert _codes(volume, errors=True) == ["irregular-spacing"]
    even = read_volume(volume, regrid=True)
    np.testing.assert_allclose(even.array[0, 0, 0], np.arange(7) * 100 - 1024, atol=1)


def test_overlapping_parallel_stacks_are_refused(tmp_path: Path) -> None:
    positions = [(50.0 * (k % 2), 0, k) for k in range(8)]
    write_series(tmp_path, ct_pixels(8), positions)
    assert _codes(_only(tmp_path), errors=True) == ["irregular-spacing"]


@pytest.mark.parametrize("degrees", [-17.0, -0.5, 0.5, 12.0, 30.0])
def test_gantry_tilt_of_either_sign_is_regularised_exactly_on_a_ramp(
    tmp_path: Path, degrees: float
) -> None:
    tilt = np.radians(degrees)
    column = np.array([0, np.cos(tilt), np.sin(tilt)])
    positions = np.array([[-20.0, 5.0, 100 + 3.0 * k] for k in range(12)])  # table moves along z
    rows, columns = np.mgrid[:24, :16]
    world = (
        positions[:, None, None, :]
        + rows[None, :, :, None] * 0.9 * column
        + columns[None, :, :, None] * 0.8 * np.array([1.0, 0, 0])
    )
    truth = 40 + world @ [3.0, 5.0, 7.0]  # a linear field: linear interpolation repeats it
    pixels = np.round(truth * 4).astype(np.int16)
    write_series(
        tmp_path,
        pixels,
        positions,
        ImageOrientationPatient=[1, 0, 0, *column.tolist()],
        PixelSpacing=[0.9, 0.8],
        RescaleSlope="0.25",
        RescaleIntercept="-1500",
    )
    found = _only(tmp_path)
    assert _codes(found, errors=True) == []
    assert _codes(found, errors=False) == ["gantry-tilt"]
    volume = read_volume(found)
    assert found.size == volume.shape
    ijk = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), -1)
    expected = 40 + (apply_affine(volume.affine, ijk) * [-1, -1, 1]) @ [3.0, 5.0, 7.0] - 1500
    error = np.abs(volume.array[0] - expected)
    inside = volume.array[0] > -1024  # the field is above; air and its blends lie outside
    offsets = volume.source.details["offsets"]
    for k, (_, row) in enumerate(offsets):
        kept = slice(int(np.ceil(row)), int(np.floor(row)) + 24)
        assert inside[:, kept, k].all()
        assert error[:, kept, k].max() < 0.2  # rounding to a quarter, twice
    np.testing.assert_allclose(
        volume.affine[:3, 2],
        3 * np.cos(tilt) * np.array([0, np.sin(tilt), np.cos(tilt)]),
        atol=1e-9,
    )


def test_no_anatomy_is_lost_at_the_ends_of_a_tilted_stack(tmp_path: Path) -> None:
    column = np.array([0, np.cos(0.3), np.sin(0.3)])
    pixels = np.full((10, 20, 16), 1064, np.uint16)
    write_series(
        tmp_path,
        pixels,
        [(0, 0, 4.0 * k) for k in range(10)],
        ImageOrientationPatient=[1, 0, 0, *column.tolist()],
        RescaleIntercept=-1100,
    )
    volume = read_volume(_only(tmp_path))
    mass = (volume.array[0].astype(float) + 1024).sum(axis=(0, 1))
    np.testing.assert_allclose(mass, 20 * 16 * (1064 - 1100 + 1024), rtol=1e-3)


def test_single_slice_is_too_few(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels(1))
    assert _codes(_only(tmp_path), errors=True) == ["too-few-slices"]


@pytest.mark.parametrize(
    "absent", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"]
)
def test_slices_without_geometry_are_refused(tmp_path: Path, absent: str) -> None:
    write_series(tmp_path, ct_pixels(), per_slice=[{absent: None}] * 5)
    assert _codes(_only(tmp_path), errors=True) == ["no-geometry"]


def test_orientation_that_is_not_orthonormal_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels(), ImageOrientationPatient=[1, 0, 0, 0.5, 0.5, 0])
    assert _codes(_only(tmp_path), errors=True) == ["no-geometry"]


def test_slice_thickness_never_sets_the_spacing(tmp_path: Path) -> None:
    write_series(tmp_path, ct_pixels(), [(0, 0, 1.5 * k) for k in range(5)], SliceThickness=7)
    assert _only(tmp_path).spacing_mm[2] == pytest.approx(1.5)


def test_rounded_direction_cosines_give_perpendicular_axes_and_the_stated_spacing(
    tmp_path: Path,
) -> None:
    rotation = _rotation(7)
    row, column, normal = rotation.T
    write_series(
        tmp_path,
        ct_pixels(),
        [3.0 * k * normal for k in range(5)],
        ImageOrientationPatient=[round(float(v), 4) for v in (*row, *column)],
        PixelSpacing=[0.5, 0.75],
    )
    affine = read_volume(_only(tmp_path)).affine
    directions = affine[:3, :3] / [0.75, 0.5, 3.0]
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-6)
    exact = np.diag([-1, -1, 1]) @ rotation * [0.75, 0.5, 3.0]
    np.testing.assert_allclose(affine[:3, :3], exact, atol=3e-4)


@pytest.mark.parametrize("fault", ["duplicate", "single"])
def test_regridding_overrides_nothing_but_uneven_slices(tmp_path: Path, fault: str) -> None:
    write_series(tmp_path, ct_pixels(1 if fault == "single" else 5, seed=1))
    if fault == "duplicate":
        write_series(tmp_path, ct_pixels(5, seed=2))
    with pytest.raises(DicomError, match="must be usable"):
        read_volume(_only(tmp_path), regrid=True)
