"""Watershed: touching objects come apart, basins as scikit-image finds them, floods keep inside."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from skimage.morphology import local_minima
from skimage.segmentation import watershed as skimage_watershed

from medseg.classical import Seeds, Watershed, watershed
from medseg.errors import GeometryError, InputError, UsageError
from medseg.volume import Source, Volume
from tests.phantoms import oblique_affine

Array = npt.NDArray[Any]
SPACING = (1.0, 1.5, 3.0)


def balls(
    centres: list[tuple[float, ...]], radius_mm: float, shape: tuple[int, ...], spacing_mm: Any
) -> list[Array]:
    """Return one mask a ball."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    return [
        np.linalg.norm((grid - np.array(c)) * np.array(spacing_mm), axis=-1) <= radius_mm
        for c in centres
    ]


def two_touching_balls() -> tuple[Volume, Array, Array]:
    a, b = balls([(12, 12, 6), (30, 12, 6)], 10, (43, 25, 13), SPACING)
    assert ndimage.label(a | b)[1] == 1
    array = np.where(a | b, 200, 10).astype(np.int16)
    return Volume(array[None], oblique_affine("LPS", SPACING)), a, b


def test_touching_balls_come_apart_by_distance() -> None:
    volume, a, b = two_touching_balls()
    found = watershed(volume, relief="distance", lower=100)
    assert np.array_equal(found.array > 0, a | b)
    assert len(found.labels) == 2
    first, second = (found.array[c] for c in ((12, 12, 6), (30, 12, 6)))
    assert first != second
    middle = np.arange(43)[:, None, None]
    assert (found.array[a & ~b & (middle < 20)] == first).all()
    assert (found.array[b & ~a & (middle > 22)] == second).all()


def test_without_the_watershed_they_are_one() -> None:
    volume, _, _ = two_touching_balls()
    found = watershed(volume, relief="bright", lower=100)
    assert len(found.labels) == 1


def test_bright_blobs_in_a_picture_are_regions_of_their_own() -> None:
    rows, columns = np.mgrid[:40, :60]
    blobs = [100 * np.exp(-((rows - 20) ** 2 + (columns - c) ** 2) / 60) for c in (20, 38)]
    volume = Volume((blobs[0] + blobs[1]).astype(np.float32)[None], np.eye(3))
    for relief, sign in (("bright", 1), ("dark", -1)):
        scaled = Volume(volume.array * sign, volume.affine)
        found = watershed(scaled, relief=relief)
        assert len(found.labels) == 2
        assert found.array.min() == 1
        assert (found.array[:, :28] == found.array[20, 20]).all()
        assert (found.array[:, 31:] == found.array[20, 38]).all()


def test_edges_are_the_ridges_of_the_gradient() -> None:
    array = np.zeros((30, 30), np.float32)
    array[:, 10:20] = 50
    array[:, 20:] = 20
    found = watershed(Volume(array[None], np.eye(3)), smooth_mm=1)
    assert len(found.labels) == 3
    strips = [
        np.unique(found.array[:, part]) for part in (slice(0, 9), slice(11, 19), slice(21, 30))
    ]
    assert [len(strip) for strip in strips] == [1, 1, 1]


@pytest.mark.parametrize("shape", [(24, 30), (14, 12, 10)])
def test_without_depth_basins_are_those_of_scikit_image(shape: tuple[int, ...]) -> None:
    noise = np.random.default_rng(3).normal(size=shape)
    array = ndimage.gaussian_filter(noise, 1.5).astype(np.float32)
    affine = oblique_affine() if len(shape) == 3 else np.eye(3)
    found = watershed(Volume(array[None], affine), relief="dark", depth=0.0).array
    markers, count = ndimage.label(local_minima(array, connectivity=1))
    expected = skimage_watershed(array, markers)
    assert count > 3
    pairs = set(zip(found.ravel().tolist(), expected.ravel().tolist(), strict=True))
    assert len(pairs) == count


def test_a_shallow_basin_joins_its_neighbour() -> None:
    profile = np.array([5, 0, 5, 4, 5, 1, 5], np.float32)  # depths 5 (floor), 1, 4
    volume = Volume(np.tile(profile, (3, 1))[None], np.eye(3))
    counts = [len(watershed(volume, relief="dark", depth=d).labels) for d in (0.0, 0.9, 1.5, 4.5)]
    assert counts == [3, 3, 2, 1]


def test_a_gradient_is_taken_a_millimetre() -> None:
    array = np.zeros((12, 12, 12), np.float32)
    array[6:] += 30
    array[:, :, 6:] += 30
    # the same step is a slope a tenth as steep along the axis of 10 mm: too shallow a ridge
    volume = Volume(array[None], np.diag([1.0, 1.0, 10.0, 1.0]))
    found = watershed(volume, depth=5.0).array
    assert len(np.unique(found)) == 2
    assert len(np.unique(found[:5])) == 1
    assert found[0, 0, 0] != found[11, 0, 0]
    even = watershed(Volume(array[None], np.eye(4)), depth=5.0)
    assert len(even.labels) == 4


