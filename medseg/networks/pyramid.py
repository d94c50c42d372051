"""Averages over the bins of a pyramid, in a form that every exporter keeps for any size."""

import torch
from torch import nn


class BinAverage(nn.Module):
    """Average an image over `bins` x `bins` rectangles that cover it.

    The same numbers as torch's `AdaptiveAvgPool2d`, whose export to ONNX holds for the size it
    was made with alone, and whose gradient on CUDA depends on the order of additions. Here an
    average is a product with a matrix on either side.

    Args:
        bins: Along each axis.
    """

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Average.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, C, bins, bins).
        """
        rows = self._shares(x, x.shape[2])
        columns = self._shares(x, x.shape[3])
        return rows @ x @ columns.transpose(0, 1)

    def _shares(self, x: torch.Tensor, size: int) -> torch.Tensor:
        """Return what each pixel of an axis gives to each bin; (bins, size)."""
        length = torch.full([1], size, dtype=torch.int64, device=x.device)
        number = torch.arange(self.bins, device=x.device).unsqueeze(1)
        first = torch.floor_divide(number * length, self.bins)
        end = torch.floor_divide((number + 1) * length + self.bins - 1, self.bins)
        pixel = torch.arange(size, device=x.device).unsqueeze(0)
        inside = torch.logical_and(pixel >= first, pixel < end).to(x.dtype)
        return inside / (end - first).to(x.dtype)


class PyramidLevel(nn.Module):
    """One level of a pyramid: averages, a convolution over them, and back to the size.

    Args:
        bins: Along each axis.
        layers: Convolution, normalisation and ReLU.
    """

    def __init__(self, bins: int, layers: nn.Module) -> None:
        super().__init__()
        self.pool = nn.Sequential(BinAverage(bins), layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the level.

        Args:
            x: (B, C, H, W).

        Returns:
            (B, channels of the level, H, W).
        """
        return nn.functional.interpolate(
            self.pool(x), size=x.shape[2:], mode="bilinear", align_corners=True
        )
