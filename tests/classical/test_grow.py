"""Region growing against scipy's labelling, SimpleITK on permuted arrays, and the definition."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
from scipy import ndimage

from medseg.classical import (
    ConfidenceConnected,
    ConnectedThreshold,
    Seeds,
    confidence_connected,
    connected_threshold,
)
from medseg.errors import InputError, UsageError
from medseg.geometry import apply_affine
from medseg.volume import Source, Volume
from tests.phantoms import oblique_affine

Array = npt.NDArray[Any]
SHAPES = ((13, 17, 9), (31, 23))


def noise(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Return smooth integers whose thresholded parts have odd shapes."""
    values = np.random.default_rng(seed).normal(size=shape)
    return (ndimage.gaussian_filter(values, 1.2) * 400).astype(np.int16)


def volume_of(array: Array) -> Volume:
    affine = oblique_affine() if array.ndim == 3 else np.diag([0.5, 0.75, 1.0])
    return Volume(array[None], affine)


def labelled(inside: Array, seeds: Sequence[tuple[int, ...]], *, corners: bool) -> Array:
    """Return the connected parts of a mask that hold a seed."""
    structure = ndimage.generate_binary_structure(inside.ndim, inside.ndim if corners else 1)
    parts, _ = ndimage.label(inside, structure)
    return np.isin(parts, [parts[seed] for seed in seeds])


def some_voxels(inside: Array, count: int = 2) -> list[tuple[int, ...]]:
    found = np.argwhere(inside)
    return [tuple(map(int, found[at])) for at in np.linspace(0, len(found) - 1, count, dtype=int)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("limits", [(20, 5000), (None, -30), (-15, None), (-40, 60)])
def test_a_region_is_the_part_of_the_thresholded_image_that_holds_a_seed(
    shape: tuple[int, ...], corners: bool, limits: tuple[float | None, float | None]
) -> None:
    array = noise(shape)
    lower, upper = limits
    inside = (array >= (-np.inf if lower is None else lower)) & (
        array <= (np.inf if upper is None else upper)
    )
    seeds = some_voxels(inside)
    before = array.copy()
    found = connected_threshold(
        volume_of(array), Seeds(tuple(seeds)), lower=lower, upper=upper, corners=corners
    )
    expected = labelled(inside, seeds, corners=corners)
    assert 0 < expected.sum() < inside.sum() + 1
    assert np.array_equal(found.array, expected)
    assert found.array.dtype == np.uint8
    assert np.array_equal(array, before)
    assert [(label.index, label.name) for label in found.labels] == [(1, "region")]


def test_the_region_is_not_all_of_the_thresholded_image() -> None:
    array = noise((13, 17, 9))
    inside = array >= 20
    found = connected_threshold(volume_of(array), Seeds((some_voxels(inside)[0],)), lower=20)
    assert 0 < found.array.sum() < inside.sum()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32])
def test_limits_that_the_pixel_type_cannot_hold_mean_what_they_say(dtype: Any) -> None:
    array = np.array([[0, 1, 2, 3], [0, 0, 2, 3]], dtype)
    volume = volume_of(array)
    found = connected_threshold(volume, Seeds(((0, 1),)), lower=0.5, upper=2.5)
    assert np.array_equal(found.array, (array >= 0.5) & (array <= 2.5))
    found = connected_threshold(volume, Seeds(((0, 1),)), lower=-1e12, upper=1e12)
    assert found.array.all()


def test_a_mask_and_half_floats_are_images_too() -> None:
    mask = np.array([[True, True, False, True]])
    for array in (mask, mask.astype(np.float16)):
        found = connected_threshold(volume_of(array), Seeds(((0, 0),)), lower=0.5)
        assert found.array.tolist() == [[1, 1, 0, 0]]


def test_arrays_in_any_memory_order_give_the_same_region() -> None:
    array = noise((13, 17, 9))
    seeds = Seeds((some_voxels(array >= 20)[0],))
    views = [array, np.asfortranarray(array), np.ascontiguousarray(array[::-1])[::-1]]
    found = [connected_threshold(volume_of(view), seeds, lower=20).array for view in views]
    assert all(np.array_equal(found[0], other) for other in found[1:])


def test_seeds_in_mm_and_in_voxels_give_the_same_region() -> None:
    volume = volume_of(noise((13, 17, 9)))
    voxel = some_voxels(volume.array[0] >= 20)[0]
    point = tuple(float(value) for value in apply_affine(volume.affine, voxel))
    by_voxel = connected_threshold(volume, Seeds((voxel,)), lower=20)
    by_mm = connected_threshold(volume, Seeds(mm=(point,)), lower=20)
    assert np.array_equal(by_voxel.array, by_mm.array)
    assert np.array_equal(by_mm.affine, volume.affine)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("iterations", [0, 3])
