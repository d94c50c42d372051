"""Images of any size for networks that want multiples of their stride."""

import torch
from torch import nn


class PaddedNetwork(nn.Module):
    """Enlarge an image to a multiple of the network's stride, and cut the logits back.

    The image is mirrored at its borders, on both sides alike: zeros would be an edge that no
    training image has, and would shift what a network averages over the whole image. Mirroring
    is repeated where the image is smaller than the margin, so that one pixel is enough. An image
    of a fitting size reaches the network untouched.

    Args:
        network: Takes (B, C, H, W), H and W multiples of `stride`, and gives (B, classes, H, W).
        stride: Side of one cell of the network's coarsest features; pixels.
        least_cells: Fewest cells along an axis that the network computes with.
        least_batch: Fewest images that it trains on at once: 2 where it normalises one number
            an image over the batch.

    Examples:
        >>> PaddedNetwork(torch.nn.AvgPool2d(1), stride=32)(torch.ones(1, 3, 37, 5)).shape
        torch.Size([1, 3, 37, 5])
    """

    def __init__(
        self, network: nn.Module, stride: int, *, least_cells: int = 1, least_batch: int = 1
    ) -> None:
        super().__init__()
        self.network = network
        self.stride = stride
        self.least_cells = least_cells
        self.least_batch = least_batch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            x: (B, C, H, W) image, H and W at least 1.

        Returns:
            (B, classes, H, W) logits.

        Raises:
            ValueError: If the image has another number of axes or no pixel, or if the batch is
                too small to train on.
        """
        if x.dim() != 4 or x.shape[2] == 0 or x.shape[3] == 0:
            msg = f"image must be (B, C, H, W) with pixels, got a shape of {list(x.shape)}."
            raise ValueError(msg)
        if self.training and x.shape[0] < self.least_batch:
            msg = (
                f"batch must hold at least {self.least_batch} images to train this network, got"
                f" {x.shape[0]}. Raise the batch size, and drop a smaller last batch."
            )
            raise ValueError(msg)
        rows, columns = x.shape[2], x.shape[3]
        above, below = self._margins(rows)
        left, right = self._margins(columns)
        # a size that an exporter traces is no int: mirrored without margins too, as the file
        # would otherwise be right for sizes that fit alone
        if not isinstance(rows, int) or above + below > 0:
            x = mirrored(x, 2, above, below)
        if not isinstance(columns, int) or left + right > 0:
            x = mirrored(x, 3, left, right)
        logits: torch.Tensor = self.network(x)
        return logits[:, :, above : above + rows, left : left + columns]

    def _margins(self, size: int) -> tuple[int, int]:
        cells = (size + self.stride - 1) // self.stride
        # the larger of the two, in a form that a trace keeps
        cells = (cells + self.least_cells + abs(cells - self.least_cells)) // 2
        missing = cells * self.stride - size
        return missing // 2, missing - missing // 2


def mirrored(x: torch.Tensor, axis: int, before: int, after: int) -> torch.Tensor:
    """Enlarge an image along one axis by mirroring it at its first and last pixel.

    Unlike `torch.nn.functional.pad`, whose margin has to be smaller than the image, this mirrors
    as often as it takes; one pixel is repeated.

    Args:
        x: Image of any number of axes.
        axis: The axis to enlarge; it has at least one pixel.
        before: Pixels to add before the first.
        after: Pixels to add after the last.

    Returns:
        The image, larger by `before + after` along the axis.

    Examples:
        >>> mirrored(torch.tensor([1, 2, 3]), 0, 3, 4).tolist()
        [2, 3, 2, 1, 2, 3, 2, 1, 2, 3]
    """
    size = x.shape[axis]
    # a tensor: the exporter of ONNX divides by no symbol, and a trace forgets Python's max
    period = torch.full([1], 2 * size - 2, dtype=torch.int64, device=x.device).clamp(min=1)
    positions = torch.arange(-before, size + after, device=x.device).abs() % period
    return x.index_select(axis, torch.minimum(positions, period - positions))
