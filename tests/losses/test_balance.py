"""Counts and median-frequency weights against loops written from the definition."""

from statistics import median

import numpy as np
import pytest
from PIL import Image

from medseg.errors import InputError
from medseg.losses import label_counts, median_frequency_weights
from tests.real_data import data_folder


def _masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    masks = [rng.choice([0, 0, 0, 1, 2, 255], size=(9, 7)).astype(np.uint8) for _ in range(5)]
    masks[1][masks[1] == 2] = 0
    masks[3][masks[3] == 1] = 255
    return masks


def test_weights_equal_the_definition_written_as_loops() -> None:
    masks = _masks()
    frequency = {}
    for index in range(3):
        of_class = sum(int((m == index).sum()) for m in masks)
        of_images = sum(int((m != 255).sum()) for m in masks if (m == index).any())
        frequency[index] = of_class / of_images
    expected = [median(frequency.values()) / frequency[index] for index in range(3)]
    counts = label_counts(masks, 4, ignore_index=255)
    assert counts.shape == (5, 4)
    assert median_frequency_weights(counts) == pytest.approx([*expected, 0.0])


def test_counts_are_read_one_mask_at_a_time_and_of_any_shape() -> None:
    counts = label_counts((mask for mask in [np.zeros((2, 3, 4), int), np.ones(5, int)]), 2)
    assert counts.tolist() == [[24, 0], [0, 5]]
    assert label_counts([], 2).shape == (0, 2)


def test_a_value_that_is_no_class_is_refused_with_its_mask() -> None:
    masks = _masks()
    with pytest.raises(InputError, match="got 255 in mask 0"):
        label_counts(masks, 3)
    masks[2][0, 0] = 9
    with pytest.raises(InputError, match="got 9 in mask 2"):
        label_counts(masks, 3, ignore_index=255)
    with pytest.raises(InputError, match=r"got 0\.5 in mask 0"):
        label_counts([np.array([0.5])], 3)


@pytest.mark.parametrize("counts", [[3, 4], [[0, 0]], [[1, -1]], [[0.5, 1.0]], np.zeros((0, 3))])
def test_counts_of_another_form_are_refused(counts) -> None:
    with pytest.raises(ValueError, match="counts must be"):
        median_frequency_weights(counts)


def test_frequencies_of_street_scenes_are_those_their_source_states() -> None:
    folder = data_folder("camvid") / "trainannot"
    masks = (np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png")))
    counts = label_counts(masks, 11, ignore_index=11)  # sky, building, pole, road, ...
    share = counts.sum(axis=0) / (len(counts) * 360 * 480)
    assert share[[3, 1, 0, 5]] == pytest.approx([0.32, 0.23, 0.17, 0.10], abs=0.02)
    weights = median_frequency_weights(counts)
    assert max(weights[index] for index in (0, 1, 3)) < 0.5
    assert min(weights[index] for index in (2, 6, 9)) > 1
