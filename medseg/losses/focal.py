"""Focal loss, where some voxels count for nothing."""

from collections.abc import Sequence

import torch
from monai.losses import FocalLoss as MonaiFocalLoss

from medseg.losses.label_loss import Batch, LabelLoss, class_weights, fitting


class FocalLoss(LabelLoss):
    """Softmax cross-entropy times (1 - p) ** gamma, averaged over the voxels that count.

    With `gamma: 0` this is the plain cross-entropy. MONAI's average is over classes too, and so
    smaller by their number; with its `ignore_index` it is not (MONAI 1.6.1): its values are
    averaged here.

    Args:
        gamma: How much less sure voxels count; 0, or 1 or more (between, the gradient of a voxel
            that is wholly sure is not finite).
        alpha: (C,) factor of each class, background first; the average is not divided by it.
            None for 1.
        ignore_index: Label of the voxels to leave out.

    Raises:
        ValueError: If gamma or a factor cannot be used.

    Source:
        Lin et al., Focal loss for dense object detection, ICCV 2017.
    """

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: Sequence[float] | torch.Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(ignore_index)
        if not (gamma == 0 or gamma >= 1):
            msg = f"gamma must be 0, or 1 or more, got {gamma!r}."
            raise ValueError(msg)
        self.alpha = class_weights(alpha)
        self.loss = MonaiFocalLoss(gamma=gamma, reduction="none", use_softmax=True)

    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            batch: Logits and labels.
        """
        values = self.loss(batch.logits, batch.targets())  # 0 but in the channel of the label
        alpha = fitting(self.alpha, batch.logits)
        if alpha is not None:
            values = values * alpha.reshape(-1, *[1] * (values.ndim - 2))
        return batch.mean(values.sum(dim=1, keepdim=True))
