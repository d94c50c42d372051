"""How deep a U-Net can be on a patch, axis by axis.

Source: Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST_EDGE = 4
"""Voxels that a feature map keeps along each axis."""
SAME_SPACING_FACTOR = 2.0
"""Axes whose spacings differ by less are pooled and convolved alike."""


@dataclass(frozen=True)
class Topology:
    """Poolings and kernels of a U-Net.

    Attributes:
        patch_size: Patch padded so that every pooling divides it.
        strides: Of each stage, the first of 1.
        kernels: Of each stage.
        poolings: Along each axis.
    """

    patch_size: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]
    poolings: tuple[int, ...]

    @property
    def divisors(self) -> tuple[int, ...]:
        """What the patch has to be a multiple of along each axis."""
        return tuple(2**count for count in self.poolings)


def topology(spacing_mm: Sequence[float], patch_size: Sequence[int]) -> Topology:
    """Pool while the feature map keeps four voxels, finest axes first.

    An axis is pooled with the others once its spacing is less than twice that of the finest axis
    that can be pooled, and convolved (3 voxels instead of 1) once it is less than twice that of
    the finest of all.

    Args:
        spacing_mm: Of the network's grid; mm.
        patch_size: Wished patch; voxels.

    Returns:
        The topology, with the patch padded to fit it.

    Examples:
        >>> topology((1, 1, 1), (36, 50, 35)).patch_size
        (40, 56, 40)
    """
    dims = len(spacing_mm)
    spacing, size = [float(value) for value in spacing_mm], [int(value) for value in patch_size]
    strides, kernels = [(1,) * dims], []
    kernel, poolings = [1] * dims, [0] * dims
    while axes := _axes_to_pool(spacing, size):
        for axis in range(dims):
            if spacing[axis] / min(spacing) < SAME_SPACING_FACTOR:
                kernel[axis] = 3
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in axes else 1 for axis in range(dims)))
        for axis in axes:
            poolings[axis] += 1
            spacing[axis] *= 2
            size[axis] = math.ceil(size[axis] / 2)
    kernels.append((3,) * dims)
    padded = tuple(
        math.ceil(extent / 2**count) * 2**count
        for extent, count in zip(patch_size, poolings, strict=True)
    )
    return Topology(padded, tuple(strides), tuple(kernels), tuple(poolings))


def _axes_to_pool(spacing: Sequence[float], size: Sequence[int]) -> list[int]:
    large = [axis for axis in range(len(size)) if size[axis] >= 2 * SMALLEST_EDGE]
    if not large:
        return []
    finest = min(spacing[axis] for axis in large)
    axes = [axis for axis in large if spacing[axis] / finest < SAME_SPACING_FACTOR]
    if len(axes) == 1 and size[axes[0]] < 3 * SMALLEST_EDGE:
        return []
    return axes
