"""Train a network that finds objects, with the trainer that all others have."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from medseg.errors import UsageError
from medseg.objects import PLACES
from medseg.training.step import TrainingStep

LEAST_PIXELS = 4
"""Of an object: what a patch cuts off to less is nothing to learn from."""


class ObjectStep(TrainingStep):
    """One iteration of a network that takes targets and returns its losses, as `MaskRcnn` does.

    The labels of a batch are layers of object numbers, as `ObjectInstances.layers` makes them and
    augmentation has cropped and turned them.
    """

    def predict(
        self, network: Any, image: torch.Tensor, label: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Return the losses of a batch by name.

        Args:
            network: Called with images and targets.
            image: (B, C, rows, columns).
            label: (B, layers, rows, columns) int.

        Returns:
            One number each.
        """
        losses: Mapping[str, torch.Tensor] = network(image, targets_of(label))
        return losses


class SumOfLosses(nn.Module):
    """The sum of the losses that a network returned, each with its weight.

    Args:
        weights: By the name of the loss; 1 where it is not named.

    Examples:
        >>> loss = SumOfLosses({"loss_mask": 2.0})
        >>> loss({"loss_mask": torch.tensor(1.0), "loss_box_reg": torch.tensor(0.5)}, None).item()
        2.5
    """

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        super().__init__()
        self.weights = dict(weights or {})

    def forward(self, losses: Mapping[str, torch.Tensor], label: Any) -> torch.Tensor:  # noqa: ARG002
        """Return the sum.

        Args:
            losses: By name.
            label: Not needed any more.

        Raises:
            UsageError: If a loss that has a weight is none of the network's.
        """
        unknown = sorted(set(self.weights) - set(losses))
        if unknown:
            msg = f"weights must be of {', '.join(losses)}, got {', '.join(unknown)}."
            raise UsageError(msg)
        parts = [self.weights.get(name, 1.0) * loss for name, loss in losses.items()]
        return torch.stack(parts).sum()


def targets_of(label: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    """Return what a network learns from: boxes, classes and masks of the objects of each image.

    Args:
        label: (B, layers, rows, columns) int, on any device.

    Returns:
        Of each image `boxes` (N, 4) float32 x0, y0, x1, y1 in pixels, the ends not within,
        `labels` (N,) int64 and `masks` (N, rows, columns) uint8. Crowds are left out, and objects
        of fewer than 4 pixels.
    """
    return [_target(layers) for layers in label]


def _target(layers: torch.Tensor) -> dict[str, torch.Tensor]:
    codes = [torch.unique(layer) for layer in layers]
    found = [(layer, code) for layer, some in zip(layers, codes, strict=True) for code in some]
    masks = [layer == code for layer, code in found if code > 0]
    rows, columns = layers.shape[1:]
    stacked = torch.stack(masks) if masks else layers.new_zeros((0, rows, columns)).bool()
    classes = torch.tensor(
        [int(code) // PLACES for _, code in found if code > 0], dtype=torch.int64
    )
    large = stacked.sum(dim=(1, 2)) >= LEAST_PIXELS
    stacked, classes = stacked[large], classes.to(large.device)[large]
    return {
        "boxes": _boxes(stacked),
        "labels": classes,
        "masks": stacked.to(torch.uint8),
    }


def _boxes(masks: torch.Tensor) -> torch.Tensor:
    boxes = masks.new_zeros((len(masks), 4), dtype=torch.float32)
    for axis, (low, high) in ((1, (0, 2)), (2, (1, 3))):
        seen = masks.any(dim=axis)  # columns, then rows
        length = seen.shape[1]
        boxes[:, low] = seen.float().argmax(dim=1).float()
        boxes[:, high] = length - seen.flip(1).float().argmax(dim=1).float()
    return boxes


def stack_layers(samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Make one batch of samples whose labels have different numbers of layers.

    For a DataLoader's `collate_fn`.

    Args:
        samples: `image` (C, rows, columns), `label` (layers, rows, columns) and what else there
            is.

    Returns:
        `image` (B, C, rows, columns), `label` (B, most layers, rows, columns), all else as lists.
    """
    most = max(len(sample["label"]) for sample in samples)
    labels = []
    for sample in samples:
        label = sample["label"].int()  # one without objects is a mask of background
        padding = label.new_zeros((most - len(label), *label.shape[1:]))
        labels.append(torch.cat([label, padding]))
    batch: dict[str, Any] = {key: [sample[key] for sample in samples] for key in samples[0]}
    batch |= {"image": torch.stack([s["image"] for s in samples]), "label": torch.stack(labels)}
    return batch
