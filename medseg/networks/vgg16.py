"""The thirteen convolutions of VGG16, stage by stage."""

from itertools import pairwise

import torch
from torch import nn

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of each stage; configuration D of the paper
WIDTHS = (1, 2, 4, 8, 8)  # of each stage, in multiples of the first
BASE_CHANNELS = 64


class Vgg16(nn.Module):
    """The convolutional part of VGG16, without the pooling that follows each stage.

    Args:
        in_channels: Of the image.
        base_channels: Channels of the first stage; 64 in the paper.
        batch_norm: Normalise after each convolution, as SegNet does and as torchvision's
            `vgg16_bn`; the paper's network does not.

    Attributes:
        stages: The five stages, to be pooled by 2 after each.
        widths: Channels that each stage gives.

    Source:
        Simonyan and Zisserman, Very deep convolutional networks for large-scale image
        recognition, ICLR 2015, table 1, D.
    """

    def __init__(
        self, in_channels: int, base_channels: int = BASE_CHANNELS, *, batch_norm: bool = True
    ) -> None:
        super().__init__()
        self.batch_norm = batch_norm
        self.widths = [base_channels * width for width in WIDTHS]
        before = [in_channels, *self.widths[:-1]]
        self.stages = nn.ModuleList(
            stage([first] + [width] * count, batch_norm=batch_norm)
            for first, width, count in zip(before, self.widths, CONVOLUTIONS, strict=True)
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Run all stages.

        Args:
            x: (B, C, H, W) image, H and W multiples of 32.

        Returns:
            The pooled features of each stage, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size.
        """
        pooled: list[torch.Tensor] = []
        for part in self.stages:
            x = nn.functional.max_pool2d(part(x), 2)
            pooled.append(x)
        return pooled

    def names(self) -> dict[str, str]:
        """Match torchvision's files of weights, which count all layers and poolings in one row.

        Returns:
            Key in a file of torchvision's `vgg16` or `vgg16_bn` to key of this module.
        """
        found = {}
        start = 0
        for number, part in enumerate(self.stages):
            for key in part.state_dict():
                layer, _, kind = key.partition(".")
                found[f"features.{start + int(layer)}.{kind}"] = f"stages.{number}.{key}"
            start += len(list(part.children())) + 1  # and its pooling
        return found


def stage(channels: list[int], *, batch_norm: bool) -> nn.Sequential:
    """Make a row of 3x3 convolutions, each followed by a ReLU.

    Args:
        channels: Into the first convolution, and out of each.
        batch_norm: Normalise before each ReLU.

    Returns:
        The layers.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers.append(convolution(before, after, 3))
        if batch_norm:
            layers.append(nn.BatchNorm2d(after))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def convolution(before: int, after: int, side: int) -> nn.Conv2d:
    """Make a convolution that keeps the size, ready to train from scratch before a ReLU.

    Args:
        before: Channels in.
        after: Channels out.
        side: Of the kernel, odd; pixels.

    Returns:
        The layer, its bias zero.

    Source:
        He et al., Delving deep into rectifiers, ICCV 2015 (the weights).
    """
    layer = nn.Conv2d(before, after, side, padding=side // 2)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # it has one
    return layer
