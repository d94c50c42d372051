"""Scores of object instances; `medseg.metrics.objects` says what they mean and makes them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.metrics.ratios import defined_mean, or_none, ratio

Values = npt.NDArray[np.float64]

CLASS_METRICS = (
    "ap",
    "ap50",
    "ap75",
    "box_ap",
    "box_ap50",
    "box_ap75",
    "precision",
    "recall",
    "f1",
    "pq",
    "sq",
    "rq",
    "aji",
    "aji_pooled",
)
"""Names of the metrics of a class, in the order of tables."""

COUNTS = (
    "truth",
    "predicted",
    "matched",
    "ignored",
    "crowds",
    "hidden",
    "truth_hidden",
    "unranked",
)
"""Names of the counts of a class: true objects, crowds left out; predictions of at least the score
threshold, ignored ones left out; pairs of the two; what is ignored; true crowds; predictions and
true objects that others hide; predictions over `most_objects`, which AP leaves out."""


@dataclass(frozen=True)
class ObjectCase:
    """How one image was met, all its classes together.

    Attributes:
        case: Its name.
        truth: True objects, crowds left out.
        predicted: Predictions of at least the score threshold, ignored ones left out.
        matched: Pairs of the two.
        ignored: Predictions that lie in a crowd.
        f1: Of the pairs; NaN where there is no object on either side.
        pq: Panoptic quality; NaN likewise.
        aji: Aggregated Jaccard index; NaN likewise.
    """

    case: str
    truth: int
    predicted: int
    matched: int
    ignored: int
    f1: float
    pq: float
    aji: float

    @property
    def count_error(self) -> int:
        """Predictions over the number of true objects."""
        return self.predicted - self.truth

    def as_json(self) -> dict[str, Any]:
        """Return the scores as a JSON document; what is undefined is None."""
        values = {**vars(self), "count_error": self.count_error}
        return {
            key: or_none(value) if isinstance(value, float) else value
            for key, value in values.items()
        }


@dataclass(frozen=True, eq=False)
class ObjectScores:
    """How a data set was met; see the module for definitions.

    Attributes:
        names: Name of each class, from class 1 on.
        score_threshold: Score from which a prediction counts, AP aside.
        most_objects: Predictions of a class in an image that AP ranks.
        of_class: (C,) of each of `CLASS_METRICS`.
        counts: (C,) of each of `COUNTS`, int64.
        cases: Each image, in the order of the names.
        aji_pooled: AJI of all objects of all images.
    """

    names: tuple[str, ...]
    score_threshold: float
    most_objects: int
    of_class: Mapping[str, Values]
    counts: Mapping[str, npt.NDArray[np.int64]]
    cases: tuple[ObjectCase, ...]
    aji_pooled: float

    @property
    def mean(self) -> dict[str, float]:
        """Mean over the classes of each metric, over the images of AJI and the count errors."""
        errors = np.array([case.count_error for case in self.cases], np.float64)
        return {
            **{name: defined_mean(self.of_class[name]) for name in CLASS_METRICS},
            "aji": defined_mean(self._aji),
            "aji_pooled": self.aji_pooled,
            "count_error": defined_mean(errors),
            "absolute_count_error": defined_mean(np.abs(errors)),
        }

    @property
    def counted(self) -> dict[str, int]:
        """Over how many classes each mean is; images for AJI and the count errors."""
        images = len(self.cases)
        return {
            **{name: _defined(self.of_class[name]) for name in CLASS_METRICS},
            "aji": _defined(self._aji),
            "count_error": images,
            "absolute_count_error": images,
        }

    def as_json(self) -> dict[str, Any]:
        """Return the scores as a JSON document; what is undefined is None."""
        return {
            "images": len(self.cases),
            "score_threshold": self.score_threshold,
            "most_objects": self.most_objects,
            "mean": {name: or_none(value) for name, value in self.mean.items()},
            "counted": self.counted,
            "counts": {name: int(self.counts[name].sum()) for name in COUNTS},
            "labels": {
                name: {
                    "index": place + 1,
                    **{key: int(self.counts[key][place]) for key in COUNTS},
                    **{key: or_none(self.of_class[key][place]) for key in CLASS_METRICS},
                }
                for place, name in enumerate(self.names)
            },
            "cases": [case.as_json() for case in self.cases],
        }

    @property
    def _aji(self) -> Values:
        return np.array([case.aji for case in self.cases], np.float64)


def quality(counts: Mapping[str, Values]) -> dict[str, Values]:
    """Return the metrics that are made of counts, in whatever shape the counts have."""
    hits = counts["segments_matched"]
    segments = hits + (counts["segments_invented"] + counts["segments_missed"]) / 2
    return {
        "precision": ratio(counts["matched"], counts["predicted"]),
        "recall": ratio(counts["matched"], counts["truth"]),
        "f1": ratio(2 * counts["matched"], counts["predicted"] + counts["truth"]),
        "pq": ratio(counts["iou"], segments),
        "sq": ratio(counts["iou"], hits),
        "rq": ratio(hits, segments),
        "aji": ratio(counts["overlap"], counts["union"]),
    }


def of_cases(names: Sequence[str], counts: Mapping[str, Values]) -> tuple[ObjectCase, ...]:
    """Return the scores of images.

    Args:
        names: Of the images.
        counts: (images,) each.
    """
    scores = quality(counts)
    numbers = ("truth", "predicted", "matched", "ignored")
    return tuple(
        ObjectCase(
            name,
            *(int(counts[key][place]) for key in numbers),
            *(float(scores[key][place]) for key in ("f1", "pq", "aji")),
        )
        for place, name in enumerate(names)
    )


def _defined(values: Values) -> int:
    return int((~np.isnan(values)).sum())
