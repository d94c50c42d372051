"""The U-Nets of nnU-Net v2, so that their weights run without nnU-Net."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  (as all of torch's own code calls it)

from medseg.errors import UsageError

Sizes = Sequence[Sequence[int]]

_NORMS = {
    ("instance", 2): nn.InstanceNorm2d,
    ("instance", 3): nn.InstanceNorm3d,
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
}


class NnunetUNet(nn.Module):
    """Plain or residual U-Net with the layers, and the names of weights, of nnU-Net v2.

    Strided convolutions go down, transposed ones of the same size up; each convolution is followed
    by a normalisation and a leaky ReLU. Heads of deep supervision are left out.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Of the image.
        out_channels: Classes or regions.
        features: Channels of each resolution, finest first.
        kernel_sizes: Of each resolution, along each axis.
        strides: Into each resolution, along each axis.
        encoder_blocks: Convolutions of each resolution, or residual blocks of two.
        decoder_blocks: Convolutions of each resolution but the coarsest, coarsest first.
        residual: Residual blocks go down, after one convolution at full resolution.
        conv_bias: Convolutions add a number.
        norm: `instance` or `batch`, with a factor and a summand a channel.
        norm_eps: Added to variances.
        negative_slope: Of the leaky ReLU.

    Raises:
        UsageError: If the lists do not fit each other, or the normalisation is unknown.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021; Isensee et al., nnU-Net revisited, MICCAI
        2024 (residual encoder); He et al., Bag of tricks for image classification with
        convolutional neural networks, CVPR 2019 (its blocks).

    Examples:
        >>> network = NnunetUNet(
        ...     spatial_dims=2, in_channels=1, out_channels=3, features=[2, 4],
        ...     kernel_sizes=[[3, 3], [3, 3]], strides=[[1, 1], [2, 2]],
        ...     encoder_blocks=[1, 1], decoder_blocks=[1],
        ... )
        >>> network(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 3, 8, 8])
    """

    def __init__(  # noqa: PLR0913  # one argument a setting of a bundle
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        features: Sequence[int],
        kernel_sizes: Sizes,
        strides: Sizes,
        encoder_blocks: Sequence[int],
        decoder_blocks: Sequence[int],
        residual: bool = False,
        conv_bias: bool = True,
        norm: str = "instance",
        norm_eps: float = 1e-5,
        negative_slope: float = 0.01,
    ) -> None:
        super().__init__()
        counts = [len(features), len(kernel_sizes), len(strides), len(encoder_blocks)]
        if len({*counts, len(decoder_blocks) + 1}) != 1:
            msg = (
                "features, kernel_sizes, strides and encoder_blocks must have an entry a"
                f" resolution, and decoder_blocks one less, got {counts} and {len(decoder_blocks)}."
            )
            raise UsageError(msg)
        if (norm, spatial_dims) not in _NORMS:
            msg = f"norm must be instance or batch in 2 or 3 dimensions, got {norm!r}."
            raise UsageError(msg)
        make = _Maker(spatial_dims, conv_bias, norm, norm_eps, negative_slope)
        self.encoder = _Encoder(
            make, in_channels, features, kernel_sizes, strides, encoder_blocks, residual
        )
        self.decoder = _Decoder(make, out_channels, features, kernel_sizes, strides, decoder_blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            x: (B, C, *spatial) image; each extent a multiple of the product of the strides.

        Returns:
            (B, classes, *spatial) logits.
        """
        result: torch.Tensor = self.decoder(self.encoder(x))
        return result


class LogitMean(nn.Module):
    """Networks of one form whose logits are averaged, as nnU-Net joins its folds.

    Args:
        members: The networks.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the networks one after the other.

        Args:
            x: (B, C, *spatial) image.

        Returns:
            (B, classes, *spatial) mean of their logits.
        """
        total = torch.zeros(1, dtype=x.dtype, device=x.device)
        for member in self.members:
            total = total + member(x)
        return total / len(self.members)


def nnunet_ensemble(*, folds: int, **options: Any) -> LogitMean:
    """Build the networks of several folds as one network.

    Args:
        folds: How many.
        **options: Of each, those of `NnunetUNet`.

    Returns:
        The mean of the networks.

    Raises:
        UsageError: If `folds` is below 1, or the options do not fit each other.
    """
    if folds < 1:
        msg = f"folds must be at least 1, got {folds!r}."
        raise UsageError(msg)
    return LogitMean([NnunetUNet(**options) for _ in range(folds)])


