"""Mean shift against a loop over voxels that follows its definition, and on known regions."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from medseg.classical import MeanShift, mean_shift
from medseg.classical.mean_shift import climb
from medseg.errors import InputError, UsageError
from medseg.volume import Source, Volume
from tests.phantoms import oblique_affine

Array = npt.NDArray[Any]


def by_definition(values: Array, steps: Array, intensity: float, iterations: int) -> Array:
    """Return where each voxel arrives, in reaches: place, then intensity."""
    shape = values.shape[1:]
    points = np.array(
        [(*(np.array(at) * steps), *(values[(slice(None), *at)] / intensity))
         for at in np.ndindex(*shape)], np.float32,
    )  # fmt: skip
    axes = len(shape)
    arrived = points.copy()
    for row in range(len(points)):
        for _ in range(iterations):
            gap = np.square(points - arrived[row])
            near = (gap[:, :axes].sum(1) <= 1) & (gap[:, axes:].sum(1) <= 1)
            to = points[near].mean(axis=0) if near.any() else arrived[row]
            length = np.linalg.norm(to - arrived[row])
            arrived[row] = to
            if length <= 0.01:
                break
    return arrived.reshape(*shape, -1)


@pytest.mark.parametrize(
    ("shape", "steps"),
    [((1, 12, 15), (0.29, 0.29)), ((3, 9, 11), (0.37, 0.61)), ((1, 7, 8, 5), (0.31, 0.43, 0.93))],
)
def test_voxels_arrive_where_the_definition_says(
    shape: tuple[int, ...], steps: tuple[float, ...]
) -> None:
    noise = np.random.default_rng(5).normal(size=shape)
    values = (ndimage.gaussian_filter(noise, (0,) + (1.0,) * (len(shape) - 1)) * 60).astype("f4")
    before = values.copy()
    place, value = climb(values, np.array(steps), 8.0, 6)
    expected = by_definition(values, np.array(steps), 8.0, 6)
    found = np.concatenate([place, value], axis=-1)
    gap = np.abs(found - expected).max(axis=-1)
    # a voxel at the very end of the reach may fall to either side by rounding
    assert (gap < 1e-4).mean() > 0.97
    assert np.abs(expected[..., 0] - place[..., 0]).mean() < 0.01
    assert np.array_equal(values, before)


def test_blocks_under_noise_are_one_region_each() -> None:
    truth = np.kron(np.arange(1, 7).reshape(2, 3), np.ones((14, 12), int))
    noise = np.random.default_rng(0).normal(0, 2, truth.shape)
    levels = np.array([0, 10, 90, 40, 60, 20, 75])
    volume = Volume((levels[truth] + noise).astype(np.float32)[None], np.eye(3))
    found = mean_shift(volume, intensity=10)
    assert len(found.labels) == 6
    pairs = set(zip(found.array.ravel().tolist(), truth.ravel().tolist(), strict=True))
    assert len(pairs) == 6


def test_regions_cover_a_volume_and_hang_together() -> None:
    noise = np.random.default_rng(1).normal(size=(14, 12, 9))
    array = ndimage.gaussian_filter(noise, 1.5).astype(np.float32)
    volume = Volume(array[None], oblique_affine("LPS", (1.0, 1.0, 2.5)))
    found = mean_shift(volume, radius_mm=2.6, min_voxels=15)
    assert found.array.min() == 1
    assert len(found.labels) > 2
    for label in found.labels:
        assert ndimage.label(found.array == label.index)[1] == 1
    assert np.bincount(found.array.ravel())[1:].min() >= 15


def test_a_small_region_joins_the_neighbour_most_like_it() -> None:
    array = np.zeros((12, 24), np.float32)
    array[:, 12:] = 100
    array[5:7, 11:13] = 80
    found = mean_shift(Volume(array[None], np.eye(3)), window=(0, 100), min_voxels=5).array
    assert len(np.unique(found)) == 2
    assert (found[5:7, 11:13] == found[0, 20]).all()
    kept = mean_shift(Volume(array[None], np.eye(3)), window=(0, 100), min_voxels=4).array
    assert len(np.unique(kept)) == 3


def test_a_constant_image_is_one_region() -> None:
    found = mean_shift(Volume(np.full((1, 9, 8), 5, np.uint8), np.eye(3)))
    assert (found.array == 1).all()


def test_one_voxel_is_one_region() -> None:
    assert mean_shift(Volume(np.ones((1, 1, 1, 1), np.int16), np.eye(4))).array.item() == 1


def test_a_reach_in_a_picture_without_pixel_size_is_said_to_be_pixels() -> None:
    source = Source(format="raster", has_spacing=False)
    volume = Volume(np.eye(8, dtype=np.uint8)[None], np.eye(3), source)
    assert mean_shift(volume).source.problems == ()
    problems = mean_shift(volume, radius_mm=3.0).source.problems
    assert [problem.code for problem in problems] == ["no-pixel-size"]


@pytest.mark.parametrize(
    "settings",
    [{"radius_mm": 0.0}, {"intensity": 0.0}, {"iterations": 0}, {"min_voxels": 0},
     {"window": (1.0, 0.0)}],
    ids=str,
)  # fmt: skip
def test_settings_are_checked_before_any_image(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        MeanShift(**settings)


def test_nan_is_refused() -> None:
    array = np.zeros((1, 4, 5), np.float32)
    array[0, 0, 0] = np.nan
    with pytest.raises(InputError, match="1 of 20"):
        mean_shift(Volume(array, np.eye(3)))
