"""Masks: what is one, and how it comes to another grid."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from medseg.errors import GeometryError, InputError
from medseg.io.masks import labels_in, on_grid_of, read_mask
from medseg.volume import Source, Volume, grid_difference


def _save(array: np.ndarray, path: Path, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
def test_whole_numbers_of_any_type_are_labels(dtype: type, tmp_path: Path) -> None:
    array = np.zeros((5, 6, 7), dtype)
    array[2, 3, 4] = 200
    mask = read_mask(_save(array, tmp_path / "m.nii.gz"))
    assert mask.array.dtype == np.uint8
    assert np.array_equal(mask.array[0], array)
    assert labels_in(mask) == {200}


def test_labels_over_255_are_kept(tmp_path: Path) -> None:
    array = np.zeros((5, 6, 7), np.int32)
    array[2, 3, 4] = 40000
    mask = read_mask(_save(array, tmp_path / "m.nii.gz"))
    assert (mask.array.dtype, labels_in(mask)) == (np.uint16, {40000})


@pytest.mark.parametrize(
    "array",
    [
        np.full((4, 4, 4), 0.5, np.float32),
        np.full((4, 4, 4), -1, np.int16),
        np.full((4, 4, 4), 70000, np.int32),
        np.arange(4096, dtype=np.int16).reshape(16, 16, 16),
    ],
    ids=["fraction", "negative", "too-large", "too-many"],
)
def test_images_and_probabilities_are_no_masks(array: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mask must hold.*m\.nii") as caught:
        read_mask(_save(array, tmp_path / "m.nii"))
    assert caught.value.code == "not-a-mask"


def test_a_palette_png_gives_its_indices_and_a_photo_is_no_mask(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 5, (12, 9)).astype(np.uint8)
    palette = Image.frombytes("P", (9, 12), array.tobytes())
    palette.putpalette([90, 80, 70] * 5)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_mask(tmp_path / "palette.png").array[0], array)
    Image.fromarray(array > 2).save(tmp_path / "bits.png")
    assert np.array_equal(read_mask(tmp_path / "bits.png").array[0], array > 2)
    grey = np.repeat(array[..., None], 3, axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_mask(tmp_path / "grey.png").array, array[None])
    grey[3, 4, 2] += 1
    Image.fromarray(grey).save(tmp_path / "photo.png")
    with pytest.raises(InputError, match="one channel"):
        read_mask(tmp_path / "photo.png")


def _volume(shape: tuple[int, ...], affine: np.ndarray, seed: int = 0) -> Volume:
    array = np.random.default_rng(seed).integers(0, 4, (1, *shape)).astype(np.uint8)
    return Volume(array, np.asarray(affine, float))


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((8, 9, 10), np.diag([1, 1, 2, 1.0]), ""),
        ((8, 9, 10), np.diag([1, 1, 2, 1.0]) + 5e-4 * np.eye(4, k=3), ""),
        ((8, 9, 11), np.diag([1, 1, 2, 1.0]), "size 8x9x11 against 8x9x10"),
        ((8, 9, 10), np.diag([1, 1, 2.1, 1.0]), "spacing 1 x 1 x 2.1 mm"),
        ((8, 9, 10), np.diag([-1, 1, 2, 1.0]), "stored as LAS against RAS"),
        ((8, 9, 10), np.diag([1, 1, 2, 1.0]) + 0.01 * np.eye(4, k=3), "0.01 voxels apart"),
    ],
)
def test_a_grid_difference_is_named(
    shape: tuple[int, ...], affine: np.ndarray, message: str
) -> None:
    difference = grid_difference(_volume(shape, affine), _volume((8, 9, 10), np.diag([1, 1, 2, 1])))
    assert message in difference
    assert bool(difference) == bool(message)


def test_a_mask_stored_in_another_order_comes_back_exactly() -> None:
    label = _volume((8, 9, 10), np.diag([0.7, 0.8, 2.0, 1]))
    flip = np.array([[0, 0, -1, 7.0], [-1, 0, 0, 8], [0, 1, 0, 0], [0, 0, 0, 1]])
    # the same voxels with axes (j reversed, k, i reversed)
    stored = label.array[0].transpose(1, 2, 0)[::-1, :, ::-1]
    pred = Volume(stored[None], label.affine @ flip)
    assert grid_difference(pred, label) == "size 9x10x8 against 8x9x10"
    back, problem = on_grid_of(pred, label)
    assert np.array_equal(back.array, label.array)
    assert grid_difference(back, label) == ""
    assert problem.code == "resampled"
    assert "outside" not in problem.message


def test_resampling_equals_that_of_simpleitk() -> None:
    pred = _volume(
        (14, 12, 9),
        np.array([[0.9, 0.1, 0, 3], [-0.1, 0.9, 0, -2], [0, 0, 2.3, 1.5], [0, 0, 0, 1.0]]),
    )
    label = _volume((11, 13, 17), np.diag([1.1, 0.83, 1.27, 1.0]))

    def image(volume: Volume) -> sitk.Image:
        made = sitk.GetImageFromArray(volume.array[0].T)
        spacing = np.asarray(volume.spacing_mm)
        made.SetSpacing(spacing.tolist())
        made.SetDirection((volume.affine[:3, :3] / spacing).ravel().tolist())
        made.SetOrigin(volume.affine[:3, 3].tolist())
        return made

    reference = sitk.Resample(image(pred), image(label), sitk.Transform(), sitk.sitkNearestNeighbor)
    got, _ = on_grid_of(pred, label)
    assert np.array_equal(got.array[0], sitk.GetArrayFromImage(reference).T)
    assert labels_in(got) == {1, 2, 3}


def test_what_falls_outside_the_grid_is_told() -> None:
    pred = Volume(np.ones((1, 10, 10, 10), np.uint8), np.eye(4))
    label = Volume(np.ones((1, 10, 10, 7), np.uint8), np.eye(4))
    assert "300 labelled voxels lie outside" in on_grid_of(pred, label)[1].message


def test_images_without_a_common_space_are_not_resampled() -> None:
    source = Source(format="raster", has_spacing=False)
    a = Volume(np.zeros((1, 5, 6), np.uint8), np.eye(3), source)
    b = Volume(np.zeros((1, 5, 7), np.uint8), np.eye(3), source)
    with pytest.raises(GeometryError) as caught:
        on_grid_of(a, b)
    assert caught.value.code == "grid-mismatch"
