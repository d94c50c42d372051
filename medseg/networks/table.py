"""All 2D networks by name, for a bundle's YAML."""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from medseg.errors import UsageError
from medseg.networks import from_libraries
from medseg.networks.encoder_weights import load_encoder_weights
from medseg.networks.fcn import fcn
from medseg.networks.padded import PaddedNetwork
from medseg.networks.parts import Parts
from medseg.networks.segnet import segnet

RESNETS = ("resnet50", "resnet18", "resnet34", "resnet101", "resnet152")
SMALL_RESNETS = ("resnet34", "resnet18", "resnet50", "resnet101", "resnet152")
VGGS = (
    "vgg16_bn", "vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg19", "vgg19_bn",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """How to build one network of the table.

    Attributes:
        build: Called with the channels in and out, the encoder and the network's own options.
        encoders: Those it can stand on, the default first; empty where there is no choice.
        fixed: Options that make the entry what it is.
    """

    build: Callable[..., Parts]
    encoders: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def options(self) -> list[str]:
        """Names of the network's own options."""
        common = {"in_channels", "out_channels", "encoder", *self.fixed}
        return [name for name in inspect.signature(self.build).parameters if name not in common]


TABLE: Mapping[str, Entry] = {
    "deeplabv3": Entry(from_libraries.deeplabv3, ("resnet50", "resnet101", "mobilenet_v3_large")),
    "deeplabv3plus": Entry(from_libraries.deeplabv3plus, RESNETS),
    "fcn16s": Entry(fcn, ("vgg16_bn", "vgg16"), {"stride": 16}),
    "fcn32s": Entry(fcn, ("vgg16_bn", "vgg16"), {"stride": 32}),
    "fcn8s": Entry(fcn, ("vgg16_bn", "vgg16"), {"stride": 8}),
    "pspnet": Entry(from_libraries.pspnet, RESNETS),
    "segnet": Entry(segnet, ("vgg16_bn",)),
    "unet": Entry(from_libraries.unet),
    "unet_resnet": Entry(from_libraries.unet_with_encoder, SMALL_RESNETS),
    "unet_vgg": Entry(from_libraries.unet_with_encoder, VGGS),
}


def network_names() -> list[str]:
    """Return the names that `build_network` takes.

    Examples:
        >>> network_names()[:3]
        ['deeplabv3', 'deeplabv3plus', 'fcn16s']
    """
    return sorted(TABLE)


def encoder_names(name: str) -> list[str]:
    """Return the encoders of a network, its default first.

    Args:
        name: Of the network.

    Raises:
        UsageError: If there is no such network.

    Examples:
        >>> encoder_names("deeplabv3")
        ['resnet50', 'resnet101', 'mobilenet_v3_large']
    """
    return list(_entry(name).encoders)


def build_network(
    name: str,
    *,
    in_channels: int,
    out_channels: int,
    encoder: str | None = None,
    encoder_weights: str | os.PathLike[str] | None = None,
    **options: Any,
) -> PaddedNetwork:
    """Build a 2D network by its name.

    In a bundle's YAML: `_target_: medseg.networks.build_network`, `name: segnet`, and so on. It
    takes (B, in_channels, H, W) of any size and gives (B, out_channels, H, W) logits; it starts
    from random weights, and downloads none unless told to.

    Args:
        name: One of `network_names()`.
        in_channels: Of the image.
        out_channels: Classes, background included, or regions.
        encoder: One of `encoder_names(name)`; the first of them when left out.
        encoder_weights: Local file of the encoder's weights, a state dict as torchvision
            publishes it; or `imagenet`, and torchvision downloads it if it is not there yet.
            Leave it out where trained weights of the whole network follow.
        **options: The network's own: `base_channels` (fcn, segnet), `head_channels` (fcn),
            `features`, `norm` and `dropout` (unet), `decoder_channels` (unet_resnet, unet_vgg,
            deeplabv3plus, pspnet), `output_stride` (deeplabv3plus, pspnet).

    Returns:
        The network, in training mode.

    Raises:
        UsageError: If the name, a number of channels, the encoder or an option is none that
            there is.
        BundleError: If the encoder's weights cannot be read or do not fit.
        DependencyError: If the network's library is not installed.

    Source:
        Each builder names its paper.

    Examples:
        >>> import torch
        >>> network = build_network("segnet", in_channels=3, out_channels=11, base_channels=2)
        >>> network(torch.zeros(1, 3, 37, 53)).shape
        torch.Size([1, 11, 37, 53])
    """
    entry = _entry(name)
    for argument, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
        if not isinstance(channels, int) or channels < 1:
            msg = f"{argument} must be a whole number of at least 1, got {channels!r}."
            raise UsageError(msg)
    unknown = sorted(set(options) - set(entry.options))
    if unknown:
        has = ", ".join(entry.options) or "none"
        msg = f"options of {name} must be among its own ({has}), got {', '.join(unknown)}."
        raise UsageError(msg)
    encoder = _encoder(name, entry, encoder)
    parts = entry.build(in_channels, out_channels, encoder, **entry.fixed, **options)
    if encoder_weights is not None:
        if parts.encoder is None:
            msg = (
                f"encoder_weights must be left out for {name}, got {str(encoder_weights)!r}: no"
                " weights are published for its encoder."
            )
            raise UsageError(msg)
        load_encoder_weights(parts.encoder, encoder_weights, parts.names, architecture=encoder)
    return PaddedNetwork(
        parts.network,
        parts.stride,
        least_cells=parts.least_cells,
        least_batch=parts.least_batch,
    )


def _entry(name: str) -> Entry:
    if name not in TABLE:
        msg = f"name must be a network among {', '.join(sorted(TABLE))}, got {name!r}."
        raise UsageError(msg)
    return TABLE[name]


def _encoder(name: str, entry: Entry, encoder: str | None) -> str | None:
    if encoder is None:
        return entry.encoders[0] if entry.encoders else None
    if encoder not in entry.encoders:
        rule = f"among {', '.join(entry.encoders)}" if entry.encoders else "left out"
        msg = f"encoder of {name} must be {rule}, got {encoder!r}."
        raise UsageError(msg)
    return encoder
