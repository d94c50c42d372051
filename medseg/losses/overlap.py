"""Losses of soft overlap: Dice and Jaccard, MONAI's, where some voxels count for nothing."""

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss as MonaiDiceLoss

from medseg.losses.label_loss import IGNORED, Batch, LabelLoss, class_weights, fitting


class _OverlapLoss(LabelLoss):
    jaccard = False

    def __init__(
        self,
        include_background: bool = True,
        batch: bool = False,
        weight: Sequence[float] | torch.Tensor | None = None,
        smooth: float = 1e-5,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(ignore_index)
        self.include_background = include_background
        self.over_batch = batch
        self.weight = class_weights(weight)
        self.loss = MonaiDiceLoss(
            include_background=include_background,
            to_onehot_y=True,
            softmax=True,
            jaccard=self.jaccard,
            reduction="none",
            smooth_nr=smooth,
            smooth_dr=smooth,
            batch=batch,
            ignore_index=None if ignore_index is None else IGNORED,
        )

    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            batch: Logits and labels.
        """
        first = 0 if self.include_background else 1
        classes = batch.logits.shape[1] - first
        values: torch.Tensor = self.loss(batch.logits, batch.label)
        values = values.reshape(-1, classes)  # items or 1, classes
        weight = fitting(self.weight, batch.logits)
        if weight is not None:
            values = values * weight[first:]
        if batch.valid is None or self.over_batch:
            return values.mean()
        counts = batch.valid.flatten(1).any(dim=1, keepdim=True)  # items, 1
        return (values * counts).sum() / (counts.sum() * classes)


class DiceLoss(_OverlapLoss):
    """One minus the soft Dice coefficient, averaged over classes and images.

    `monai.losses.DiceLoss(to_onehot_y=True, softmax=True)`; an image of ignored voxels alone is
    left out of the average.

    Args:
        include_background: Whether class 0 counts.
        batch: Measure all images of a batch as one.
        weight: (C,) factor of each class, background first (also where it does not count); the
            average is not divided by it. None for 1.
        smooth: Added above and below the fraction.
        ignore_index: Label of the voxels to leave out.

    Source:
        Milletari et al., V-Net, 3DV 2016.
    """


class JaccardLoss(_OverlapLoss):
    """One minus the soft intersection over union, averaged over classes and images.

    `monai.losses.DiceLoss(jaccard=True)`; arguments as those of `DiceLoss`.

    Args:
        include_background: Whether class 0 counts.
        batch: Measure all images of a batch as one.
        weight: (C,) factor of each class, background first; None for 1.
        smooth: Added above and below the fraction.
        ignore_index: Label of the voxels to leave out.

    Source:
        Rahman and Wang, Optimizing intersection-over-union in deep neural networks for image
        segmentation, ISVC 2016.
    """

    jaccard = True
