"""Scores of a data set against ignite, MONAI and loops written from the definitions."""

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from ignite.metrics import ConfusionMatrix, DiceCoefficient, IoU
from ignite.metrics.confusion_matrix import cmAccuracy
from monai.metrics import compute_confusion_matrix_metric, get_confusion_matrix
from monai.networks import one_hot

from medseg.errors import InputError
from medseg.metrics.boundary import boundary_f1
from medseg.metrics.semantic import CLASS_METRICS, SemanticMetrics

NAMES = ["void", "sky", "road", "car", "absent"]


def _images(count: int = 4, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images of several sizes with four classes and some ignored pixels; the fifth is absent."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(count):
        shape = (10 + number, 14)
        label = rng.choice([0, 1, 1, 2, 3, 255], shape).astype(np.uint8)
        pred = np.where(rng.random(shape) < 0.6, label, rng.integers(0, 4, shape)).astype(np.uint8)
        images.append((pred, label))
    return images


def _scores(images, names=NAMES, **settings):
    metrics = SemanticMetrics(names, ignore_index=255, **settings)
    for pred, label in images:
        metrics.add(pred, label)
    return metrics.scores()


def test_the_matrix_counts_each_pair_of_classes() -> None:
    images = _images()
    expected = np.zeros((5, 5), int)
    for pred, label in images:
        for p, t in zip(pred.ravel(), label.ravel(), strict=True):
            if t != 255:
                expected[t, p] += 1
    scores = _scores(images)
    assert np.array_equal(scores.confusion, expected)
    assert scores.images == 4
    assert scores.ignored == sum(int((label == 255).sum()) for _, label in images)
    assert scores.pixels + scores.ignored == sum(label.size for _, label in images)


def test_matrix_accuracy_iou_and_dice_equal_ignite() -> None:
    images = _images()
    matrix = ConfusionMatrix(4)
    iou, dice, accuracy = IoU(matrix), DiceCoefficient(matrix), cmAccuracy(matrix)  # resets it
    for pred, label in images:
        logits = one_hot(torch.from_numpy(pred % 4)[None, None], 4)  # pred 255 only where ignored
        matrix.update((logits, torch.from_numpy(label).long()[None]))
    scores = _scores([(p % 4, t) for p, t in images], NAMES[:4])
    assert np.array_equal(scores.confusion, matrix.compute().numpy())
    assert scores.iou == pytest.approx(iou.compute().numpy())
    assert scores.dice == pytest.approx(dice.compute().numpy())
    assert scores.pixel_accuracy == pytest.approx(accuracy.compute().item())
    assert scores.mean_iou == pytest.approx(iou.compute().mean().item())


def test_precision_recall_iou_and_f1_equal_monai() -> None:
    images = _images()
    keep = [label != 255 for _, label in images]
    pred = np.concatenate([p[k] for (p, _), k in zip(images, keep, strict=True)])
    label = np.concatenate([t[k] for (_, t), k in zip(images, keep, strict=True)])
    hot = [one_hot(torch.from_numpy(m)[None, None], 4) for m in (pred, label)]
    matrix = get_confusion_matrix(*hot)[0]
    scores = _scores(images, NAMES[:4])
    for ours, theirs in {
        "precision": "precision", "recall": "recall", "iou": "threat score", "dice": "f1 score",
    }.items():  # fmt: skip
        expected = compute_confusion_matrix_metric(theirs, matrix).numpy()
        assert getattr(scores, ours) == pytest.approx(expected)


def test_means_and_weights_are_those_of_the_definition() -> None:
    images = _images()
    label = np.concatenate([t.ravel() for _, t in images])
    pred = np.concatenate([p.ravel() for p, _ in images])
    pred, label = pred[label != 255], label[label != 255]
    ious, recalls, shares = [], [], []
    for index in range(4):
        a, b = pred == index, label == index
        ious.append((a & b).sum() / (a | b).sum())
        recalls.append((a & b).sum() / b.sum())
        shares.append(b.mean())
    scores = _scores(images)
    assert scores.mean_iou == pytest.approx(np.mean(ious))
    assert scores.mean_accuracy == pytest.approx(np.mean(recalls))
    assert scores.frequency_weighted_iou == pytest.approx(np.dot(ious, shares))
    assert scores.pixel_accuracy == pytest.approx((pred == label).mean())


def test_an_absent_class_is_nan_and_left_out_of_means_with_the_count() -> None:
    scores = _scores(_images(), boundaries=True)
    for name in CLASS_METRICS:
        assert math.isnan(getattr(scores, name)[4])
        assert scores.counted[name] == 4


def test_a_class_in_one_of_truth_and_prediction_counts_where_it_is_defined() -> None:
    metrics = SemanticMetrics(["a", "b", "c"])
    metrics.add(np.array([0, 0, 2, 2]), np.array([0, 0, 1, 1]))
    scores = metrics.scores()
    assert scores.iou.tolist() == [1, 0, 0]
    assert scores.recall[:2].tolist() == [1, 0]
    assert math.isnan(scores.recall[2])
    assert math.isnan(scores.precision[1])
    assert scores.counted == {"iou": 3, "dice": 3, "precision": 2, "recall": 2, "boundary_f1": 0}
    assert scores.mean_accuracy == 0.5
    assert scores.mean_iou == pytest.approx(1 / 3)


def test_nothing_counted_gives_nan_throughout() -> None:
    metrics = SemanticMetrics(["a", "b"], ignore_index=255)
    for scores in (metrics.scores(), _all_ignored(metrics)):
        document = scores.as_json()
        assert document["pixels"] == 0
        assert [document[k] for k in ("pixel_accuracy", "mean_accuracy", "mean_iou")] == [None] * 3
        assert document["frequency_weighted_iou"] is None
        assert set(document["mean"].values()) == {None}


def _all_ignored(metrics):
    metrics.add(np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8))
    return metrics.scores()


