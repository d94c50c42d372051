"""Weights that balance frequent classes against rare ones."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import InputError


def label_counts(
    labels: Iterable[npt.NDArray[Any]], classes: int, ignore_index: int | None = None
) -> npt.NDArray[np.int64]:
    """Count the voxels of each class in each image.

    Args:
        labels: Masks of any shape; integer class indices. Read one at a time.
        classes: Number of classes, background included.
        ignore_index: Value of the voxels to leave out; none when None.

    Returns:
        (images, classes) counts.

    Raises:
        InputError: With code `unknown-label` if a mask holds anything else, naming its number.

    Examples:
        >>> label_counts([np.array([[0, 1], [1, 255]])], 3, ignore_index=255).tolist()
        [[1, 2, 0]]
    """
    rows = []
    for number, label in enumerate(labels):
        values, counts = np.unique(label, return_counts=True)
        row = np.zeros(classes, np.int64)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            if value == ignore_index:
                continue
            if value not in range(classes):
                msg = (
                    f"labels must hold 0 to {classes - 1} or ignore_index ({ignore_index}), got"
                    f" {value!r} in mask {number} (counted from 0)."
                )
                raise InputError(msg, code="unknown-label")
            row[int(value)] = count
        rows.append(row)
    return np.stack(rows) if rows else np.zeros((0, classes), np.int64)


def median_frequency_weights(counts: npt.ArrayLike) -> list[float]:
    """Return class weights by median-frequency balancing.

    The frequency of a class is its share of the voxels of the images that hold it; its weight is
    the median of the frequencies over its own. A class that no image holds has no frequency: it
    is left out of the median and gets weight 0.

    Args:
        counts: (images, classes) voxels of each class in each image, ignored ones left out, from
            `label_counts`.

    Returns:
        A weight a class, for `CrossEntropyLoss(weight=...)`.

    Raises:
        ValueError: If the counts are not (images, classes), not whole numbers of 0 or more, or
            all 0.

    Source:
        Eigen and Fergus, ICCV 2015; used by Badrinarayanan et al., SegNet,
        PAMI 2017.

    Examples:
        >>> median_frequency_weights([[75, 25, 0, 0], [0, 0, 100, 0]])
        [1.0, 3.0, 0.75, 0.0]
    """
    table = np.asarray(counts)
    if table.ndim != 2 or table.dtype.kind not in "ui" or (table < 0).any() or not table.any():
        msg = (
            "counts must be (images, classes) whole numbers, 0 or more, not all 0, got"
            f" {table.dtype} of shape {table.shape}. Use label_counts."
        )
        raise ValueError(msg)
    held = table > 0
    of_class = table.sum(axis=0)
    of_images = (held * table.sum(axis=1, keepdims=True)).sum(axis=0)
    present = of_class > 0
    frequency = of_class[present] / of_images[present]
    weights = np.zeros(table.shape[1])
    weights[present] = np.median(frequency) / frequency
    return [float(weight) for weight in weights]