class _Maker:
    """Makes layers of one kind."""

    def __init__(
        self, dims: int, bias: bool, norm: str, norm_eps: float, negative_slope: float
    ) -> None:
        self.bias = bias
        self.norm_eps = norm_eps
        self.negative_slope = negative_slope
        self.dims = dims
        self.norm_class = _NORMS[norm, dims]
        self.conv_class: Any = nn.Conv3d if dims == 3 else nn.Conv2d
        self.up_class: Any = nn.ConvTranspose3d if dims == 3 else nn.ConvTranspose2d
        self.pool_class: Any = nn.AvgPool3d if dims == 3 else nn.AvgPool2d

    def norm(self, channels: int) -> nn.Module:
        return self.norm_class(channels, eps=self.norm_eps, affine=True)

    def conv(
        self, channels_in: int, channels: int, kernel: Sequence[int], stride: Sequence[int]
    ) -> nn.Module:
        padding = tuple((extent - 1) // 2 for extent in kernel)
        layer: nn.Module = self.conv_class(
            channels_in, channels, tuple(kernel), tuple(stride), padding, bias=self.bias
        )
        return layer

    def ones(self) -> tuple[int, ...]:
        return (1,) * self.dims


class _Step(nn.Module):
    """Convolution, normalisation and, but for `linear`, leaky ReLU."""

    def __init__(
        self,
        make: _Maker,
        channels_in: int,
        channels: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = make.conv(channels_in, channels, kernel, stride)
        self.norm = make.norm(channels)
        self.slope = 1.0 if linear else make.negative_slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.conv(x))
        return x if self.slope == 1.0 else F.leaky_relu(x, self.slope)


class _Projection(nn.Module):
    """Convolution of one voxel with a normalisation: other channels for what is passed by."""

    def __init__(self, make: _Maker, channels_in: int, channels: int) -> None:
        super().__init__()
        self.conv = make.conv_class(channels_in, channels, 1, bias=False)
        self.norm = make.norm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.norm(self.conv(x))
        return out


class _Residual(nn.Module):
    """Two convolutions and a way past them, which pools where they have a stride."""

    def __init__(
        self,
        make: _Maker,
        channels_in: int,
        channels: int,
        kernel: Sequence[int],
        stride: Sequence[int],
    ) -> None:
        super().__init__()
        self.conv1 = _Step(make, channels_in, channels, kernel, stride)
        self.conv2 = _Step(make, channels, channels, kernel, make.ones(), linear=True)
        past: list[nn.Module] = []
        if any(step != 1 for step in stride):
            past.append(make.pool_class(tuple(stride), tuple(stride)))
        if channels_in != channels:
            past.append(_Projection(make, channels_in, channels))
        self.skip = nn.Sequential(*past)
        self.slope = make.negative_slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(self.conv2(self.conv1(x)) + self.skip(x), self.slope)


def _chain(
    block: type[_Step] | type[_Residual],
    make: _Maker,
    count: int,
    channels_in: int,
    channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
) -> nn.Sequential:
    """Return blocks one after the other, the first with a stride, by nnU-Net's name for them."""
    first = block(make, channels_in, channels, kernel, stride)
    rest = [block(make, channels, channels, kernel, make.ones()) for _ in range(count - 1)]
    name = "convs" if block is _Step else "blocks"
    return nn.Sequential(OrderedDict([(name, nn.Sequential(first, *rest))]))


class _Encoder(nn.Module):
    """From the image down; keeps what each resolution gives."""

    def __init__(
        self,
        make: _Maker,
        in_channels: int,
        features: Sequence[int],
        kernel_sizes: Sizes,
        strides: Sizes,
        blocks: Sequence[int],
        residual: bool,
    ) -> None:
        super().__init__()
        before = in_channels
        self.stem: nn.Module = nn.Identity()
        if residual:
            self.stem = _chain(
                _Step, make, 1, in_channels, features[0], kernel_sizes[0], make.ones()
            )
            before = features[0]
        stages: list[nn.Module] = []
        for channels, kernel, stride, count in zip(
            features, kernel_sizes, strides, blocks, strict=True
        ):
            if residual:
                stages.append(_chain(_Residual, make, count, before, channels, kernel, stride))
            else:  # nnU-Net has room for a pooling layer in each resolution
                stages.append(
                    nn.Sequential(_chain(_Step, make, count, before, channels, kernel, stride))
                )
            before = channels
        self.stages = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.stem(x)
        levels: list[torch.Tensor] = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return levels


class _Decoder(nn.Module):
    """Back up to the resolution of the image, and to the logits."""

    def __init__(
        self,
        make: _Maker,
        out_channels: int,
        features: Sequence[int],
        kernel_sizes: Sizes,
        strides: Sizes,
        blocks: Sequence[int],
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        ups: list[nn.Module] = []
        for level, count in zip(range(len(features) - 2, -1, -1), blocks, strict=True):
            below, channels = features[level + 1], features[level]
            factor = tuple(strides[level + 1])
            ups.append(make.up_class(below, channels, factor, factor, bias=make.bias))
            kernel = kernel_sizes[level]
            stages.append(_chain(_Step, make, count, 2 * channels, channels, kernel, make.ones()))
        self.stages = nn.ModuleList(stages)
        self.transpconvs = nn.ModuleList(ups)
        self.head = make.conv_class(features[0], out_channels, 1)

    def forward(self, levels: list[torch.Tensor]) -> torch.Tensor:
        x = levels[-1]
        place = len(levels) - 1
        for up, stage in zip(self.transpconvs, self.stages):  # noqa: B905  # TorchScript has no strict
            place -= 1
            x = stage(torch.cat((up(x), levels[place]), dim=1))
        out: torch.Tensor = self.head(x)
        return out
