"""Scores of a labelled data set from one confusion matrix, and its contours.

Every pixel of every image is counted once, whatever its image: large classes and large images
weigh more, as in PASCAL VOC's and CamVid's published figures. `medseg.metrics.segmentation`
scores case by case instead.

With `tp` pixels of a class predicted as it, `fp` predicted only, `fn` missed:

* iou = tp / (tp + fp + fn); dice = 2 tp / (2 tp + fp + fn), which is F1;
  precision = tp / (tp + fp); recall = tp / (tp + fn), also called the class's accuracy.
* pixel_accuracy is the share of all pixels that are right; mean_accuracy the mean recall;
  frequency_weighted_iou weighs each IoU by the class's share of the true pixels.
* boundary_f1 of a class is the mean over images, mean_boundary_f1 the mean over images of the
  mean over classes; see `medseg.metrics.boundary`.

Ignored pixels are in no cell of the matrix. What has nothing to divide by is NaN, never 0: a class
absent from truth and prediction in all, one never predicted in precision, one absent from the
truth in recall. Means leave NaN out, and `counted` says over how many classes they are.

Source: Long, Shelhamer and Darrell, FCN, CVPR 2015 (accuracies and IoU); Everingham et
al., The PASCAL Visual Object Classes challenge: a retrospective, IJCV 2015 (IoU over
the data set).
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import InputError
from medseg.metrics.boundary import TOLERANCE, boundary_f1
from medseg.metrics.ratios import defined_mean, or_none, ratio

Values = npt.NDArray[np.float64]

CLASS_METRICS = ("iou", "dice", "precision", "recall", "boundary_f1")
"""Names of the metrics of a class, in the order of tables."""

_CHUNK = 1 << 22
"""Pixels counted at a time: they are widened to int64 first."""


@dataclass(frozen=True, eq=False)
class SemanticScores:
    """How a data set was met; see the module for definitions.

    Attributes:
        names: Name of each class, in the order of the indices.
        confusion: (C, C) pixels; row the truth, column the prediction. int64.
        images: Images counted.
        ignored: Pixels left out.
        boundary_f1: (C,) mean over images; NaN where no image has a contour of the class, or
            contours were not asked for.
        mean_boundary_f1: Mean over images; NaN likewise.
        boundary_images: Images that have a contour to count.
    """

    names: tuple[str, ...]
    confusion: npt.NDArray[np.int64]
    images: int
    ignored: int
    boundary_f1: Values
    mean_boundary_f1: float = math.nan
    boundary_images: int = 0

    @property
    def pixels(self) -> int:
        """Pixels counted."""
        return int(self.confusion.sum())

    @property
    def iou(self) -> Values:
        """(C,) intersection over union."""
        return ratio(self._hits, self._true + self._predicted - self._hits)

    @property
    def dice(self) -> Values:
        """(C,) Dice coefficient, or F1."""
        return ratio(2 * self._hits, self._true + self._predicted)

    @property
    def precision(self) -> Values:
        """(C,) share of the prediction that is right."""
        return ratio(self._hits, self._predicted)

    @property
    def recall(self) -> Values:
        """(C,) share of the truth that is found."""
        return ratio(self._hits, self._true)

    @property
    def pixel_accuracy(self) -> float:
        """Share of the pixels that are right."""
        return float(ratio(self._hits.sum(), self.confusion.sum()))

    @property
    def mean_accuracy(self) -> float:
        """Mean recall over the classes of the truth."""
        return defined_mean(self.recall)

    @property
    def mean_iou(self) -> float:
        """Mean IoU over the classes of truth or prediction."""
        return defined_mean(self.iou)

    @property
    def frequency_weighted_iou(self) -> float:
        """IoU weighed by the share of the true pixels."""
        return float(ratio((self._true * np.nan_to_num(self.iou)).sum(), self._true.sum()))

    @property
    def counted(self) -> dict[str, int]:
        """How many classes each mean is over, by metric."""
        return {name: int((~np.isnan(getattr(self, name))).sum()) for name in CLASS_METRICS}

    def as_json(self) -> dict[str, Any]:
        """Return the scores as a JSON document; what is undefined is None."""
        means = {name: defined_mean(getattr(self, name)) for name in CLASS_METRICS}
        means["boundary_f1"] = self.mean_boundary_f1
        return {
            "images": self.images,
            "pixels": self.pixels,
            "ignored_pixels": self.ignored,
            "pixel_accuracy": or_none(self.pixel_accuracy),
            "mean_accuracy": or_none(self.mean_accuracy),
            "mean_iou": or_none(self.mean_iou),
            "frequency_weighted_iou": or_none(self.frequency_weighted_iou),
            "mean": {name: or_none(value) for name, value in means.items()},
            "counted": self.counted,
            "boundary_images": self.boundary_images,
            "labels": {
                name: {
                    "index": index,
                    "pixels": int(self._true[index]),
                    "predicted_pixels": int(self._predicted[index]),
                    **{key: or_none(getattr(self, key)[index]) for key in CLASS_METRICS},
                }
                for index, name in enumerate(self.names)
            },
            "confusion": self.confusion.tolist(),
        }

    def confusion_csv(self) -> str:
        """Return the confusion matrix as CSV: a row a true class, a column a predicted one."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["truth \\ prediction", *self.names])
        writer.writerows(
            [name, *row] for name, row in zip(self.names, self.confusion.tolist(), strict=True)
        )
        return stream.getvalue()

    @property
    def _hits(self) -> npt.NDArray[np.int64]:
        return np.diagonal(self.confusion)

    @property
    def _true(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.confusion.sum(axis=1))

    @property
    def _predicted(self) -> npt.NDArray[np.int64]:
        return np.asarray(self.confusion.sum(axis=0))


