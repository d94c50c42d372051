"""COCO's average precision, of which each image leaves only what its predictions met.

The rules are COCO's, to the tie. In one image, the predictions of a class choose by falling score,
at each of ten IoU thresholds: each takes the free object that it overlaps most, of equal ones the
last, if the overlap reaches the threshold; failing that a crowd, which any number may take and
which makes a prediction count neither as right nor as wrong. Equal scores keep the order that they
came in. Precision is then read at 101 recalls, each the best at that recall or a higher one.

pycocotools' `COCOeval` makes the precision of the predictions. Which objects they meet is found
here: `COCOeval` tries all pairs at each threshold in Python, and keeps every mask of the set until
the end.

Source: Lin et al., Microsoft COCO: common objects in context, ECCV 2014; pycocotools 2.0.11.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools.cocoeval import COCOeval

Values = npt.NDArray[np.float64]

IOU_THRESHOLDS: Values = np.linspace(0.5, 0.95, 10)
"""Where COCO scores."""

_BITS = np.arange(len(IOU_THRESHOLDS), dtype=np.uint16)


@dataclass(frozen=True, eq=False)
class Ranked:
    """The predictions of one class in one image by falling score, and what they met.

    Attributes:
        scores: (D,) score of each.
        met: (D,) uint16; bit `t` says that it met something at the threshold of this number.
        excused: (D,) uint16; bit `t` says that what it met there is a crowd.
        objects: How many true objects there are, crowds left out.
    """

    scores: npt.NDArray[np.float32]
    met: npt.NDArray[np.uint16]
    excused: npt.NDArray[np.uint16]
    objects: int


def rank(
    iou: Values,
    scores: npt.NDArray[np.float32],
    crowd: npt.NDArray[np.bool_],
    most: int,
) -> Ranked:
    """Let the predictions of one class in one image choose their objects.

    Args:
        iou: (D, G) overlap of each prediction with each true object; with a crowd, the share of
            the prediction that lies in it.
        scores: (D,) of the predictions.
        crowd: (G,) whether the true object is a crowd.
        most: Predictions that may choose, the surest first; the others are left out.

    Returns:
        At most `most` predictions, by falling score.
    """
    order = np.argsort(-scores, kind="stable")[:most]
    met = np.zeros((len(_BITS), order.size), np.bool_)
    excused = np.zeros_like(met)
    taken = np.zeros((len(_BITS), crowd.size), np.bool_)
    floors = IOU_THRESHOLDS[:, None]
    for place, overlap in enumerate(iou[order]):
        near = np.flatnonzero(overlap >= floors[0])
        if not near.size:
            continue
        region = crowd[near]
        choice = (overlap[near] >= floors) & ~taken[:, near]  # thresholds, near
        choice &= ~region | ~(choice & ~region).any(axis=1, keepdims=True)  # a crowd comes last
        best = np.where(choice, overlap[near], -1.0)[:, ::-1].argmax(axis=1)
        best = near.size - 1 - best
        hit = choice.any(axis=1)
        met[:, place], excused[:, place] = hit, hit & region[best]
        own = hit & ~region[best]
        taken[own, near[best[own]]] = True
    return Ranked(scores[order], _packed(met), _packed(excused), int((~crowd).sum()))


def average_precision(images: Sequence[Ranked]) -> Values:
    """Return the average precision of one class over a data set.

    Args:
        images: What `rank` made of each, in an order that does not depend on chance: predictions
            of equal score are ranked by it.

    Returns:
        (10,) one an IoU threshold; NaN where the data set has no object of the class, as nothing
        could be found then.

    Examples:
        >>> sure, other = np.float32([0.9, 0.8]), np.float32([0.7])
        >>> two = rank(np.array([[0.8, 0], [0, 0.6]]), sure, np.zeros(2, bool), 100)
        >>> alarm = rank(np.zeros((1, 0)), other, np.zeros(0, bool), 100)
        >>> average_precision([two, alarm]).round(3).tolist()[:4]
        [1.0, 1.0, 1.0, 0.505]
    """
    if not sum(image.objects for image in images):
        return np.full(len(_BITS), np.nan)
    evaluator = COCOeval()
    settings = evaluator.params
    settings.imgIds, settings.catIds = list(range(len(images))), [1]
    settings.areaRng, settings.areaRngLbl = [[0, np.inf]], ["all"]
    settings.maxDets = [max(len(image.scores) for image in images)]
    evaluator.evalImgs = [_as_coco(image) for image in images]
    evaluator._paramsEval = settings
    with contextlib.redirect_stdout(io.StringIO()):
        evaluator.accumulate()
    precision = np.asarray(evaluator.eval["precision"], np.float64)
    return np.asarray(precision[:, :, 0, 0, 0].mean(axis=1))  # thresholds, recalls


def _as_coco(image: Ranked) -> dict[str, Any]:
    return {
        "dtScores": image.scores.astype(np.float64),
        "dtMatches": _unpacked(image.met),
        "dtIgnore": _unpacked(image.excused),
        "gtIgnore": np.zeros(image.objects, np.bool_),
    }


def _packed(flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint16]:
    return np.asarray((flags.astype(np.uint16) << _BITS[:, None]).sum(axis=0), np.uint16)


def _unpacked(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
    return np.asarray((bits >> _BITS[:, None]) & 1, np.bool_)
