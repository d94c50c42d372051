"""Link the objects of slices into objects of a volume."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from medseg.objects import ObjectInstances

SAME = 0.5
"""IoU in neighbouring slices from which on two outlines are of one object."""


def link(slices: Sequence[ObjectInstances]) -> tuple[npt.NDArray[np.int32], ...]:
    """Number the objects of a volume: each goes on in the next slice where it overlaps enough.

    An object is paired with at most one of the next slice, of its own class and with an IoU of
    over a half; where several would do, the pairs of the largest sum of IoU are taken. An object
    that is missing in a slice ends there: nothing is guessed over a gap.

    Args:
        slices: Objects of each slice, in order.

    Returns:
        For each slice the numbers of its objects, from 1 on.
    """
    numbers: list[npt.NDArray[np.int32]] = []
    following = 1
    for place, here in enumerate(slices):
        own = np.zeros(len(here), np.int32)
        if place:
            iou = slices[place - 1].iou(here)
            iou[slices[place - 1].classes[:, None] != here.classes[None]] = 0
            for before, now in zip(
                *linear_sum_assignment(np.where(iou > SAME, -iou, 0)), strict=True
            ):
                if iou[before, now] > SAME:
                    own[now] = numbers[-1][before]
        new = np.flatnonzero(own == 0)
        own[new] = np.arange(following, following + len(new))
        following += len(new)
        numbers.append(own)
    return tuple(numbers)
