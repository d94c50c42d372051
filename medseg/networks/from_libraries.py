"""Networks that MONAI, torchvision and segmentation-models-pytorch have, without their weights.

The libraries are imported when a network of theirs is built: they are slow to import, and the
last one is optional.
"""

import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import nn

from medseg.errors import DependencyError, UsageError
from medseg.networks.parts import Parts, set_in_channels
from medseg.networks.pyramid import PyramidLevel

UNET_FEATURES = (64, 128, 256, 512, 1024, 64)  # figure 1 of the paper
DECODER_CHANNELS = (256, 128, 64, 32, 16)  # segmentation-models-pytorch's, deepest first
# dilation of the three convolutions, by stride; DeepLabV3 paper, section 3.3
ATROUS_RATES = {16: (6, 12, 18), 8: (12, 24, 36)}


class DictLogits(nn.Module):
    """Take the logits out of what torchvision's segmentation networks return.

    Args:
        network: Returns a dictionary of tensors, `out` among them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the network.

        Args:
            x: (B, C, H, W) image.

        Returns:
            (B, classes, H, W) logits.
        """
        logits: torch.Tensor = self.network(x)["out"]
        return logits


def unet(
    in_channels: int,
    out_channels: int,
    encoder: str | None,  # noqa: ARG001  # the table has none for it
    *,
    features: Sequence[int] = UNET_FEATURES,
    norm: str | Sequence[Any] = ("instance", {"affine": True}),
    dropout: float = 0.0,
) -> Parts:
    """Build MONAI's plain U-Net.

    Args:
        in_channels: Of the image.
        out_channels: Classes.
        encoder: None.
        features: Channels of the five resolutions, finest first, and of the last layer.
        norm: As MONAI names it.
        dropout: Probability.

    Returns:
        The network.

    Source:
        Ronneberger, Fischer and Brox, U-Net, MICCAI 2015; MONAI's `BasicUNet`.
    """
    from monai.networks.nets import BasicUNet  # noqa: PLC0415

    network = BasicUNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=out_channels,
        features=tuple(features),
        norm=norm if isinstance(norm, str) else tuple(norm),
        dropout=dropout,
    )
    # a single cell has no variance: torch refuses to normalise it
    return Parts(network, stride=16, least_cells=2)


def deeplabv3(in_channels: int, out_channels: int, encoder: str) -> Parts:
    """Build torchvision's DeepLabV3, of stride 8 on a ResNet and 16 on MobileNetV3.

    Args:
        in_channels: Of the image.
        out_channels: Classes.
        encoder: `resnet50`, `resnet101` or `mobilenet_v3_large`.

    Returns:
        The network.

    Source:
        Chen et al., Rethinking atrous convolution for semantic image segmentation, 2017.
    """
    from torchvision.models import segmentation  # noqa: PLC0415

    make = getattr(segmentation, f"deeplabv3_{encoder}")
    # both left out would download the backbone
    network = make(weights=None, weights_backbone=None, num_classes=out_channels, aux_loss=False)
    mobile = encoder.startswith("mobilenet")
    if in_channels != 3:
        holder, name = (network.backbone["0"], "0") if mobile else (network.backbone, "conv1")
        set_in_channels(holder, name, in_channels)
    keys = network.backbone.state_dict() if mobile else {}  # a ResNet's are those of the file
    return Parts(
        DictLogits(network),
        stride=16 if mobile else 8,
        least_batch=2,
        encoder=network.backbone,
        names={f"features.{key}": key for key in keys},
    )


def unet_with_encoder(
    in_channels: int,
    out_channels: int,
    encoder: str,
    *,
    decoder_channels: Sequence[int] = DECODER_CHANNELS,
) -> Parts:
    """Build a U-Net on a ResNet or a VGG.

    Args:
        in_channels: Of the image.
        out_channels: Classes.
        encoder: As segmentation-models-pytorch names it.
        decoder_channels: Of the five resolutions, deepest first.

    Returns:
        The network.

    Source:
        Ronneberger, Fischer and Brox, U-Net, MICCAI 2015; segmentation-models-pytorch's `Unet`.
    """
    network = _smp().Unet(
        encoder_name=encoder,
        encoder_weights=None,
        decoder_channels=tuple(decoder_channels),
        in_channels=in_channels,
        classes=out_channels,
    )
    return Parts(network, stride=32, encoder=network.encoder)


def deeplabv3plus(
    in_channels: int,
    out_channels: int,
    encoder: str,
    *,
    output_stride: int = 16,
    decoder_channels: int = 256,
) -> Parts:
    """Build segmentation-models-pytorch's DeepLabV3+.

    Args:
        in_channels: Of the image.
        out_channels: Classes.
        encoder: A ResNet, as segmentation-models-pytorch names it.
        output_stride: 16, or 8: finer, slower.
        decoder_channels: Of every layer of the decoder.

    Returns:
        The network.

    Source:
        Chen et al., Encoder-decoder with atrous separable convolution for semantic image
        segmentation, ECCV 2018; dilations by stride as in the DeepLabV3 paper.
    """
    _check_output_stride(output_stride)
    network = _smp().DeepLabV3Plus(
        encoder_name=encoder,
        encoder_weights=None,
        encoder_output_stride=output_stride,
        decoder_channels=decoder_channels,
        decoder_atrous_rates=ATROUS_RATES[output_stride],
        in_channels=in_channels,
        classes=out_channels,
    )
    return Parts(network, stride=output_stride, least_batch=2, encoder=network.encoder)


def pspnet(
    in_channels: int,
    out_channels: int,
    encoder: str,
    *,
    output_stride: int = 8,
    decoder_channels: int = 512,
) -> Parts:
    """Build segmentation-models-pytorch's PSPNet on a whole dilated ResNet, as in the paper.

    The library's own default stops after half of the ResNet, and leaves the rest in the network
    without a gradient. Its weights fit: only the averaging is another (see `PyramidLevel`).

    Args:
        in_channels: Of the image.
        out_channels: Classes.
        encoder: A ResNet, as segmentation-models-pytorch names it.
        output_stride: 8, or 16: coarser, faster.
        decoder_channels: After the pyramid.

    Returns:
        The network.

    Source:
        Zhao et al., Pyramid scene parsing network, CVPR 2017, section 3.2.
    """
    _check_output_stride(output_stride)
    network = _smp().PSPNet(
        encoder_name=encoder,
        encoder_weights=None,
        encoder_depth=5,
        output_stride=output_stride,
        upsampling=output_stride,
        psp_out_channels=decoder_channels,
        in_channels=in_channels,
        classes=out_channels,
    )
    blocks = network.decoder.psp.blocks
    for number, block in enumerate(blocks):
        blocks[number] = PyramidLevel(block.pool_size, block.pool[1])
    return Parts(network, stride=output_stride, encoder=network.encoder)


def _smp() -> Any:
    try:
        with warnings.catch_warnings():
            # timm 1.0 is full of torch.jit, which torch 2.9 and later call deprecated
            warnings.filterwarnings("ignore", message="`torch.jit", category=FutureWarning)
            return import_module("segmentation_models_pytorch")
    except ModuleNotFoundError as error:
        msg = (
            "a network with an encoder of segmentation-models-pytorch must have that installed,"
            f" got: {error}. Run: pip install 'medseg[natural]'"
        )
        raise DependencyError(msg) from error


def _check_output_stride(output_stride: int) -> None:
    if output_stride not in ATROUS_RATES:
        msg = f"output_stride must be 8 or 16, got {output_stride!r}."
        raise UsageError(msg)
