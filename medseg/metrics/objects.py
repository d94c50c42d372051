"""Scores of object instances: average precision, AJI, panoptic quality, F1 and counts.

Objects are matched within their class. Four questions, each with its own rules:

* **ap** (mean over IoU 0.50, 0.55 ... 0.95), **ap50**, **ap75** of masks, and **box_ap** ... of the
  boxes around the masks: COCO's average precision, of all predictions whatever their score, ranked
  over the data set; see `medseg.metrics.average_precision`. Of an image the `most_objects` surest
  predictions of a class take part: COCO has 100, where a micrograph holds hundreds of objects.
* **precision**, **recall**, **f1**: predictions with a score of at least `score_threshold`, paired
  one to one with true objects at an IoU of at least 0.5. Masks may overlap, which leaves more than
  one pairing: the one of most pairs counts, whatever the scores.
* **pq**, **sq**, **rq**: panoptic quality, the sum of the IoU of matched segments over their
  number and half the number of the others; segmentation quality is their mean IoU, recognition
  quality the F1 of the match. A match has an IoU above 0.5.
* **aji**: aggregated Jaccard index. Each true object takes the prediction of highest IoU (of equal
  ones the larger intersection), and the intersections and unions are added up; true objects that
  touch no prediction and predictions that nobody took are added to the union. Its quirks: several
  true objects may take one prediction, which is then in the union several times; a sliver of
  overlap is a match; one error of a large object outweighs many of small ones.

PQ and AJI are defined where each pixel has one object. Predictions of at least `score_threshold`
are therefore laid on one another first, all classes together, as `ObjectInstances.label_map` does:
the surer is seen. A prediction of which nothing is seen has no part in PQ and AJI, and is counted
as `hidden`; AP, F1 and the counts still hold it as a false alarm.

True crowds are neither missed nor false alarms. A prediction that meets no object is left out
where half of it lies in a crowd of its class, or of any class: at least half in AP (at the lowest
threshold; at 0.95 it is 95 %) and F1, more than half of what is seen of it in PQ and AJI. Otherwise
it is a false alarm. The number of predictions left out of F1 so is `ignored`.

A class's counts are added up over the data set, its AJI is the mean over images (`aji_pooled` adds
up), and a mean over classes has each class the same weight. Not so `aji` and `aji_pooled` of the
data set: an image's AJI takes all its classes together, and the mean is over images.

What has nothing to divide by is NaN, never 0, and left out of means; `counted` says over how many
classes (of `aji` and the count errors: images) a mean is:

=====================  ===========  ===========  ====================  =======================
objects of the class   none         truth only   prediction only       both
=====================  ===========  ===========  ====================  =======================
ap, box_ap ...         NaN          0            NaN                   defined
precision              NaN          NaN          0                     defined
recall                 NaN          0            NaN                   defined
f1, pq, rq, aji        NaN          0            0                     defined
sq                     NaN          NaN          NaN                   NaN if none is matched
=====================  ===========  ===========  ====================  =======================

AP is of the data set: false alarms on an image without objects lower it where another image has
some. In a data set without any object of the class F1, PQ, AJI and the counts show them.

Source: Lin et al., Microsoft COCO, ECCV 2014 (AP, crowds); Kirillov et al., Panoptic segmentation,
CVPR 2019 (PQ; the public code has SQ 0 where it is NaN here); Kumar et al., A dataset and a
technique for generalized nuclear segmentation, IEEE TMI 2017 (AJI).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as run_lengths

from medseg.errors import InputError
from medseg.metrics.average_precision import Ranked, average_precision, rank
from medseg.metrics.object_counts import SEGMENT_COUNTS, matched, segment_counts
from medseg.metrics.object_scores import (
    CLASS_METRICS,
    COUNTS,
    ObjectScores,
    of_cases,
    quality,
)
from medseg.metrics.ratios import defined_mean, ratio
from medseg.objects import ANY_CLASS, ObjectInstances

Values = npt.NDArray[np.float64]

MOST_OBJECTS = 10_000
"""Predictions of a class in an image that AP ranks, unless said otherwise."""


@dataclass(frozen=True, eq=False)
class _Image:
    """What is kept of an image: some ten bytes a prediction, and some numbers a class."""

    counts: Mapping[str, Values]
    masks: tuple[Ranked, ...]
    boxes: tuple[Ranked, ...]


class ObjectMetrics:
    """Scores a data set of object instances image by image, and keeps no masks.

    Args:
        names: Name of each class, from class 1 on.
        score_threshold: Score from which a prediction counts for PQ, AJI, F1 and the counts; 0 to
            1. AP uses all.
        most_objects: Predictions of a class in an image that AP ranks, the surest first. COCO's
            own figure is 100.

    Raises:
        ValueError: If a name is missing or there twice, the threshold is not from 0 to 1, or
            `most_objects` is below 1.

    Examples:
        >>> truth = ObjectInstances.of_label_map(np.array([[1, 1, 1, 1, 0, 2]]))
        >>> found = ObjectInstances.of_label_map(np.array([[1, 1, 1, 0, 0, 0]]))
        >>> metrics = ObjectMetrics(["nucleus"])
        >>> metrics.add("a", found, truth)
        >>> mean = metrics.scores().mean
        >>> [round(mean[name], 3) for name in ("ap50", "f1", "pq", "aji", "count_error")]
        [0.505, 0.667, 0.5, 0.6, -1.0]
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        score_threshold: float = 0.5,
        most_objects: int = MOST_OBJECTS,
    ) -> None:
        if not names or len(set(names)) < len(names):
            msg = f"names must be one a class, each once, got {list(names)!r}."
            raise ValueError(msg)
        if not 0 <= score_threshold <= 1:
            msg = f"score_threshold must be from 0 to 1, got {score_threshold!r}."
            raise ValueError(msg)
        if most_objects < 1:
            msg = f"most_objects must be 1 or more, got {most_objects!r}."
            raise ValueError(msg)
        self.names = tuple(names)
        self.score_threshold = score_threshold
        self.most_objects = most_objects
        self._images: dict[str, _Image] = {}

    def add(self, case: str, pred: ObjectInstances, truth: ObjectInstances) -> None:
        """Count one image. It counts in full or, where this raises, not at all.

        Args:
            case: Its name, of which there is one.
            pred: Predicted objects, of any score.
            truth: True objects; their scores have no part.

        Raises:
            ValueError: If the image is there already, or a prediction is a crowd or has a score
                that is no number.
            InputError: With code `grid-mismatch` if the images have different sizes, with
                `unknown-label` if a class has no name.
        """
        self._check(case, pred, truth)
        sure = pred.chosen(pred.scores >= self.score_threshold)
        counts = {name: np.zeros(len(self.names)) for name in COUNTS}
        counts |= segment_counts(sure, truth, len(self.names))
        masks, boxes = [], []
        for place in range(len(self.names)):
            ours, theirs = pred.of_class(place + 1), truth.of_class(place + 1)
            iou, box_iou = ours.iou(theirs), _box_iou(ours, theirs)
            masks.append(rank(iou, ours.scores, theirs.crowd, self.most_objects))
            boxes.append(rank(box_iou, ours.scores, theirs.crowd, self.most_objects))
            counting = ours.scores >= self.score_threshold
            pairs, ignored = matched(iou[counting], theirs.crowd)
            for name, value in {
                "truth": (~theirs.crowd).sum(),
                "predicted": counting.sum() - ignored,
                "matched": pairs,
                "ignored": ignored,
                "crowds": theirs.crowd.sum(),
                "unranked": max(0, len(ours) - self.most_objects),
            }.items():
                counts[name][place] = value
        self._images[case] = _Image(counts, tuple(masks), tuple(boxes))

    def merge(self, other: "ObjectMetrics") -> None:
        """Add what another process or another part of the data set counted.

        Args:
            other: Counts of other images.

        Raises:
            ValueError: If it was made with other arguments, or both have an image of one name.
        """
        if _settings(self) != _settings(other):
            msg = f"other must have the settings {_settings(self)}, got {_settings(other)}."
            raise ValueError(msg)
        if shared := sorted(self._images.keys() & other._images.keys()):
            msg = f"other must hold other images, got {shared[:5]} in both. Count each image once."
            raise ValueError(msg)
        self._images |= other._images

    def scores(self) -> ObjectScores:
        """Return the scores of all images so far, whatever the order they came in."""
        cases = sorted(self._images)
        images = [self._images[case] for case in cases]
        classes = range(len(self.names))
        table = {
            key: np.array([image.counts[key] for image in images]).reshape(-1, len(classes))
            for key in {*COUNTS, *SEGMENT_COUNTS}
        }  # images, classes
        total = {key: values.sum(axis=0) for key, values in table.items()}
        of_class = quality(total)
        of_class["aji_pooled"] = of_class["aji"]
        of_class["aji"] = np.array([defined_mean(column) for column in quality(table)["aji"].T])
        for kind in ("masks", "boxes"):
            precision = np.array(
                [average_precision([getattr(image, kind)[k] for image in images]) for k in classes]
            )  # classes, thresholds
            prefix = "box_ap" if kind == "boxes" else "ap"
            of_class[prefix] = precision.mean(axis=1)
            of_class[f"{prefix}50"], of_class[f"{prefix}75"] = precision[:, 0], precision[:, 5]
        return ObjectScores(
            names=self.names,
            score_threshold=self.score_threshold,
            most_objects=self.most_objects,
            of_class={name: of_class[name] for name in CLASS_METRICS},
            counts={name: total[name].astype(np.int64) for name in COUNTS},
            cases=of_cases(cases, {key: values.sum(axis=1) for key, values in table.items()}),
            aji_pooled=float(ratio(total["overlap"].sum(), total["union"].sum())),
        )

    def _check(self, case: str, pred: ObjectInstances, truth: ObjectInstances) -> None:
        if case in self._images:
            msg = f"case must be an image that is not there yet, got {case!r}."
            raise ValueError(msg)
        if pred.size != truth.size:
            msg = f"pred must have the size of truth, {truth.size}, got {pred.size} in {case}."
            raise InputError(msg, code="grid-mismatch")
        if pred.crowd.any():
            msg = f"pred must be single objects, got {int(pred.crowd.sum())} crowds in {case}."
            raise ValueError(msg)
        if not np.isfinite(pred.scores).all():
            msg = f"scores of pred must be finite, got {pred.scores.tolist()[:10]} in {case}."
            raise ValueError(msg)
        for name, objects in (("pred", pred), ("truth", truth)):
            own = objects.classes[~(objects.crowd & (objects.classes == ANY_CLASS))]
            unknown = sorted(set(own.tolist()) - set(range(1, len(self.names) + 1)))
            if unknown:
                msg = (
                    f"classes of {name} must be 1 to {len(self.names)}, got {unknown[:10]} in"
                    f" {case}. Name every class."
                )
                raise InputError(msg, code="unknown-label")


def _box_iou(pred: ObjectInstances, truth: ObjectInstances) -> Values:
    """Return the overlap of the boxes around masks, as `ObjectInstances.iou` that of the masks."""
    if not len(pred) or not len(truth):
        return np.zeros((len(pred), len(truth)))
    ours, theirs = (objects.boxes.astype(np.float64) for objects in (pred, truth))
    for boxes in (ours, theirs):
        boxes[:, 2:] -= boxes[:, :2]
    crowd = truth.crowd.astype(np.uint8).tolist()
    return np.asarray(run_lengths.iou(ours, theirs, crowd), np.float64)


def _settings(metrics: ObjectMetrics) -> tuple[Any, ...]:
    return metrics.names, metrics.score_threshold, metrics.most_objects