def test_a_flood_never_crosses_what_lies_outside_the_limits() -> None:
    array = np.zeros((9, 20), np.uint8)
    array[2:7, 1:8] = 100
    array[2:7, 12:19] = 120
    volume = Volume(array[None], np.eye(3))
    found = watershed(volume, markers=Seeds(((4, 4),)), relief="bright", lower=50)
    assert (found.array[2:7, 1:8] == 1).all()
    assert (found.array[:, 9:] == 0).all()  # no marker lies there
    basins = watershed(volume, relief="bright", lower=50, depth=500.0)
    assert len(basins.labels) == 2  # however deep a basin has to be, each part is one


def test_seeds_are_regions_in_their_order() -> None:
    volume, a, b = two_touching_balls()
    seeds = Seeds(((30, 12, 6), (12, 12, 6)))
    found = watershed(volume, markers=seeds, relief="distance", lower=100)
    assert [label.name for label in found.labels] == ["region 1", "region 2"]
    assert found.array[30, 12, 6] == 1
    assert found.array[12, 12, 6] == 2
    assert np.array_equal(found.array > 0, a | b)


def test_labels_of_a_mask_keep_their_numbers() -> None:
    volume, _, _ = two_touching_balls()
    mask = np.zeros(volume.shape, np.uint8)
    mask[12, 12, 6], mask[30, 12, 6], mask[0, 0, 0] = 7, 3, 9
    markers = Volume(mask[None], volume.affine)
    found = watershed(volume, markers=markers, smooth_mm=1.0)
    assert [label.index for label in found.labels] == [3, 7, 9]
    assert found.array[12, 12, 6] == 7
    assert found.array[0, 0, 0] == 9
    assert mask.sum() == 19  # the markers stay as they are


def test_a_mask_on_another_grid_is_refused() -> None:
    volume, _, _ = two_touching_balls()
    moved = volume.affine.copy()
    moved[0, 3] += 1
    with pytest.raises(GeometryError, match="grid of the image") as caught:
        watershed(volume, markers=Volume(np.ones_like(volume.array, np.uint8), moved))
    assert caught.value.code == "grid-mismatch"


def test_markers_that_would_vanish_are_refused() -> None:
    volume, _, _ = two_touching_balls()
    seeds = Seeds(((12, 12, 6), (0, 0, 0)))
    with pytest.raises(InputError, match=r"1 outside \(marker 2\)") as caught:
        watershed(volume, markers=seeds, lower=100)
    assert caught.value.code == "marker-outside"
    with pytest.raises(InputError, match=r"\(12, 12, 6\) twice") as caught:
        watershed(volume, markers=Seeds(((12, 12, 6),) * 2))
    assert caught.value.code == "same-seed"
    empty = Volume(np.zeros_like(volume.array, np.uint8), volume.affine)
    with pytest.raises(InputError, match="background alone") as caught:
        watershed(volume, markers=empty)
    assert caught.value.code == "no-seeds"


def test_nothing_within_the_limits_is_an_empty_mask() -> None:
    volume, _, _ = two_touching_balls()
    found = watershed(volume, relief="distance", lower=1000)
    assert not found.array.any()
    assert found.labels == ()


def test_more_basins_than_a_mask_can_hold_are_refused() -> None:
    rows, columns = np.mgrid[:520, :520]
    array = ((rows + columns) % 2).astype(np.uint8)  # a chequerboard: half of the pixels
    with pytest.raises(UsageError, match="Raise --depth or --smooth-mm") as caught:
        watershed(Volume(array[None], np.eye(3)), relief="dark", depth=0.0)
    assert caught.value.code == "too-many-regions"


def test_lengths_in_a_picture_without_pixel_size_are_said_to_be_pixels() -> None:
    source = Source(format="raster", has_spacing=False)
    volume = Volume(np.eye(8, dtype=np.uint8)[None] * 50, np.eye(3), source)
    assert watershed(volume).source.problems == ()
    problems = watershed(volume, smooth_mm=1.0).source.problems
    assert [problem.code for problem in problems] == ["no-pixel-size"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"relief": "heat"}, "relief must be among gradient"),
        ({"smooth_mm": -1.0}, "smooth_mm"),
        ({"depth": -1.0}, "depth"),
        ({"lower": 2, "upper": 1}, "lower must be at most upper"),
        ({"relief": "distance"}, "--lower or --upper"),
        ({"markers": Seeds(((0, 0),)), "depth": 1.0}, "depth must not be given with markers"),
        ({"markers": Seeds()}, "--seed-voxel"),
    ],
)
def test_settings_are_checked_before_any_image(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Watershed(**settings)
