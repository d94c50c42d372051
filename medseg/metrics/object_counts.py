"""What one image adds to the counts of objects found, missed and invented, class by class.

`Overlaps` are of segments, of which each pixel has at most one; `matched` takes masks as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.objects import ANY_CLASS, ObjectInstances

Values = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Numbers: TypeAlias = Values | Integers

MATCH_IOU = 0.5
"""Overlap from which a prediction is an object found, for precision, recall and F1."""

SEGMENT_COUNTS = (
    "segments_matched",
    "segments_invented",
    "segments_missed",
    "iou",
    "overlap",
    "union",
    "hidden",
    "truth_hidden",
)
"""What `segment_counts` counts."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """The pixels that predicted and true segments share, for each pair that shares any.

    Attributes:
        pred_area: (M,) pixels of each predicted segment; 0 for one that others hide.
        truth_area: (N,) pixels of each true one.
        pred: (P,) predicted segment of each pair.
        truth: (P,) its true one.
        shared: (P,) pixels of both.
    """

    pred_area: Integers
    truth_area: Integers
    pred: Integers
    truth: Integers
    shared: Integers


def overlaps(pred: ObjectInstances, truth: ObjectInstances) -> Overlaps:
    """Give each pixel to one object, as `ObjectInstances.label_map` does, and count.

    True crowds lie below all true objects, whatever their scores.

    Args:
        pred: Predicted objects; of those that overlap the surer is seen.
        truth: True objects of the same image; of those that overlap the smaller is seen.
    """
    under = replace(truth, scores=np.where(truth.crowd, 0, 1).astype(np.float32))
    ours, theirs = pred.label_map().reshape(-1), under.label_map().reshape(-1)
    changes = (ours[1:] != ours[:-1]) | (theirs[1:] != theirs[:-1])
    starts = np.r_[0, np.flatnonzero(changes) + 1]
    lengths = np.diff(np.r_[starts, ours.size])
    above, below = ours[starts].astype(np.int64), theirs[starts].astype(np.int64)  # of each run
    both = (above > 0) & (below > 0)
    keys = (above[both] - 1) * max(len(truth), 1) + below[both] - 1
    pairs, place = np.unique(keys, return_inverse=True)
    return Overlaps(
        _sums(above, lengths, len(pred) + 1)[1:],
        _sums(below, lengths, len(truth) + 1)[1:],
        pairs // max(len(truth), 1),
        pairs % max(len(truth), 1),
        _sums(place, lengths[both], pairs.size),
    )


def segment_counts(
    pred: ObjectInstances, truth: ObjectInstances, classes: int
) -> Mapping[str, Values]:
    """Count what panoptic quality and AJI are made of.

    Args:
        pred: Predicted objects.
        truth: True objects of the same image.
        classes: Number of classes.

    Returns:
        (classes,) each: `segments_matched`, `segments_invented`, `segments_missed` and `iou` (the
        sum over the matched) for panoptic quality; `overlap` and `union`, in pixels, for AJI;
        `hidden` predictions and `truth_hidden` objects, which have no pixel of their own.
    """
    found = overlaps(pred, truth)
    same = pred.classes[found.pred] == truth.classes[found.truth]
    in_crowd = truth.crowd[found.truth]
    may_be = same | (truth.classes[found.truth] == ANY_CLASS)
    crowded = _sums(found.pred, found.shared * (may_be & in_crowd), len(pred))
    excused = 2 * crowded > found.pred_area
    pairs = same & ~in_crowd
    ours, theirs, shared = found.pred[pairs], found.truth[pairs], found.shared[pairs]
    union = found.pred_area[ours] + found.truth_area[theirs] - shared
    iou = shared / union
    real = ~truth.crowd & (found.truth_area > 0)

    hit = 2 * shared > union  # at most one for each segment
    invented = _others(ours[hit], (found.pred_area > 0) & ~excused)
    missed = _others(theirs[hit], real)

    order = np.lexsort((shared, iou, theirs))
    best = order[np.r_[theirs[order][1:] != theirs[order][:-1], True][: order.size]]
    alone = _others(theirs[best], real)
    unused = _others(ours[best], (found.pred_area > 0) & ~excused)

    def of_class(objects: ObjectInstances, which: Flags | Integers, what: Numbers) -> Values:
        weights = what.astype(np.float64)
        return np.asarray(
            np.bincount(objects.classes[which] - 1, weights, minlength=classes), np.float64
        )

    def number(objects: ObjectInstances, which: Flags | Integers) -> Values:
        return of_class(objects, which, np.ones(objects.classes[which].size))

    return {
        "segments_matched": number(truth, theirs[hit]),
        "segments_invented": number(pred, invented),
        "segments_missed": number(truth, missed),
        "iou": of_class(truth, theirs[hit], iou[hit]),
        "overlap": of_class(truth, theirs[best], shared[best]),
        "union": of_class(truth, theirs[best], union[best])
        + of_class(truth, alone, found.truth_area[alone])
        + of_class(pred, unused, found.pred_area[unused]),
        "hidden": number(pred, found.pred_area == 0),
        "truth_hidden": number(truth, ~truth.crowd & (found.truth_area == 0)),
    }


def matched(iou: Values, crowd: Flags) -> tuple[int, int]:
    """Pair the predictions and the true objects of one class in one image, one to one.

    Masks may overlap, so that several pairings are possible: it is the one of most pairs, and of
    those the one of the largest total IoU. Scores have no part in it.

    Args:
        iou: (D, G) overlap; with a crowd, the share of the prediction that lies in it.
        crowd: (G,) whether the true object is a crowd.

    Returns:
        How many pairs of an IoU of at least `MATCH_IOU` there are, and how many of the other
        predictions lie in a crowd by that much.
    """
    near = iou >= MATCH_IOU
    real = near & ~crowd
    rows, columns = np.flatnonzero(real.any(axis=1)), np.flatnonzero(real.any(axis=0))
    part = np.ix_(rows, columns)
    if rows.size:
        # light commands import the metrics for their names
        from scipy.optimize import linear_sum_assignment  # noqa: PLC0415

        bonus = iou[part] / (min(rows.size, columns.size) + 1)  # all together less than one pair
        taken = linear_sum_assignment(np.where(real[part], 1 + bonus, 0), maximize=True)
        rows = rows[taken[0]][real[part][taken]]
    left = np.ones(len(iou), np.bool_)
    left[rows] = False
    return int(rows.size), int((near[:, crowd].any(axis=1) & left).sum())


def _sums(of: Integers, weights: Integers, length: int) -> Integers:
    """Add up the weights of each number below `length`; exact below 2**53."""
    return np.bincount(of, weights, minlength=length).astype(np.int64)


def _others(places: Integers, among: Flags) -> Flags:
    """Mark all of some that are not at these places."""
    left = among.copy()
    left[places] = False
    return left
