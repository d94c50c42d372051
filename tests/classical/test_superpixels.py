"""Superpixels: a partition, of whole pieces, near cubes in millimetres, along the edges."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from skimage.segmentation import quickshift as skimage_quickshift

from medseg.classical import Quickshift, Slic, quickshift, slic
from medseg.errors import InputError, UsageError
from medseg.volume import Segmentation, Source, Volume
from tests.phantoms import oblique_affine

Array = npt.NDArray[Any]


def blocks(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Return a few large blocks of different intensity under noise."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 5, size=(3,) * len(shape)) * 40
    index = np.ix_(*[np.arange(n) * 3 // n for n in shape])
    return (coarse[index] + generator.normal(0, 3, shape)).astype(np.float32)


def picture(array: Array) -> Volume:
    return Volume(array, np.eye(3), Source(format="raster", has_spacing=False))


def scan(array: Array, spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    return Volume(array[None], oblique_affine("LPS", spacing_mm))


def parts(segmentation: Segmentation) -> list[int]:
    """Count the face-connected parts of each label."""
    return [ndimage.label(segmentation.array == label.index)[1] for label in segmentation.labels]


@pytest.mark.parametrize(
    "volume",
    [scan(blocks((24, 20, 16))), picture(blocks((45, 61))[None]), scan(blocks((30, 31, 1)))],
    ids=repr,
)
def test_every_voxel_is_in_one_connected_superpixel(volume: Volume) -> None:
    before = volume.array.copy()
    found = slic(volume, count=40)
    labels = [label.index for label in found.labels]
    assert labels == list(range(1, len(labels) + 1))
    assert np.unique(found.array).tolist() == labels
    assert 20 <= len(labels) <= 80
    assert parts(found) == [1] * len(labels)
    assert np.array_equal(volume.array, before)
    assert found.labels[0].name == "superpixel 1"


def test_superpixels_keep_to_the_edges() -> None:
    array = blocks((60, 60))
    truth = np.round(ndimage.median_filter(array, 5) / 40).astype(int)
    found = slic(picture(array[None]), count=60).array
    # the share of pixels that lie in the block their superpixel mostly lies in
    table = np.zeros((found.max() + 1, truth.max() + 1), int)
    np.add.at(table, (found, truth), 1)
    assert table.max(axis=1).sum() / found.size > 0.97


def test_thick_slices_get_cells_of_fewer_slices() -> None:
    flat = np.zeros((40, 40, 16), np.float32)
    thin, thick = scan(flat, (1.0, 1.0, 1.0)), scan(flat, (1.0, 1.0, 4.0))
    assert Slic(size_mm=8).cell_voxels(thin) == (8, 8, 8)
    assert Slic(size_mm=8).cell_voxels(thick) == (8, 8, 2)
    found = slic(thick, size_mm=8)
    assert len(found.labels) == 5 * 5 * 8
    sizes = [
        [part.stop - part.start for part in box]
        for box in ndimage.find_objects(found.array.astype(int))
    ]
    extents_mm = np.array(sizes) * thick.spacing_mm
    assert np.abs(extents_mm - 8).max() <= 4  # at most one slice off


def test_distances_are_in_millimetres() -> None:
    image = ndimage.gaussian_filter(np.random.default_rng(2).normal(size=(40, 40, 8)), (3, 3, 1))
    image = image.astype(np.float32)
    fine = slic(scan(np.repeat(image, 4, axis=2)), size_mm=8, compactness=20).array

    def likeness(spacing_mm: tuple[float, float, float]) -> float:
        """Return the median overlap of superpixels with their like on the finer grid."""
        coarse = slic(scan(image, spacing_mm), size_mm=8, compactness=20).array
        table = np.zeros((coarse.max(), fine.max()))
        np.add.at(table, (np.repeat(coarse, 4, axis=2) - 1, fine - 1), 1)
        overlap = table / (table.sum(0) + table.sum(1)[:, None] - table)
        return float(np.median(overlap.max(axis=1)))

    assert likeness((1.0, 1.0, 4.0)) > 0.6
    assert likeness((1.0, 1.0, 1.0)) < 0.4  # what a wrong spacing gives


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 0.5, 3.0), (0.7, 2.0, 1.1)])
@pytest.mark.parametrize("count", [8, 100, 1000])
def test_the_number_asked_for_is_about_the_number_of_cells(
    spacing_mm: tuple[float, float, float], count: int
) -> None:
    volume = scan(np.zeros((60, 50, 20), np.float32), spacing_mm)
    cell = Slic(count=count).cell_voxels(volume)
    cells = np.prod([n / step for n, step in zip(volume.shape, cell, strict=True)])
    assert count / 2 < cells < count * 2


def test_a_slice_thicker_than_the_edge_is_a_layer_of_its_own() -> None:
    volume = scan(np.zeros((40, 40, 10), np.float32), (1.0, 1.0, 20.0))
    assert Slic(count=160).cell_voxels(volume) == (10, 10, 1)
    short = scan(np.zeros((40, 40, 2), np.float32))
    assert Slic(count=16).cell_voxels(short) == (10, 10, 2)


def test_intensities_of_any_scale_give_the_same_superpixels() -> None:
    array = blocks((40, 40))
    first = slic(picture(array[None]), count=30).array
    second = slic(picture(array[None] * 8 - 1024), count=30).array
    assert np.mean(first != second) < 0.02  # rounding alone


def test_a_window_makes_small_steps_within_it_count() -> None:
    array = np.zeros((40, 40), np.float32)
    array[:, 21:] = 40  # soft tissue beside water
    array[:4] = 3000  # bone
    wide = slic(picture(array[None]), count=16, compactness=5).array
    narrow = slic(picture(array[None]), count=16, compactness=5, window=(-160, 240)).array

    def crossing(labels: Array) -> int:
        return len(set(labels[6:, :21].ravel()) & set(labels[6:, 21:].ravel()))

    assert crossing(wide) > 0
    assert crossing(narrow) == 0


def test_colours_of_equal_lightness_are_told_apart() -> None:
    array = np.zeros((3, 40, 40), np.uint8)
    array[0, :, :21] = 180
    array[1, :, 21:] = 127  # about as light in Lab
    found = slic(picture(array), count=16, compactness=5).array
    assert not set(found[:, :21].ravel()) & set(found[:, 21:].ravel())


def test_a_picture_loaded_as_floats_gives_the_same_superpixels() -> None:
    array = np.stack([blocks((40, 44), seed) for seed in range(3)]).clip(0, 255).astype(np.uint8)
    whole, floats = (slic(picture(a), count=40).array for a in (array, array.astype(np.float32)))
    assert np.array_equal(whole, floats)


def test_a_constant_image_becomes_even_cells() -> None:
    found = slic(picture(np.full((1, 40, 40), 7, np.uint8)), count=16)
    assert len(found.labels) == 16
    assert np.bincount(found.array.ravel())[1:].tolist() == [100] * 16


def test_the_same_image_gives_the_same_superpixels() -> None:
    volume = scan(blocks((24, 20, 16)))
    assert np.array_equal(slic(volume, count=40).array, slic(volume, count=40).array)


def test_more_than_a_mask_can_hold_are_refused_before_any_work() -> None:
    with pytest.raises(UsageError, match="at most 65535, got 70000") as caught:
        Slic(count=70_000)
    assert caught.value.code == "too-many-regions"
    volume = picture(np.zeros((1, 300, 300), np.uint8))
    with pytest.raises(UsageError, match="at most 65535, got 90000") as caught:
        slic(volume, size_mm=1)
    assert caught.value.code == "too-many-regions"


def test_over_255_superpixels_are_uint16() -> None:
    assert slic(picture(blocks((60, 60))[None]), count=400).array.dtype == np.uint16
    assert slic(picture(blocks((60, 60))[None]), count=40).array.dtype == np.uint8


def test_a_size_in_a_picture_without_pixel_size_is_said_to_be_pixels() -> None:
    found = slic(picture(np.zeros((1, 40, 40), np.uint8)), size_mm=10)
    assert [problem.code for problem in found.source.problems] == ["no-pixel-size"]
    assert len(found.labels) == 16
    assert slic(picture(np.zeros((1, 40, 40), np.uint8)), count=16).source.problems == ()


@pytest.mark.parametrize(
    "settings",
    [
        {"count": 0},
        {"count": 5, "size_mm": 5.0},
        {"size_mm": 0.0},
        {"size_mm": float("inf")},
        {"compactness": 0.0},
        {"iterations": 0},
        {"window": (5.0, 5.0)},
        {"window": (5.0, 1.0)},
    ],
    ids=str,
)
def test_settings_of_slic_are_checked_before_any_image(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        Slic(**settings)


def test_nan_is_refused() -> None:
    array = np.zeros((1, 5, 5), np.float32)
    array[0, 1, 1] = np.nan
    for method in (Slic(), Quickshift()):
        with pytest.raises(InputError, match="1 of 25") as caught:
            method(picture(array))
        assert caught.value.code == "non-finite"


def test_quickshift_covers_a_picture_and_is_scikit_images() -> None:
    array = (np.stack([blocks((40, 44), seed) for seed in range(3)]) + 20).clip(0, 255)
    array[:, 0, :2] = 0, 255  # colours are stretched to the full range, which this is
    volume = picture(array.astype(np.uint8))
    found = quickshift(volume, kernel_pixels=2, distance=8)
    expected = skimage_quickshift(np.moveaxis(volume.array, 0, -1), kernel_size=2, max_dist=8)
    pairs = set(zip(found.array.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == len(found.labels) == expected.max() + 1  # one to one
    assert found.array.min() == 1


def test_quickshift_of_one_slice_has_the_shape_of_its_volume() -> None:
    array = blocks((20, 22))
    flat = quickshift(picture(array[None]), kernel_pixels=2).array
    for axis in range(3):
        volume = scan(np.expand_dims(array, axis))
        assert np.array_equal(quickshift(volume, kernel_pixels=2).array.squeeze(axis), flat)


def test_quickshift_is_for_2d_and_says_so() -> None:
    with pytest.raises(InputError, match="--method slic") as caught:
        quickshift(scan(blocks((6, 6, 6))))
    assert caught.value.code == "needs-2d"


@pytest.mark.parametrize("settings", [{"kernel_pixels": 0.5}, {"distance": 0.0}, {"ratio": 1.5}])
def test_settings_of_quickshift_are_checked(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        Quickshift(**settings)  # type: ignore[arg-type]
