"""What a builder of the table hands over: a bare network and what is known about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn


@dataclass(frozen=True)
class Parts:
    """A network as its library builds it, before it takes any size of image.

    Attributes:
        network: Takes (B, in_channels, H, W), H and W multiples of `stride`, and gives
            (B, out_channels, H, W) logits.
        stride: Side of one cell of its coarsest features; pixels.
        least_cells: Fewest cells along an axis that it computes with.
        least_batch: Fewest images that it trains on at once.
        encoder: The part that published weights fit; None where there are none.
        names: Key in a file of published weights to key in the encoder; empty where they are
            the same.
    """

    network: nn.Module
    stride: int
    least_cells: int = 1
    least_batch: int = 1
    encoder: nn.Module | None = None
    names: Mapping[str, str] = field(default_factory=dict)


def set_in_channels(holder: nn.Module, name: str, in_channels: int) -> None:
    """Replace the first convolution of a network by one that takes other channels.

    Args:
        holder: The network; changed in place.
        name: Of the convolution within it.
        in_channels: That it shall take; where it does already, nothing changes.

    Raises:
        TypeError: If there is no 2D convolution of that name.
    """
    first = holder.get_submodule(name)
    if not isinstance(first, nn.Conv2d):
        msg = f"first layer must be a convolution, got {type(first).__name__}."
        raise TypeError(msg)
    if first.in_channels == in_channels:
        return
    layer = nn.Conv2d(
        in_channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]  # two numbers
        stride=first.stride,  # type: ignore[arg-type]
        padding=first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    holder.set_submodule(name, layer)
