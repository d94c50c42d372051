"""Scores against MONAI's own functions and against a brute-force computation with scipy."""

import itertools
import math

import numpy as np
import pytest
import torch
from monai.metrics import (
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    compute_surface_dice,
)
from scipy import ndimage

from medseg.metrics.segmentation import METRICS, score_masks

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 0.7, 3.0), (0.5, 2.5, 0.9)]


def _blobs(seed: int, shape: tuple[int, ...], labels: int = 3) -> np.ndarray:
    """Smooth random regions that reach the ends of the grid."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.normal(size=shape), 2.5) for _ in range(labels + 1)]
    return np.argmax(fields, axis=0).astype(np.uint8)


def _pair(seed: int, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    label = _blobs(seed, shape)
    pred = np.where(_blobs(seed + 100, shape) == 0, np.roll(label, 1, axis=0), label)
    return pred.astype(np.uint8), label


def _surface(mask: np.ndarray) -> np.ndarray:
    """Voxels of the mask with a face neighbour outside; outside the grid is outside the mask."""
    padded = np.pad(mask, 1)
    inner = padded.copy()
    for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
        inner &= np.roll(padded, step, axis)
    return (padded & ~inner)[(slice(1, -1),) * mask.ndim]


def _distances(pred: np.ndarray, label: np.ndarray, spacing: tuple[float, ...]) -> list[np.ndarray]:
    """Both directed surface distances by a distance transform of the whole grid."""
    edges = _surface(pred), _surface(label)
    return [
        ndimage.distance_transform_edt(~to, sampling=spacing)[of] for of, to in (edges, edges[::-1])
    ]


def _tensor(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None].float()


@pytest.mark.filterwarnings(  # MONAI 1.6.1 passes its own deprecated argument
    "ignore:.*always_return_as_numpy.*:FutureWarning"
)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", [0, 1])
def test_scores_equal_monais_functions(seed: int, spacing: tuple[float, float, float]) -> None:
    pred, label = _pair(seed, (24, 19, 15))
    for score in score_masks(pred, label, spacing, [1, 2, 3]):
        a, b = _tensor(pred == score.index), _tensor(label == score.index)
        assert score.dice == pytest.approx(float(compute_dice(a, b)), abs=1e-6)
        assert score.iou == pytest.approx(float(compute_iou(a, b)), abs=1e-6)
        hd95 = compute_hausdorff_distance(a, b, True, percentile=95, spacing=spacing)
        assert score.hd95_mm == pytest.approx(float(hd95), abs=1e-5)
        nsd = compute_surface_dice(a, b, [1.0], True, spacing=spacing)
        assert score.nsd == pytest.approx(float(nsd), abs=1e-6)


@pytest.mark.parametrize("shape", [(24, 19, 15), (30, 23)])
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("tolerance", [0.0, 1.0, 2.5])
def test_scores_equal_a_brute_force_computation(
    shape: tuple[int, ...], spacing: tuple[float, ...], tolerance: float
) -> None:
    pred, label = _pair(2, shape)
    spacing = spacing[: len(shape)]
    for score in score_masks(pred, label, spacing, [1, 2, 3], nsd_tolerance_mm=tolerance):
        a, b = pred == score.index, label == score.index
        directed = _distances(a, b, spacing)
        everything = np.concatenate(directed)
        assert score.hd95_mm == pytest.approx(max(np.percentile(d, 95) for d in directed), abs=1e-4)
        assert score.nsd == pytest.approx((everything <= tolerance + 1e-4).mean(), abs=1e-9)
        assert score.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert score.iou == pytest.approx((a & b).sum() / (a | b).sum())
        assert score.precision == pytest.approx((a & b).sum() / a.sum())
        assert score.recall == pytest.approx((a & b).sum() / b.sum())
        assert (score.pred_voxels, score.label_voxels) == (a.sum(), b.sum())
        assert score.volume_difference_percent == pytest.approx(100 * (a.sum() / b.sum() - 1))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_is_measured_in_millimetres_of_its_axis(axis: int) -> None:
    label = np.zeros((20, 20, 20), np.uint8)
    label[6:12, 6:12, 6:12] = 1
    pred = np.roll(label, 2, axis)
    spacing = (0.5, 1.5, 4.0)
    score = score_masks(pred, label, spacing, [1])[0]
    assert score.hd95_mm == pytest.approx(2 * spacing[axis], abs=1e-5)
    assert score.dice == pytest.approx(4 / 6)
    assert score.volume_difference_ml == 0


def test_the_end_of_the_grid_is_a_surface() -> None:
    label = np.ones((10, 10, 10), np.uint8)
    pred = label.copy()
    pred[9] = 0  # the only deviation is at the end of the grid: one voxel of 3 mm
    score = score_masks(pred, label, (3.0, 3.0, 3.0), [1])[0]
    directed = _distances(pred == 1, label == 1, (3.0,) * 3)
    assert score.hd95_mm == pytest.approx(max(np.percentile(d, 95) for d in directed)) == 3.0
    assert score.nsd == pytest.approx((np.concatenate(directed) == 0).mean())


def test_volume_is_counted_in_millilitres() -> None:
    label = np.zeros((10, 10, 10), np.uint8)
    label[:5] = 1
    pred = label.copy()
    pred[4] = 0
    score = score_masks(pred, label, (2.0, 2.5, 4.0), [1])[0]
    assert score.volume_difference_ml == pytest.approx(-100 * 20 / 1000)
    assert score.volume_difference_percent == pytest.approx(-20)


def _nan(score: object) -> set[str]:
    return {name for name in METRICS if math.isnan(getattr(score, name))}


def test_what_is_undefined_is_nan_and_never_zero() -> None:
    pred = np.zeros((6, 6, 6), np.uint8)
    label = pred.copy()
    label[1:3, 1:3, 1:3] = 1
    pred[3:5, 3:5, 3:5] = 2
    missed, extra, absent = score_masks(pred, label, (1.0, 1.0, 1.0), [1, 2, 3])
    assert (missed.outcome, extra.outcome, absent.outcome) == ("missed", "false-positive", "absent")
    assert _nan(missed) == {"hd95_mm", "precision"}
    assert (missed.dice, missed.iou, missed.nsd, missed.recall) == (0, 0, 0, 0)
    assert (missed.volume_difference_ml, missed.volume_difference_percent) == (-0.008, -100)
    assert _nan(extra) == {"hd95_mm", "recall", "volume_difference_percent"}
    assert (extra.dice, extra.iou, extra.nsd, extra.precision) == (0, 0, 0, 0)
    assert extra.volume_difference_ml == 0.008
    assert _nan(absent) == set(METRICS)


def test_disjoint_masks_score_zero_with_a_distance() -> None:
    pred, label = np.zeros((2, 9, 9, 9), np.uint8)
    pred[0, 0, 0] = label[8, 8, 8] = 1
    score = score_masks(pred, label, (1.0, 1.0, 1.0), [1])[0]
    assert (score.outcome, score.dice, score.precision, score.recall) == ("scored", 0, 0, 0)
    assert score.hd95_mm == pytest.approx(8 * math.sqrt(3), abs=1e-5)


def test_ignored_voxels_count_for_nobody_and_the_masks_stay() -> None:
    pred, label = _pair(3, (16, 16, 12))
    label[:, :5] = 255
    before = pred.copy(), label.copy()
    got = score_masks(pred, label, (1.0, 1.0, 1.0), [1, 2, 3], ignore_index=255)
    assert np.array_equal(pred, before[0])
    assert np.array_equal(label, before[1])
    keep = label != 255
    for score in got:
        a, b = (pred == score.index) & keep, (label == score.index) & keep
        assert score.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
        assert score.label_voxels == b.sum()


def test_without_spacing_only_distances_and_volumes_are_undefined() -> None:
    pred, label = _pair(4, (20, 20))
    score = score_masks(pred, label, None, [1])[0]
    assert _nan(score) == {"hd95_mm", "nsd", "volume_difference_ml"}


def test_rounding_of_a_header_does_not_move_a_voxel_out_of_tolerance() -> None:
    label = np.zeros((12, 12, 12), np.uint8)
    label[3:8, 3:8, 3:8] = 1
    pred = np.roll(label, 1, 0)
    exact = score_masks(pred, label, (1.0, 1.0, 1.0), [1])[0]
    rounded = score_masks(pred, label, (1.0000002, 1.0, 1.0), [1])[0]
    assert exact.nsd == rounded.nsd == 1.0


def test_memory_order_makes_no_difference() -> None:
    pred, label = _pair(5, (21, 17, 13))
    spacing = (0.7, 0.9, 2.0)
    plain = score_masks(pred, label, spacing, [1, 2, 3])
    assert plain == score_masks(np.asfortranarray(pred), label, spacing, [1, 2, 3])
    assert plain == score_masks(pred, np.asfortranarray(label), spacing, [1, 2, 3])


def test_large_label_values_are_scored() -> None:
    pred, label = np.zeros((2, 8, 8, 8), np.uint16)
    pred[2:5, 2:5, 2:5] = label[2:5, 2:5, 2:6] = 1000
    score = score_masks(pred, label, (1.0, 1.0, 1.0), [1000])[0]
    assert score.dice == pytest.approx(2 * 27 / (27 + 36))
    assert math.isfinite(score.hd95_mm)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pred": np.zeros((4, 4, 5), np.uint8)}, "shape"),
        ({"pred": np.zeros((4, 4, 4), np.float32)}, "integer"),
        ({"spacing_mm": (1.0, 1.0)}, "spacing_mm"),
        ({"spacing_mm": (1.0, 0.0, 1.0)}, "spacing_mm"),
        ({"nsd_tolerance_mm": -1.0}, "nsd_tolerance_mm"),
        ({"nsd_tolerance_mm": math.nan}, "nsd_tolerance_mm"),
        ({"indices": [0, 1]}, "indices"),
    ],
)
def test_wrong_arguments_are_refused(change: dict[str, object], message: str) -> None:
    mask = np.zeros((4, 4, 4), np.uint8)
    arguments = {"pred": mask, "label": mask, "spacing_mm": (1.0,) * 3, "indices": [1]} | change
    with pytest.raises(ValueError, match=message):
        score_masks(**arguments)
