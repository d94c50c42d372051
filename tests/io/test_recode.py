from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.errors import InputError
from medseg.io.locator import Locator
from medseg.io.masks import read_mask
from medseg.io.recode import by_colors, by_values, joined_objects


def test_ranges_of_values_become_one_value() -> None:
    labels = np.random.default_rng(0).integers(0, 3000, (1, 40, 50), np.uint16)
    found = by_values(labels, (("0", 0), ("1-999", 1), ("1000-65535", 7)), "m.png")
    truth = np.where(labels == 0, 0, np.where(labels < 1000, 1, 7))
    assert np.array_equal(found, truth)
    assert found.dtype == np.uint8


def test_a_value_outside_of_all_ranges_is_named_with_its_file() -> None:
    labels = np.array([[0, 4, 9]], np.uint8)
    with pytest.raises(InputError, match=r"only 0, 1-3, got 4, 9 in m\.png") as caught:
        by_values(labels, (("0", 0), ("1-3", 1)), "m.png")
    assert caught.value.code == "unknown-label"


def test_colours_become_the_values_that_they_stand_for() -> None:
    values = np.random.default_rng(1).integers(0, 4, (20, 30))
    palette = np.array([[0, 0, 0], [255, 0, 1], [0, 255, 2], [1, 2, 255]], np.uint8)
    codes = (("000000", 0), ("ff0001", 1), ("00ff02", 2), ("0102ff", 3))
    found = by_colors(palette[values].transpose(2, 0, 1), codes, "m.png")
    assert np.array_equal(found, values[None])
    shifted = (*codes[:3], ("0102ff", 255))
    found = by_colors(palette[values].transpose(2, 0, 1), shifted, "m.png")
    assert np.array_equal(found == 255, values[None] == 3)


def test_a_colour_that_is_not_declared_is_named_with_file_and_pixel() -> None:
    pixels = np.zeros((3, 5, 6), np.uint8)
    pixels[:, 2, 4] = 9, 8, 7
    pixels[:, 3, 3] = 200
    with pytest.raises(
        InputError, match=r"R 9, G 8, B 7 at row 2, column 4 of m\.png, and 1 colours more"
    ) as caught:
        by_colors(pixels, (("000000", 0),), "m.png")
    assert caught.value.code == "unknown-color"


def test_a_grey_picture_has_no_colours(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "m.png")
    place = Locator(tmp_path / "m.png", kind="colors", codes=(("000000", 0),)).as_path()
    with pytest.raises(InputError, match=r"8-bit colour image, got 1 channels of uint8 in m\.png"):
        read_mask(place)


def test_more_objects_than_a_mask_may_have_classes(tmp_path: Path) -> None:
    numbers = np.arange(40 * 60, dtype=np.uint16).reshape(40, 60)
    Image.fromarray(numbers).save(tmp_path / "m.png")
    place = Locator(tmp_path / "m.png", kind="values", codes=(("0", 0), ("1-65535", 1))).as_path()
    assert np.array_equal(read_mask(place).array[0], numbers > 0)


def test_masks_of_objects_are_joined(tmp_path: Path) -> None:
    masks = np.random.default_rng(2).random((4, 9, 11)) > 0.8
    for number, mask in enumerate(masks):
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / f"{number}.png")
    assert np.array_equal(joined_objects(tmp_path).array[0], masks.any(axis=0))
    assert read_mask(Locator(tmp_path, kind="objects").as_path()).array.dtype == np.uint8
    Image.fromarray(np.zeros((9, 12), np.uint8)).save(tmp_path / "5.png")
    with pytest.raises(InputError, match=r"got 9x12 for 9x11 in 5\.png") as caught:
        joined_objects(tmp_path)
    assert caught.value.code == "grid-mismatch"


def test_a_folder_without_masks_is_no_label(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must hold a mask of each object, got none"):
        joined_objects(tmp_path / "gone")
