"""Boundary F1 against loops over all pairs of contour pixels, and answers known by hand."""

import math

import numpy as np
import pytest
from scipy import ndimage

from medseg.metrics.boundary import boundary_f1


def _contour(mask: np.ndarray, valid: np.ndarray) -> list[tuple[int, int]]:
    rows, columns = mask.shape
    found = []
    for i, j in np.argwhere(mask & valid).tolist():
        around = [(i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)]
        inside = [(a, b) for a, b in around if 0 <= a < rows and 0 <= b < columns]
        if any(valid[a, b] and not mask[a, b] for a, b in inside):
            found.append((i, j))
    return found


def _near(point: tuple[int, int], points: list[tuple[int, int]], reach: float) -> bool:
    return any(math.dist(point, other) < reach for other in points)


def _brute_force(pred: np.ndarray, label: np.ndarray, index: int, tolerance: float) -> float:
    reach = tolerance * math.hypot(*label.shape)
    valid = label != 255
    ignored = [tuple(at) for at in np.argwhere(~valid).tolist()]
    contours = [_contour(mask == index, valid) for mask in (pred, label)]
    shares = []
    for own, other in (contours, contours[::-1]):
        counted = [point for point in own if not _near(point, ignored, reach)]
        hits = sum(_near(point, other, reach) for point in counted)
        shares.append(hits / len(counted) if counted else math.nan)
    if math.isnan(sum(shares)):
        lone = bool(contours[0]) != bool(contours[1])
        return 0.0 if lone and not all(map(math.isnan, shares)) else math.nan
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


def _blobs(seed: int, shape: tuple[int, int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), 2.0) for _ in range(3)]
    return np.argmax(fields, axis=0).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tolerance", [0.0075, 0.05, 0.12])
@pytest.mark.parametrize("ignored", ["none", "corner", "specks", "everything"])
def test_it_equals_loops_over_all_contour_pixels(seed, tolerance, ignored) -> None:
    label, pred = _blobs(seed, (24, 31)), _blobs(seed + 50, (24, 31))
    pred[:, :16] = np.roll(label, 1, axis=0)[:, :16]
    if ignored == "corner":
        label[15:, 20:] = 255
    elif ignored == "specks":
        label[np.random.default_rng(seed).random(label.shape) < 0.01] = 255
    elif ignored == "everything":
        label[:] = 255
    got = boundary_f1(pred, label, 4, ignore_index=255, tolerance=tolerance)
    expected = [_brute_force(pred, label, index, tolerance) for index in range(4)]
    assert got == pytest.approx(np.array(expected), nan_ok=True)


def _square(shift: int = 0) -> np.ndarray:
    mask = np.zeros((300, 400), np.uint8)  # a diagonal of 500 pixels: a reach of 3.75
    mask[100:200, 100 + shift : 200 + shift] = 1
    return mask


def test_a_shift_within_the_tolerance_is_right_and_one_beyond_is_not() -> None:
    for shift in (0, 3):
        assert boundary_f1(_square(shift), _square(), 2).tolist() == [1, 1]
    beyond = boundary_f1(_square(4), _square(), 2)
    assert 0.5 < beyond[1] < 0.55  # the two sides that moved are half of the contour


def test_a_distance_of_just_the_tolerance_does_not_match() -> None:
    assert boundary_f1(_square(4), _square(), 2, tolerance=0.008)[1] < 0.6
    assert boundary_f1(_square(4), _square(), 2, tolerance=0.00801)[1] == 1


def test_precision_and_recall_differ_where_one_contour_is_a_part_of_the_other() -> None:
    label = _square()
    label[20:60, 300:340] = 1
    missed = boundary_f1(_square(), label, 2)[1]
    long, short = 4 * 100 - 4, 4 * 40 - 4
    recall = long / (long + short)
    assert missed == pytest.approx(2 * recall / (1 + recall))
    assert boundary_f1(label, _square(), 2)[1] == pytest.approx(missed)


def test_a_class_in_one_mask_only_scores_0_and_the_edge_of_the_image_is_no_contour() -> None:
    empty = np.zeros((300, 400), np.uint8)
    assert boundary_f1(empty, _square(), 3)[1] == 0
    assert boundary_f1(_square(), empty, 3)[1] == 0
    assert np.isnan(boundary_f1(empty, empty, 2)).all()


def test_a_contour_hidden_under_ignored_pixels_is_not_judged() -> None:
    label = _square()
    ring = np.zeros(label.shape, bool)
    ring[96:204, 96:204] = True
    ring[104:196, 104:196] = False
    label[ring] = 255
    for pred in (_square(), _square(2), np.zeros_like(label)):
        assert math.isnan(boundary_f1(pred, label, 2, ignore_index=255)[1])


def test_arguments_that_do_not_fit_are_refused() -> None:
    mask = _square()
    with pytest.raises(ValueError, match="of one shape"):
        boundary_f1(mask, mask[1:], 2)
    with pytest.raises(ValueError, match="2D"):
        boundary_f1(mask[None], mask[None], 2)
    for tolerance in (0, -1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="tolerance"):
            boundary_f1(mask, mask, 2, tolerance=tolerance)