def test_the_prediction_at_ignored_pixels_has_no_effect() -> None:
    images = _images()
    wild = [(np.where(t == 255, 77, p).astype(np.uint8), t) for p, t in images]
    expected, got = (_scores(i, boundaries=True).as_json() for i in (images, wild))
    assert got == expected


def test_a_class_that_is_ignored_counts_nowhere_in_the_truth() -> None:
    pred, label = np.array([[0, 1, 2, 1]]), np.array([[0, 1, 1, 2]])
    metrics = SemanticMetrics(["void", "a", "b"], ignore_index=0)
    metrics.add(pred, label)
    assert metrics.scores().confusion.tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 0]]
    assert metrics.scores().ignored == 1


def test_parts_counted_apart_and_merged_are_the_whole() -> None:
    images = _images()
    parts = [SemanticMetrics(NAMES, 255, boundaries=True) for _ in range(2)]
    for number, (pred, label) in enumerate(images):
        parts[number % 2].add(pred, label)
    parts[0].merge(parts[1])
    merged, whole = parts[0].scores().as_json(), _scores(images, boundaries=True).as_json()
    assert merged.pop("labels")["sky"] == pytest.approx(whole.pop("labels")["sky"])
    assert merged.pop("mean") == pytest.approx(whole.pop("mean"))
    assert merged == whole
    with pytest.raises(ValueError, match="other must have the settings"):
        parts[0].merge(SemanticMetrics(NAMES, 254, boundaries=True))


def test_contours_are_averaged_over_images_and_classes() -> None:
    images = _images()
    scores = _scores(images, boundaries=True, tolerance=0.08)
    table = np.array([boundary_f1(p, t, 5, ignore_index=255, tolerance=0.08) for p, t in images])
    table = table[:, :4]
    seen = ~np.isnan(table)
    assert seen.any(axis=1).sum() == scores.boundary_images > 0
    for index in range(4):
        if seen[:, index].any():
            assert scores.boundary_f1[index] == pytest.approx(table[seen[:, index], index].mean())
    of_images = [row[keep].mean() for row, keep in zip(table, seen, strict=True) if keep.any()]
    assert scores.mean_boundary_f1 == pytest.approx(np.mean(of_images))


def test_the_document_is_strict_json_and_the_csv_reads_back() -> None:
    names = ["a, b", 'c "d"', "e", "f", "g"]
    scores = _scores(_images(), names)
    document = json.loads(json.dumps(scores.as_json(), allow_nan=False))
    assert document["labels"]["g"] == {
        "index": 4, "pixels": 0, "predicted_pixels": 0, **dict.fromkeys(CLASS_METRICS),
    }  # fmt: skip
    assert document["labels"]["e"]["iou"] == scores.iou[2]
    rows = list(csv.reader(io.StringIO(scores.confusion_csv())))
    assert rows[0] == ["truth \\ prediction", *names]
    assert [row[0] for row in rows[1:]] == names
    assert np.array_equal(np.array([row[1:] for row in rows[1:]], int), scores.confusion)


def test_a_refused_image_leaves_the_counts_as_they_were() -> None:
    metrics = SemanticMetrics(["a", "b"], ignore_index=255)
    good = np.array([[0, 1], [1, 255]], np.uint8)
    metrics.add(np.array([[0, 1], [1, 0]]), good)
    before = metrics.scores().as_json()
    with pytest.raises(InputError, match="pred must hold 0 to 1, got 2") as caught:
        metrics.add(np.array([[0, 2], [1, 0]]), good)
    assert caught.value.code == "unknown-label"
    with pytest.raises(InputError, match="label must hold 0 to 1 or 255, got 9"):
        metrics.add(np.zeros((2, 2), int), np.array([[9, 0], [1, 1]]))
    with pytest.raises(InputError, match="got -1"):
        metrics.add(np.zeros((2, 2), int), np.array([[-1, 0], [1, 1]]))
    with pytest.raises(ValueError, match="of one shape"):
        metrics.add(np.zeros((2, 3), int), good)
    with pytest.raises(ValueError, match="integer"):
        metrics.add(np.zeros((2, 2)), good)
    assert metrics.scores().as_json() == before


def test_3d_masks_count_and_their_contours_are_refused() -> None:
    label = np.arange(24).reshape(2, 3, 4) % 2
    metrics = SemanticMetrics(["a", "b"])
    metrics.add(label, label)
    assert metrics.scores().confusion.tolist() == [[12, 0], [0, 12]]
    with pytest.raises(ValueError, match="2D"):
        SemanticMetrics(["a", "b"], boundaries=True).add(label, label)


def test_names_that_are_missing_or_twice_there_are_refused() -> None:
    for names in ([], ["a", "a"]):
        with pytest.raises(ValueError, match="names must be"):
            SemanticMetrics(names)
    with pytest.raises(ValueError, match="tolerance must be"):
        SemanticMetrics(["a"], tolerance=0)
