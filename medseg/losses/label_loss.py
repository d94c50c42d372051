"""What every loss of logits against class indices shares: checks, float32, ignored voxels."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.networks import one_hot
from torch import nn

from medseg.errors import InputError

IGNORED = -1
"""Class index of ignored voxels inside the losses, whatever `ignore_index` is outside."""


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch ready to be measured.

    Attributes:
        logits: (B, C, *spatial) float32; 0 where ignored, so that nothing there can have an
            effect, not even NaN.
        label: (B, 1, *spatial) int64 class indices; `IGNORED` where ignored.
        valid: (B, 1, *spatial) bool, false where ignored; None where nothing is.
    """

    logits: torch.Tensor
    label: torch.Tensor
    valid: torch.Tensor | None

    def targets(self) -> torch.Tensor:
        """Return (B, C, *spatial) float32: the label itself for one channel, else one-hot."""
        label = self.label.clamp(min=0)
        channels = self.logits.shape[1]
        return label.float() if channels == 1 else one_hot(label, channels)

    def probabilities(self) -> torch.Tensor:
        """Return (B, C, *spatial): sigmoid of one channel, softmax of several."""
        single = self.logits.shape[1] == 1
        return self.logits.sigmoid() if single else self.logits.softmax(dim=1)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Average (B, channels, *spatial) over the channels and the voxels that count."""
        if self.valid is None:
            return values.mean()
        total = torch.where(self.valid, values, 0.0).sum()
        return total / (self.valid.sum() * values.shape[1])


class LabelLoss(nn.Module, ABC):
    """A loss of logits against class indices, with voxels that count for nothing.

    Computed in float32 without autocast, whatever the network ran in. A batch without any voxel
    that counts gives 0 and gradients of 0.

    Args:
        ignore_index: Label of the voxels to leave out; none when None. May be one of the classes,
            or any other integer (255 and -1 are usual).
    """

    accepts_one_channel = False
    """Whether logits of one channel are taken: the sigmoid's, for labels 0 and 1."""

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, prediction: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Return the loss.

        Args:
            prediction: (B, C, *spatial) logits.
            label: (B, 1, *spatial) class indices 0 to C - 1 (0 and 1 for one channel), or
                `ignore_index`; of any type, whole numbers.

        Returns:
            Scalar loss.

        Raises:
            ValueError: If the shapes do not fit.
            InputError: With code `unknown-label` if the label holds anything else.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            batch = self._batch(_plain(prediction), _plain(label))
            if batch.valid is not None and not batch.valid.any():
                return batch.logits.sum()  # of zeros; keeps the graph for the processes in step
            return self.measure(batch)

    @abstractmethod
    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch in which at least one voxel counts.

        Args:
            batch: Logits and labels.

        Returns:
            Scalar loss.
        """

    def _batch(self, prediction: torch.Tensor, label: torch.Tensor) -> Batch:
        self._check_shapes(prediction, label)
        if label.is_floating_point() and not torch.equal(label, label.round()):
            msg = "label must hold whole numbers, got fractions. Resample labels by nearest voxel."
            raise InputError(msg, code="unknown-label")
        indices = label.long()  # before comparing: a uint8 label equals -1 where it is 255
        logits = prediction.float()
        valid = None
        if self.ignore_index is not None:
            valid = indices != self.ignore_index
            indices = torch.where(valid, indices, 0)
            logits = torch.where(valid, logits, 0.0)
        self._check_values(indices, max(2, logits.shape[1]))
        return Batch(logits, indices if valid is None else indices.where(valid, IGNORED), valid)

    def _check_shapes(self, prediction: torch.Tensor, label: torch.Tensor) -> None:
        wanted = (prediction.shape[0], 1, *prediction.shape[2:])
        if prediction.ndim < 3 or tuple(label.shape) != wanted:
            msg = (
                "label must be (B, 1, *spatial) for a prediction (B, C, *spatial), got"
                f" {tuple(label.shape)} for {tuple(prediction.shape)}."
            )
            raise ValueError(msg)
        if prediction.shape[1] < 2 and not self.accepts_one_channel:
            msg = (
                "prediction must have a channel a class, background included, got 1."
                " Use BinaryCrossEntropyLoss, or give the network two channels."
            )
            raise ValueError(msg)

    def _check_values(self, indices: torch.Tensor, classes: int) -> None:
        smallest, largest = torch.stack(torch.aminmax(indices)).tolist()
        if smallest >= 0 and largest < classes:
            return
        also = "" if self.ignore_index is None else f" or {self.ignore_index} (ignored)"
        wrong = largest if largest >= classes else smallest
        msg = (
            f"label must be 0 to {classes - 1}{also}, got {wrong}."
            " Map the values of the masks, or set ignore_index."
        )
        raise InputError(msg, code="unknown-label")


def class_weights(weight: Sequence[float] | torch.Tensor | None) -> torch.Tensor | None:
    """Check the weights of the classes.

    Args:
        weight: (C,) weight of each class, background first; None for none.

    Returns:
        (C,) float32.

    Raises:
        ValueError: If one is negative or not finite, or all are 0.
    """
    if weight is None:
        return None
    tensor = torch.as_tensor(weight, dtype=torch.float32)
    usable = tensor.ndim == 1 and bool(torch.isfinite(tensor).all()) and bool((tensor >= 0).all())
    if not usable or not tensor.any():
        msg = (
            f"weight must be finite numbers, 0 or more, not all 0, got {tensor.tolist()!r}."
            " Give one a class, background first."
        )
        raise ValueError(msg)
    return tensor


def fitting(weight: torch.Tensor | None, logits: torch.Tensor) -> torch.Tensor | None:
    """Bring class weights to the device of the logits.

    Args:
        weight: (C,), or None.
        logits: (B, C, *spatial).

    Returns:
        The weights; None for none.

    Raises:
        ValueError: If there is not one a channel.
    """
    if weight is None:
        return None
    if len(weight) != logits.shape[1]:
        msg = f"weight must be one a class ({logits.shape[1]}), got {len(weight)}."
        raise ValueError(msg)
    return weight.to(logits.device)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor without MONAI's metadata, which every operation would carry along."""
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
