"""Seeds: a point in the patient is the voxel that it lies in, or it is refused."""

import numpy as np
import pytest

from medseg.classical import Seeds
from medseg.errors import InputError, UsageError
from medseg.geometry import apply_affine
from medseg.volume import Source, Volume
from tests.phantoms import all_orientations, numbered, oblique_affine

SHAPE = (7, 9, 5)


@pytest.mark.parametrize("codes", all_orientations()[::5])
def test_a_point_in_mm_is_the_voxel_it_lies_in(codes: str) -> None:
    volume = numbered(SHAPE, oblique_affine(codes))
    voxels = [(0, 0, 0), (6, 8, 4), (3, 1, 2)]
    off_centre = apply_affine(volume.affine, np.add(voxels, (0.4, -0.4, 0.3)))
    assert Seeds(mm=tuple(map(tuple, off_centre))).on(volume) == tuple(voxels)


def test_voxels_come_before_points() -> None:
    volume = numbered(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert Seeds(((1, 2, 3),), ((4.0, 0.0, 8.0),)).on(volume) == ((1, 2, 3), (2, 0, 4))


@pytest.mark.parametrize(
    ("seeds", "code", "text"),
    [
        (Seeds(((7, 0, 0),)), "seed-outside", r"The last voxel is \(6, 8, 4\)"),
        (Seeds(mm=((-1.1, 0.0, 0.0),)), "seed-outside", r"voxel \(-1, 0, 0\) of 7x9x5"),
        (Seeds(mm=((0.0, 0.0, 9.1),)), "seed-outside", "0.0 to 12.0, 0.0 to 16.0, 0.0 to 8.0 mm"),
        (Seeds(((1, 2),)), "seed-dimensions", r"3 numbers for this image, got \(1, 2\)"),
    ],
)
def test_a_seed_that_is_not_in_the_image_is_refused(seeds: Seeds, code: str, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        seeds.on(numbered(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0])))
    assert caught.value.code == code


def test_a_point_half_a_voxel_before_the_first_centre_is_in_it() -> None:
    volume = numbered(SHAPE, np.diag([2.0, 2.0, 2.0, 1.0]))
    assert Seeds(mm=((-0.99, 0.0, 8.99),)).on(volume) == ((0, 0, 4),)


def test_a_picture_without_a_pixel_size_has_no_mm() -> None:
    array = np.zeros((1, 4, 6), np.uint8)
    picture = Volume(array, np.eye(3), Source(format="raster", has_spacing=False))
    with pytest.raises(InputError, match="--seed-voxel ROW,COLUMN") as caught:
        Seeds(mm=((1.0, 2.0),)).on(picture)
    assert caught.value.code == "no-pixel-size"
    assert Seeds(((3, 5),)).on(picture) == ((3, 5),)
    scan = Volume(array, np.diag([0.5, 2.0, 1.0]))
    assert Seeds(mm=((1.0, 4.0),)).on(scan) == ((2, 2),)


@pytest.mark.parametrize("seed", [(1.5, 0, 0), (-1, 0, 0), (1,), (1, 2, 3, 4), (np.nan, 0, 0)])
def test_a_voxel_is_whole_numbers(seed: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="seed"):
        Seeds((seed,))  # type: ignore[arg-type]


def test_lists_of_a_yaml_file_are_taken() -> None:
    assert Seeds([[1, 2, 3]]) == Seeds(((1, 2, 3),))  # type: ignore[arg-type]


def test_no_seed_is_refused() -> None:
    with pytest.raises(UsageError, match="--seed-mm") as caught:
        Seeds().require()
    assert caught.value.code == "no-seeds"