def test_confidence_connected_is_itks_on_the_permuted_array(
    shape: tuple[int, ...], iterations: int
) -> None:
    array = ndimage.gaussian_filter(noise(shape).astype(np.float32), 1.0)
    seed = tuple(n // 2 for n in shape)
    found = confidence_connected(
        volume_of(array), Seeds((seed,)), iterations=iterations, multiplier=1.8, radius_voxels=2
    )
    # every order of the axes is the same image to ITK when the seed is permuted with it
    axes = (*range(1, len(shape)), 0)
    turned = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(axes)), isVector=False)
    there = sitk.ConfidenceConnected(
        turned,
        seedList=[tuple(seed[axis] for axis in axes)[::-1]],
        numberOfIterations=iterations,
        multiplier=1.8,
        initialNeighborhoodRadius=2,
        replaceValue=1,
    )
    expected = sitk.GetArrayFromImage(there).transpose(np.argsort(axes))
    assert 0 < found.array.sum() < array.size
    assert np.array_equal(found.array, expected)


def confidence_by_definition(
    array: Array, seeds: list[tuple[int, ...]], multiplier: float, iterations: int, radius: int
) -> Array:
    """Grow as the definition says; seeds lie further than the radius from the border."""
    around = [
        array[tuple(slice(at - radius, at + radius + 1) for at in seed)].ravel() for seed in seeds
    ]
    # ITK averages the seeds' means, and their mean squares, of surroundings of equal size
    values = np.concatenate(around).astype(np.float64)
    at_seeds = [float(array[seed]) for seed in seeds]
    region = np.zeros(array.shape, np.bool_)
    for step in range(iterations + 1):
        if step:
            values = array[region].astype(np.float64)
        mean, deviation = values.mean(), values.std(ddof=1)
        low, high = mean - multiplier * deviation, mean + multiplier * deviation
        low, high = min([low, *at_seeds]), max([high, *at_seeds])
        region = labelled((array >= low) & (array <= high), seeds, corners=False)
    return region


@pytest.mark.parametrize("shape", SHAPES)
def test_confidence_connected_is_what_its_definition_says(shape: tuple[int, ...]) -> None:
    array = noise(shape, seed=4)
    seed = tuple(n // 2 for n in shape)
    method = ConfidenceConnected(Seeds((seed,)), multiplier=1.5, iterations=2, radius_voxels=1)
    found = method(volume_of(array)).array
    expected = confidence_by_definition(array, [seed], 1.5, 2, 1)
    assert 1 < expected.sum() < array.size
    assert np.array_equal(found, expected)


def test_a_seed_outside_the_limits_is_refused_and_not_left_out() -> None:
    array = np.array([[0, 0, 9, 9]], np.uint8)
    with pytest.raises(InputError, match=r"intensity 0 at voxel \(0, 1\)") as caught:
        connected_threshold(volume_of(array), Seeds(((0, 2), (0, 1))), lower=5)
    assert caught.value.code == "seed-outside-limits"


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_refused_wherever_it_lies(bad: float) -> None:
    array = np.zeros((4, 5), np.float32)
    array[3, 4] = bad
    for method in (ConnectedThreshold(Seeds(((0, 0),)), 0), ConfidenceConnected(Seeds(((3, 4),)))):
        with pytest.raises(InputError, match="1 of 20") as caught:
            method(volume_of(array))
        assert caught.value.code == "non-finite"


def test_a_colour_picture_needs_a_channel() -> None:
    array = np.zeros((3, 4, 5), np.uint8)
    array[1, :2] = 200
    volume = Volume(array, np.eye(3), Source(has_spacing=False))
    with pytest.raises(InputError, match="--channel 0 to 2") as caught:
        connected_threshold(volume, Seeds(((0, 0),)), lower=100)
    assert caught.value.code == "not-grey"
    found = connected_threshold(volume, Seeds(((0, 0),)), lower=100, channel=1)
    assert found.array.sum() == 10
    with pytest.raises(InputError, match="channel must be 0 to 2, got 3"):
        connected_threshold(volume, Seeds(((0, 0),)), lower=100, channel=3)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "lower or upper must be given"),
        ({"lower": 5, "upper": 3}, "lower must be at most upper, got 5 and 3"),
        ({"lower": float("nan")}, "lower must be a number"),
    ],
)
def test_limits_are_checked_before_any_image(settings: dict[str, float], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        ConnectedThreshold(Seeds(((0, 0),)), **settings)


@pytest.mark.parametrize(
    "settings", [{"multiplier": 0.0}, {"iterations": -1}, {"radius_voxels": -1}]
)
def test_numbers_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        ConfidenceConnected(Seeds(((0, 0),)), **settings)


@pytest.mark.parametrize("make", [ConnectedThreshold, ConfidenceConnected])
def test_no_seeds_are_refused_before_any_image(make: Any) -> None:
    with pytest.raises(UsageError) as caught:
        make(Seeds())
    assert caught.value.code == "no-seeds"
