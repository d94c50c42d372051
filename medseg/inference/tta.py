"""Test-time augmentation by mirroring."""

from collections.abc import Callable
from itertools import combinations

import torch


def mirrored(
    network: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Average a network over all mirrorings of the spatial axes.

    Args:
        network: Maps (B, C, *spatial) to (B, classes, *spatial).

    Returns:
        The same function, averaged over 2 ** number of spatial axes flips.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, methods ("inference").
    """

    def run(inputs: torch.Tensor) -> torch.Tensor:
        axes = range(2, inputs.ndim)
        flips = [c for n in range(inputs.ndim - 1) for c in combinations(axes, n)]
        # what a network gives may last until its next call only
        total = network(inputs).clone().float()
        for flip in flips[1:]:
            total += torch.flip(network(torch.flip(inputs, flip)), flip)
        return total / len(flips)

    return run
