"""Test-time augmentation by mirroring."""

from collections.abc import Callable, Sequence
from itertools import combinations

import torch


def mirrored(
    network: Callable[[torch.Tensor], torch.Tensor],
    mirror_axes: Sequence[int] | None = None,
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Average a network over all mirrorings of spatial axes.

    Args:
        network: Maps (B, C, *spatial) to (B, classes, *spatial).
        mirror_axes: Spatial axes that are mirrored; all when None.

    Returns:
        The same function, averaged over 2 ** number of these axes flips.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, methods ("inference").
    """

    def run(inputs: torch.Tensor) -> torch.Tensor:
        own = range(inputs.ndim - 2) if mirror_axes is None else mirror_axes
        axes = [axis + 2 for axis in own]
        flips = [c for n in range(len(axes) + 1) for c in combinations(axes, n)]
        # what a network gives may last until its next call only
        total = network(inputs).clone().float()
        for flip in flips[1:]:
            total += torch.flip(network(torch.flip(inputs, flip)), flip)
        return total / len(flips)

    return run
