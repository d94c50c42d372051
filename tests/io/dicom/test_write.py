from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK

from medseg.errors import GeometryError
from medseg.geometry import LPS_TO_RAS
from medseg.io.dicom import find_series, read_volume
from medseg.io.dicom.write import write_ct_series
from medseg.volume import Volume
from tests.phantoms import (
    all_orientations,
    in_world,
    numbered,
    oblique_affine,
    oriented_affine,
    tilted_affine,
    write_localizer,
    write_series,
)


def read_with_gdcm(folder: Path) -> Volume:
    reader = SimpleITK.ImageSeriesReader()
    (uid,) = reader.GetGDCMSeriesIDs(str(folder))
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder), uid))
    image = reader.Execute()
    affine = np.eye(4)
    matrix = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine[:3, :3], affine[:3, 3] = matrix, image.GetOrigin()
    return Volume(SimpleITK.GetArrayFromImage(image).T[None], LPS_TO_RAS @ affine)


AFFINES = {code: oriented_affine(code) for code in all_orientations()}
AFFINES["oblique"] = oblique_affine()
AFFINES["left-handed oblique"] = oblique_affine("RPS")


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
def test_another_reader_finds_the_same_voxels_at_the_same_places(affine, tmp_path):
    volume = numbered(affine=affine)
    write_series(volume, tmp_path)
    found = in_world(read_with_gdcm(tmp_path), affine)
    assert np.array_equal(found.array, volume.array)
    np.testing.assert_allclose(found.affine, affine, rtol=0, atol=1e-4)


def test_a_tilted_grid_keeps_the_position_of_every_slice(tmp_path):
    volume = numbered(affine=tilted_affine())
    files = write_ct_series(volume, tmp_path)
    for k, file in enumerate(files):
        position = pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient
        expected = LPS_TO_RAS @ volume.affine @ [0, 0, k, 1]
        np.testing.assert_allclose([float(v) for v in position], expected[:3], atol=1e-6)


def test_equal_arguments_give_equal_files_and_other_seeds_other_uids(tmp_path):
    volume = numbered()
    first = write_ct_series(volume, tmp_path / "a", seed=1)
    again = write_ct_series(volume, tmp_path / "b", seed=1)
    other = write_ct_series(volume, tmp_path / "c", seed=2)
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in again]
    uids = {
        getattr(pydicom.dcmread(files[0]), keyword)
        for files in (first, other)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    }
    assert len(uids) == 6
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids)


def test_a_localizer_shares_the_study_and_says_what_it_is(tmp_path):
    write_series(numbered(), tmp_path / "a", seed=5)
    write_localizer(tmp_path / "b", seed=5)
    image, scout = (
        pydicom.dcmread(next((tmp_path / name).iterdir()), stop_before_pixels=True) for name in "ab"
    )
    assert image.StudyInstanceUID == scout.StudyInstanceUID
    assert image.SeriesInstanceUID != scout.SeriesInstanceUID
    assert image.FrameOfReferenceUID == scout.FrameOfReferenceUID
    assert scout.ImageType[2] == "LOCALIZER"


def test_hounsfield_units_come_back_from_the_extremes(tmp_path):
    volume = numbered()
    volume.array.ravel()[:3] = [-1024, 3071, -3024]
    files = write_ct_series(volume, tmp_path)
    stored = pydicom.dcmread(files[0])
    assert stored.RescaleIntercept == -1024
    assert np.array_equal(read_with_gdcm(tmp_path).array, volume.array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((1, 4, 4, 4), np.float32), "float32"),
        (np.zeros((2, 4, 4, 4), np.int16), "one channel"),
        (np.full((1, 4, 4, 4), 40000, np.int32), "40000"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(array, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_ct_series(Volume(array, np.eye(4)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_sheared_plane_is_refused(tmp_path):
    affine = oriented_affine()
    affine[0, 1] = 0.2
    with pytest.raises(GeometryError, match="perpendicular rows and columns"):
        write_ct_series(numbered(affine=affine), tmp_path)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
def test_our_own_reader_finds_the_same_voxels_at_the_same_places(affine, tmp_path):
    volume = numbered(affine=affine)
    write_series(volume, tmp_path)
    scan = find_series(tmp_path)
    (candidate,) = (found for series in scan.series for found in series.volumes)
    assert candidate.usable
    found = in_world(read_volume(candidate), affine)
    assert found.array.dtype == np.int16
    assert np.array_equal(found.array, volume.array)
    np.testing.assert_allclose(found.affine, affine, rtol=0, atol=1e-4)
