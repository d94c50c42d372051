"""Distances between surfaces, in millimetres."""

from collections.abc import Sequence
from typing import Any

from ignite.metrics.metric import reinit__is_reduced
from monai.handlers import HausdorffDistance


class HausdorffDistanceMm(HausdorffDistance):  # type: ignore[misc]  # monai is untyped
    """MONAI's handler, told the spacing of each case: without it distances are in voxels.

    Takes the arguments of `monai.handlers.HausdorffDistance`; references are `MetaTensor`, one a
    case, as `decollate` leaves them.
    """

    @reinit__is_reduced  # type: ignore[untyped-decorator]  # ignite's
    def update(self, output: Sequence[Any]) -> None:
        """Add the cases of an iteration.

        Args:
            output: Lists of (C, *spatial) one-hot predictions and references.
        """
        for prediction, reference in zip(*output, strict=True):
            spacing = [float(value) for value in reference.pixdim[: reference.ndim - 1]]
            self.metric_fn([prediction], [reference], spacing=spacing)