class SemanticMetrics:
    """Counts a data set image by image, and scores it at the end.

    Args:
        names: Name of each class in the order of the indices, background included.
        ignore_index: Value in the truth of the pixels to leave out; none when None. Where it is
            one of the classes, that class is absent from the truth.
        boundaries: Whether to score contours, which takes longer than the rest; 2D only.
        tolerance: Of the contours: share of the image's diagonal.

    Raises:
        ValueError: If a name is missing or there twice, or the tolerance is not above 0.

    Examples:
        >>> metrics = SemanticMetrics(["sky", "road"], ignore_index=255)
        >>> metrics.add(np.array([[0, 1, 1]]), np.array([[0, 0, 255]]))
        >>> scores = metrics.scores()
        >>> scores.iou.tolist(), scores.pixel_accuracy, scores.ignored
        ([0.5, 0.0], 0.5, 1)
    """

    def __init__(
        self,
        names: Sequence[str],
        ignore_index: int | None = None,
        *,
        boundaries: bool = False,
        tolerance: float = TOLERANCE,
    ) -> None:
        if not names or len(set(names)) < len(names):
            msg = f"names must be one a class, each once, got {list(names)!r}."
            raise ValueError(msg)
        if not 0 < tolerance <= 1:
            msg = f"tolerance must be above 0, at most 1, got {tolerance!r}."
            raise ValueError(msg)
        self.names = tuple(names)
        self.ignore_index = ignore_index
        self.boundaries = boundaries
        self.tolerance = tolerance
        self._confusion = np.zeros((len(names), len(names)), np.int64)
        self._images = self._ignored = 0
        self._of_images: list[Values] = []

    def add(self, pred: npt.NDArray[Any], label: npt.NDArray[Any]) -> None:
        """Count one image. It counts in full or, where this raises, not at all.

        Args:
            pred: (rows, columns) or (I, J, K) predicted class indices; integer. May hold anything
                where the truth is ignored.
            label: Same shape; the truth.

        Raises:
            ValueError: If the shapes differ or the arrays are not integer.
            InputError: With code `unknown-label` if either holds a value that is no class.
        """
        if pred.shape != label.shape or pred.dtype.kind not in "ui" or label.dtype.kind not in "ui":
            msg = (
                "pred and label must be integer and of one shape, got"
                f" {pred.dtype} {pred.shape} and {label.dtype} {label.shape}."
            )
            raise ValueError(msg)
        classes = len(self.names)
        flat = pred.reshape(-1), label.reshape(-1)
        counts = np.zeros(classes * classes, np.int64)
        for start in range(0, label.size, _CHUNK):
            a, b = (values[start : start + _CHUNK] for values in flat)
            if self.ignore_index is not None:
                valid = b != self.ignore_index
                a, b = a[valid], b[valid]
            self._check(a, "pred")
            self._check(b, "label")
            pairs = b.astype(np.int64) * classes + a.astype(np.int64)
            counts += np.bincount(pairs, minlength=classes * classes)
        if self.boundaries:
            self._of_images.append(
                boundary_f1(
                    pred,
                    label,
                    classes,
                    ignore_index=self.ignore_index,
                    tolerance=self.tolerance,
                )
            )
        self._confusion += counts.reshape(classes, classes)
        self._images += 1
        self._ignored += label.size - int(counts.sum())

    def merge(self, other: "SemanticMetrics") -> None:
        """Add what another process or another part of the data set counted.

        Args:
            other: Counts of other images.

        Raises:
            ValueError: If it was made with other arguments.
        """
        if _settings(self) != _settings(other):
            msg = f"other must have the settings {_settings(self)}, got {_settings(other)}."
            raise ValueError(msg)
        self._confusion += other._confusion
        self._images += other._images
        self._ignored += other._ignored
        self._of_images += other._of_images

    def add_confusions(self, confusions: Sequence[npt.NDArray[np.int64]]) -> None:
        """Count images by what was counted of each; their contours and ignored pixels are unknown.

        Args:
            confusions: (C, C) pixels of an image each; row the truth, column the prediction.

        Raises:
            ValueError: If one has other classes, or contours are asked for.
        """
        if self.boundaries or any(one.shape != self._confusion.shape for one in confusions):
            msg = f"confusions must be {self._confusion.shape}, and contours not be asked for."
            raise ValueError(msg)
        for confusion in confusions:
            self._confusion += confusion
        self._images += len(confusions)

    def scores(self) -> SemanticScores:
        """Return the scores of all images so far."""
        classes = len(self.names)
        table = np.array(self._of_images).reshape(-1, classes)  # images, classes
        of_images = [mean for row in table if not math.isnan(mean := defined_mean(row))]
        return SemanticScores(
            names=self.names,
            confusion=self._confusion.copy(),
            images=self._images,
            ignored=self._ignored,
            boundary_f1=np.array([defined_mean(column) for column in table.T]),
            mean_boundary_f1=defined_mean(np.array(of_images)),
            boundary_images=len(of_images),
        )

    def _check(self, values: npt.NDArray[Any], argument: str) -> None:
        if not values.size:
            return
        low, high = int(values.min()), int(values.max())
        if low >= 0 and high < len(self.names):
            return
        also = "" if self.ignore_index is None or argument == "pred" else f" or {self.ignore_index}"
        msg = (
            f"{argument} must hold 0 to {len(self.names) - 1}{also}, got"
            f" {high if high >= len(self.names) else low}. Map its values, or set ignore_index."
        )
        raise InputError(msg, code="unknown-label")


def _settings(metrics: SemanticMetrics) -> tuple[Any, ...]:
    return metrics.names, metrics.ignore_index, metrics.boundaries, metrics.tolerance
