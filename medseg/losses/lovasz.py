"""Lovasz-softmax: a surrogate whose minimum is that of the Jaccard loss itself."""

from typing import Literal

import torch

from medseg.losses.label_loss import Batch, LabelLoss


class LovaszSoftmaxLoss(LabelLoss):
    """Lovasz extension of the Jaccard loss at the softmax errors, averaged over classes.

    For a class with voxels Y, the Jaccard loss of a set M of mispredicted voxels is
    |M| / |Y or M|. Its Lovasz extension takes the errors, 1 - p on Y and p elsewhere, in falling
    order, and weighs each by what its voxel adds to that loss.

    Args:
        classes: `present` averages over the classes that the label holds, `all` over all (the
            largest error of an absent class is its loss).
        per_image: Average the loss of each image, in place of measuring the batch as one; an
            image of ignored voxels alone is left out.
        ignore_index: Label of the voxels to leave out.

    Raises:
        ValueError: If `classes` is unknown.

    Source:
        Berman, Triki and Blaschko, The Lovasz-softmax loss, CVPR 2018.
    """

    def __init__(
        self,
        classes: Literal["present", "all"] = "present",
        per_image: bool = False,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(ignore_index)
        if classes not in ("present", "all"):
            msg = f"classes must be 'present' or 'all', got {classes!r}."
            raise ValueError(msg)
        self.classes = classes
        self.per_image = per_image

    def measure(self, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            batch: Logits and labels.
        """
        channels = batch.logits.shape[1]
        probabilities = batch.probabilities().flatten(2).movedim(1, -1)  # B, voxels, C
        label = batch.label.flatten(1)  # B, voxels
        groups = range(len(label)) if self.per_image else [slice(None)]
        losses = []
        for group in groups:
            of_group = label[group].reshape(-1)
            counts = of_group >= 0
            if batch.valid is None or counts.any():
                points = probabilities[group].reshape(-1, channels)
                losses.append(self._of_voxels(points[counts], of_group[counts]))
        return torch.stack(losses).mean()

    def _of_voxels(self, probabilities: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """Average over the classes; (voxels, C) probabilities and (voxels,) labels."""
        losses = []
        for index in range(probabilities.shape[1]):
            of_class = label == index
            if self.classes == "all" or of_class.any():
                errors = (of_class.float() - probabilities[:, index]).abs()
                losses.append(lovasz_jaccard(errors, of_class))
        return torch.stack(losses).mean()


def lovasz_jaccard(errors: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Evaluate the Lovasz extension of the Jaccard loss of one class.

    Args:
        errors: (voxels,) float32, 0 to 1; at least one.
        truth: (voxels,) bool, true where the voxel is of the class.

    Returns:
        Scalar, differentiable in `errors`.

    Examples:
        >>> truth = torch.tensor([True, True, False])
        >>> float(lovasz_jaccard(torch.tensor([1.0, 0.0, 0.0]), truth))  # one of two missed
        0.5
    """
    ordered, order = torch.sort(errors, descending=True)
    inside = truth[order]
    with torch.no_grad():
        # What voxel i adds is written out rather than subtracted: neighbouring losses of millions
        # of voxels agree in all digits of float32. With n voxels of the class, f of them and b
        # others among the first i, the loss is i / (n + b): one of the class adds 1 / (n + b),
        # another (n - f) / ((n + b) (n + b - 1)).
        found = inside.cumsum(0)
        size = found[-1]
        union = size + torch.arange(1, len(found) + 1, device=found.device) - found
        outer = (size - found) / (union.float() * (union - 1).clamp(min=1))
        gains = torch.where(inside, 1.0 / union, outer)
        # an absent class: the first voxel takes the loss from 0 to 1, the others leave it there
        gains[0] = torch.where(size == 0, 1.0, gains[0])
    return torch.dot(ordered, gains)
