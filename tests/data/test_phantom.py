import numpy as np
import pytest
import SimpleITK

from medseg.data.anatomy import sample_anatomy
from medseg.data.phantom import ORGAN, TUMOUR, phantom_ct, random_grid
from medseg.geometry import corners, orthonormal_error
from tests.phantoms import abdomen, oblique_affine


def as_sitk(array, affine):
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(array.T))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def dice(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_equal_seeds_give_equal_volumes_and_other_seeds_do_not():
    first, mask = abdomen(3)
    again, mask_again = abdomen(3)
    other, _ = abdomen(4)
    assert np.array_equal(first.array, again.array)
    assert np.array_equal(mask, mask_again)
    assert not np.array_equal(first.array, other.array)


def test_image_and_mask_have_the_promised_types():
    volume, mask = abdomen(0)
    assert volume.array.dtype == np.int16
    assert volume.array.min() >= -1024
    assert volume.array.max() <= 3071
    assert mask.dtype == np.uint8
    assert mask.shape == volume.shape
    assert volume.source.modality == "CT"


@pytest.mark.parametrize("seed", [0, 1])
def test_one_seed_is_one_patient_on_every_grid(seed):
    """Resampled by SimpleITK, the oblique mask is the axial mask."""
    axial = np.diag([4.0, 4.0, 4.0, 1.0])
    axial[:3, 3] = (-40, -100, -70)
    shape = (45, 50, 35)
    oblique = oblique_affine("LIA", (2.1, 3.0, 2.4))
    oblique_shape = (150, 110, 135)
    centre = oblique[:3, :3] @ (np.array(oblique_shape) - 1) / 2
    oblique[:3, 3] = np.array([48, 0, 0]) - centre
    image, mask = phantom_ct(seed, shape=shape, affine=axial)
    other_image, other_mask = phantom_ct(seed, shape=oblique_shape, affine=oblique)
    target = as_sitk(mask, axial)
    moved = SimpleITK.Resample(
        as_sitk(other_mask, oblique), target, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor
    )
    moved_mask = SimpleITK.GetArrayFromImage(moved).T
    assert dice(mask > 0, moved_mask > 0) > 0.97
    assert dice(mask == TUMOUR, moved_mask == TUMOUR) > 0.85
    blurred = SimpleITK.SmoothingRecursiveGaussian(
        as_sitk(other_image.array[0].astype(np.float32), oblique), 2.0
    )
    moved_image = SimpleITK.GetArrayFromImage(SimpleITK.Resample(blurred, target)).T
    inside = mask == ORGAN
    assert abs(np.median(moved_image[inside]) - np.median(image.array[0][inside])) < 4


def test_patients_differ_in_the_number_of_tumours_and_some_have_none():
    counts = [len(sample_anatomy(seed).tumours) for seed in range(60)]
    assert set(counts) == {0, 1, 2, 3}


@pytest.mark.parametrize("seed", range(6))
def test_organ_and_tumours_have_plausible_sizes_and_brightness(seed):
    volume, mask = abdomen(seed)
    voxel_ml = 0.512
    assert 600 < (mask > 0).sum() * voxel_ml < 2200
    anatomy = sample_anatomy(seed)
    organ = np.median(volume.array[0][mask == ORGAN])
    assert abs(organ - anatomy.organ_hu) < 8
    for tumour in anatomy.tumours:
        assert tumour.hu <= anatomy.organ_hu - 30
    if (mask == TUMOUR).sum() > 40:
        assert np.median(volume.array[0][mask == TUMOUR]) < organ - 8


def test_no_threshold_finds_the_organ():
    """The best window of brightness stays far from the organ: context is needed."""
    volume, mask = abdomen(1)
    hu = volume.array[0]
    best = max(
        dice((hu >= low) & (hu <= low + width), mask > 0)
        for low in range(-20, 120, 10)
        for width in (20, 40, 60, 80)
    )
    assert best < 0.75


def test_random_grids_are_rigid_cover_the_origin_and_vary():
    grids = [random_grid(seed) for seed in range(40)]
    for shape, affine in grids:
        assert orthonormal_error(affine) < 1e-6
        index = np.linalg.inv(affine) @ [0, 0, 0, 1]
        assert (index[:3] > 0).all()
        assert (index[:3] < np.array(shape)).all()
        assert len(corners(shape)) == 8
    assert any(abs(affine[0, 0]) < 1 for _, affine in grids), "no grid with another axis order"
    assert len({round(float(np.linalg.norm(a[:3, :3], axis=0).max()), 2) for _, a in grids}) > 3


def test_shape_without_affine_is_refused():
    with pytest.raises(ValueError, match="given together"):
        phantom_ct(0, shape=(8, 8, 8))
