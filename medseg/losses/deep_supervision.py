"""Deep supervision for networks that return all their levels in one stacked tensor."""

import torch
from torch import nn


class DeepSupervisionLoss(nn.Module):
    """Weigh a loss over the levels of a deeply supervised network, halving by level.

    The weights 1, 1/2, 1/4 ... are divided by their sum, so that the result stays on the scale of
    the wrapped loss whatever the number of levels. Accepts what `monai.losses` rejects: the one
    tensor (B, levels, C, *spatial) that MONAI's DynUNet returns in training mode. A plain
    (B, C, *spatial) tensor, or a list of them, works too.

    Args:
        loss: Loss of one level, called with (B, C, *spatial) logits and (B, 1, *spatial) labels.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 4 (weights); MONAI 1.6
        `DynUNet.forward` (the stacked form).
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(
        self, prediction: torch.Tensor | list[torch.Tensor], label: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted loss.

        Args:
            prediction: (B, levels, C, *spatial) or (B, C, *spatial) logits, or a list of the
                latter, finest level first and all at the size of the label.
            label: (B, 1, *spatial) class indices.

        Returns:
            Scalar loss.

        Raises:
            ValueError: If the number of axes fits neither form.
        """
        levels = self._levels(prediction, label)
        weights = [0.5**level for level in range(len(levels))]
        losses = [
            weight * self.loss(level.float(), label)
            for weight, level in zip(weights, levels, strict=True)
        ]
        return torch.stack(losses).sum() / sum(weights)

    @staticmethod
    def _levels(
        prediction: torch.Tensor | list[torch.Tensor], label: torch.Tensor
    ) -> list[torch.Tensor]:
        if isinstance(prediction, list | tuple):
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
