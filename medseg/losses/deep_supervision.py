"""Deep supervision for networks that return several levels."""

from collections.abc import Sequence

import torch
from torch import nn


class DeepSupervisionLoss(nn.Module):
    """Weigh a loss over the levels of a deeply supervised network, halving by level.

    The weights 1, 1/2, 1/4 ... are divided by their sum, so that the result stays on the scale of
    the wrapped loss whatever the number of levels. A level coarser than the label is compared with
    the label's nearest voxels. Beside a list of levels this accepts what `monai.losses` rejects:
    the one tensor (B, levels, C, *spatial) that MONAI's DynUNet returns in training mode.

    Args:
        loss: Loss of one level, called with (B, C, *spatial) float32 logits and labels of the
            same spatial size.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 4 (weights); MONAI 1.6
        `DynUNet.forward` (the stacked form).
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, prediction: torch.Tensor | Sequence[torch.Tensor], label: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted loss.

        Args:
            prediction: (B, levels, C, *spatial) or (B, C, *spatial) logits, or a list of the
                latter, finest level first, coarser ones at their own resolution.
            label: (B, 1, *spatial) class indices, or (B, regions, *spatial).

        Returns:
            Scalar loss.

        Raises:
            ValueError: If the number of axes fits neither form.
        """
        levels = self._levels(prediction, label)
        weights = [0.5**level for level in range(len(levels))]
        losses = [
            weight * self.loss(level.float(), nearest(label, level.shape[2:]))
            for weight, level in zip(weights, levels, strict=True)
        ]
        return torch.stack(losses).sum() / sum(weights)

    @staticmethod
    def _levels(
        prediction: torch.Tensor | Sequence[torch.Tensor], label: torch.Tensor
    ) -> list[torch.Tensor]:
        if not isinstance(prediction, torch.Tensor):
            return list(prediction)
        if prediction.ndim == label.ndim:
            return [prediction]
        if prediction.ndim == label.ndim + 1:
            return list(torch.unbind(prediction, dim=1))
        msg = (
            "prediction must be (B, C, *spatial) or (B, levels, C, *spatial) for a label of"
            f" shape {tuple(label.shape)}, got {tuple(prediction.shape)}"
        )
        raise ValueError(msg)


def nearest(label: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bring a label to another size by taking the nearest voxels, of any integer type.

    Args:
        label: (B, C, *spatial).
        size: Spatial size wanted.

    Returns:
        (B, C, *size); the label itself where it has that size.

    Examples:
        >>> nearest(torch.arange(6).reshape(1, 1, 6), [3]).flatten().tolist()
        [1, 3, 5]
    """
    for axis, wanted in enumerate(size, start=2):
        extent = label.shape[axis]
        if extent != wanted:
            positions = (torch.arange(wanted, device=label.device) + 0.5) * (extent / wanted)
            label = label.index_select(axis, positions.floor().long().clamp(max=extent - 1))
    return label
