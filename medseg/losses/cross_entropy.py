"""Cross-entropy of softmax classes and of sigmoid channels."""

from collections.abc import Sequence

import torch
from torch.nn import functional

from medseg.losses.label_loss import IGNORED, Batch, LabelLoss, class_weights, fitting


class CrossEntropyLoss(LabelLoss):
    """Cross-entropy over the voxels that count, averaged by the weights of their classes.

    As `torch.nn.CrossEntropyLoss` averages; where torch gives NaN (no voxel counts, or all that
    do have weight 0) this gives 0.

    Args:
        weight: (C,) weight of each class, background first, from `median_frequency_weights` for
            example; none when None.
        label_smoothing: Share of the target spread evenly over all classes; 0 to 1.
        ignore_index: Label of the voxels to leave out.

    Raises:
        ValueError: If a weight cannot be used, or the smoothing is outside 0 to 1.

    Examples:
        >>> loss = CrossEntropyLoss(ignore_index=255)
        >>> label = torch.tensor([[[0, 255]]])
        >>> float(loss(torch.zeros(1, 4, 2), label)) == float(torch.tensor(4.0).log())
        True
    """

    def __init__(
        self,
        weight: Sequence[float] | torch.Tensor | None = None,
        label_smoothing: float = 0.0,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(ignore_index)
        if not 0 <= label_smoothing <= 1:
            msg = f"label_smoothing must be 0 to 1, got {label_smoothing!r}."
            raise ValueError(msg)
        self.weight = class_weights(weight)
        self.label_smoothing = label_smoothing

    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            batch: Logits and labels.
        """
        label = batch.label[:, 0]
        weight = fitting(self.weight, batch.logits)
        total = functional.cross_entropy(
            batch.logits,
            label,
            weight=weight,
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        counts = (label != IGNORED).float()
        share = (counts if weight is None else counts * weight[label]).sum()
        return torch.where(share > 0, total / share.clamp(min=torch.finfo().tiny), total * 0)


class BinaryCrossEntropyLoss(LabelLoss):
    """Cross-entropy of each channel's sigmoid against its class, averaged over channels too.

    One channel is measured against labels 0 and 1; several, each against the voxels of its class
    (one against the rest).

    Args:
        pos_weight: (C,) weight of the voxels of each channel's class against the others; 1 when
            None.
        ignore_index: Label of the voxels to leave out.

    Raises:
        ValueError: If a weight cannot be used.

    Source:
        `torch.nn.BCEWithLogitsLoss`.
    """

    accepts_one_channel = True

    def __init__(
        self,
        pos_weight: Sequence[float] | torch.Tensor | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(ignore_index)
        self.pos_weight = class_weights(pos_weight)

    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            batch: Logits and labels.
        """
        weight = fitting(self.pos_weight, batch.logits)
        if weight is not None:
            weight = weight.reshape(-1, *[1] * (batch.logits.ndim - 2))
        values = functional.binary_cross_entropy_with_logits(
            batch.logits, batch.targets(), pos_weight=weight, reduction="none"
        )
        return batch.mean(values)
