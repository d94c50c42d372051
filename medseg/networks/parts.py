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
