"""Boundary F1: whether the contours of a segmentation lie where those of the truth do.

For one class in one image, precision is the share of the predicted contour that has the true
contour nearer than the tolerance, recall the share of the true contour that has the predicted one
nearer than it, and F1 their harmonic mean.

* A contour pixel is one of the class with a neighbour (above, below, left, right) of another
  class. The edge of the image is no contour.
* Contact with an ignored pixel is no contour either, and contour pixels with an ignored pixel
  nearer than the tolerance count in neither share: what lies under the ignored pixel is unknown.
  Where every object is ringed by ignored pixels, as in PASCAL VOC, nothing is left to count.
* A class with a contour to count in one mask and none at all in the other scores 0. Otherwise,
  where a share has nothing to count, F1 is NaN: a class that covers the whole image, for example.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

TOLERANCE = 0.0075
"""Share of the image's diagonal within which contours match. Source: Csurka et al., BMVC 2013."""


def boundary_f1(
    pred: npt.NDArray[Any],
    label: npt.NDArray[Any],
    classes: int,
    *,
    ignore_index: int | None = None,
    tolerance: float = TOLERANCE,
) -> npt.NDArray[np.float64]:
    """Score the contours of each class in one image.

    Args:
        pred: (rows, columns) predicted class indices.
        label: (rows, columns) true class indices.
        classes: Number of classes.
        ignore_index: Value in `label` of the pixels to leave out; none when None.
        tolerance: Share of the image's diagonal; 0 to 1.

    Returns:
        (classes,) F1; NaN where there is no contour to count.

    Raises:
        ValueError: If the shapes differ or are not 2D, or the tolerance is not above 0.

    Source:
        Csurka, Larlus and Perronnin, What is a good evaluation measure for semantic
        segmentation?, BMVC 2013.

    Examples:
        >>> truth = np.zeros((40, 40), np.uint8)
        >>> truth[:, 20:] = 1
        >>> boundary_f1(truth, truth, 3).tolist()
        [1.0, 1.0, nan]
    """
    if pred.shape != label.shape or pred.ndim != 2:
        msg = f"pred and label must be of one shape, 2D, got {pred.shape} and {label.shape}."
        raise ValueError(msg)
    if not 0 < tolerance <= 1:
        msg = f"tolerance must be above 0, at most 1, got {tolerance!r}."
        raise ValueError(msg)
    reach = tolerance * float(np.hypot(*label.shape))
    valid = np.ones(label.shape, np.bool_) if ignore_index is None else label != ignore_index
    counted = valid if valid.all() else _distance(~valid) >= reach
    scores = np.full(classes, np.nan)
    for index in range(classes):
        masks = (pred == index) & valid, (label == index) & valid
        if masks[0].any() or masks[1].any():
            scores[index] = _f1(*masks, valid, counted, reach)
    return scores


def _f1(
    pred: npt.NDArray[np.bool_],
    label: npt.NDArray[np.bool_],
    valid: npt.NDArray[np.bool_],
    counted: npt.NDArray[np.bool_],
    reach: float,
) -> float:
    contours = _contour(pred, valid), _contour(label, valid)
    shares = [
        _share_near(contour & counted, other, reach)
        for contour, other in (contours, contours[::-1])
    ]
    undefined = [math.isnan(share) for share in shares]
    if any(undefined):
        one_only = contours[0].any() != contours[1].any()
        return 0.0 if one_only and not all(undefined) else math.nan
    return 2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0


def _share_near(
    contour: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_], reach: float
) -> float:
    """Return the share of `contour` nearer than `reach` to `other`; NaN where it is empty."""
    if not contour.any():
        return math.nan
    return float((_distance(other)[contour] < reach).mean()) if other.any() else 0.0


def _contour(mask: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark the pixels of a mask that touch a valid pixel outside it."""
    outside = valid & ~mask
    contour = np.zeros(mask.shape, np.bool_)
    contour[1:] |= outside[:-1]
    contour[:-1] |= outside[1:]
    contour[:, 1:] |= outside[:, :-1]
    contour[:, :-1] |= outside[:, 1:]
    return contour & mask


def _distance(to: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the distance of each pixel to the nearest that is true; pixels."""
    from scipy import ndimage  # noqa: PLC0415  (light commands import the metrics for their names)

    return np.asarray(ndimage.distance_transform_edt(~to))
