"""Dice plus cross-entropy, where some voxels count in neither."""

from collections.abc import Sequence

import torch

from medseg.losses.cross_entropy import CrossEntropyLoss
from medseg.losses.label_loss import Batch, LabelLoss
from medseg.losses.overlap import DiceLoss


class DiceCELoss(LabelLoss):
    """Weighted sum of `DiceLoss` and `CrossEntropyLoss`.

    Without ignored voxels this is `monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)`,
    which has no `ignore_index` in MONAI 1.6.

    Args:
        include_background: Whether class 0 counts in the Dice part.
        batch: Measure the Dice part over all images of a batch as one.
        weight: (C,) weight of each class in both parts, background first; none when None.
        lambda_dice: Factor of the Dice part.
        lambda_ce: Factor of the cross-entropy.
        label_smoothing: Of the cross-entropy; 0 to 1.
        ignore_index: Label of the voxels to leave out.

    Raises:
        ValueError: If a factor is negative, or a weight or the smoothing cannot be used.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021.
    """

    def __init__(
        self,
        include_background: bool = True,
        batch: bool = False,
        weight: Sequence[float] | torch.Tensor | None = None,
        *,
        lambda_dice: float = 1.0,
        lambda_ce: float = 1.0,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(ignore_index)
        if not (lambda_dice >= 0 and lambda_ce >= 0):
            msg = f"lambda_dice and lambda_ce must be 0 or more, got {lambda_dice}, {lambda_ce}."
            raise ValueError(msg)
        self.dice = DiceLoss(include_background, batch, weight, ignore_index=ignore_index)
        self.cross_entropy = CrossEntropyLoss(weight, label_smoothing, ignore_index)
        self.lambda_dice = lambda_dice
        self.lambda_ce = lambda_ce

    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            batch: Logits and labels.
        """
        dice = self.dice.measure(batch)
        return self.lambda_dice * dice + self.lambda_ce * self.cross_entropy.measure(batch)
