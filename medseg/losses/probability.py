"""Mean squared and mean absolute error of probabilities."""

import torch

from medseg.losses.label_loss import Batch, LabelLoss


class ProbabilityMSELoss(LabelLoss):
    """Mean squared error of the probabilities against the one-hot label (Brier score over C).

    Softmax of several channels, sigmoid of one; averaged over channels and the voxels that count.

    Args:
        ignore_index: Label of the voxels to leave out.
    """

    accepts_one_channel = True

    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            batch: Logits and labels.
        """
        return batch.mean((batch.probabilities() - batch.targets()).square())


class ProbabilityMAELoss(LabelLoss):
    """Mean absolute error of the probabilities against the one-hot label.

    Softmax of several channels, sigmoid of one; averaged over channels and the voxels that count.

    Args:
        ignore_index: Label of the voxels to leave out.
    """

    accepts_one_channel = True

    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            batch: Logits and labels.
        """
        return batch.mean((batch.probabilities() - batch.targets()).abs())
