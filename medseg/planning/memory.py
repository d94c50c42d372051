"""What a network's feature maps take, compared with a network that is known to fit.

Source: nnU-Net v2.8 (`ExperimentPlanner`), whose reference values these are.
"""

import math
from collections.abc import Sequence

from medseg.planning.topology import Topology

BASE_FEATURES = 32
MOST_FEATURES = {2: 512, 3: 320}
REFERENCE_VOXELS = {2: 85_000_000, 3: 560_000_000}
"""Feature-map voxels of a sample that fit in the reference memory at the reference batch size."""
REFERENCE_GB = 8.0
REFERENCE_BATCH = {2: 12, 3: 2}
CONVOLUTIONS = 2
"""Of each stage."""


def features(stages: int, dims: int) -> tuple[int, ...]:
    """Return the features of each stage: doubling from 32 up to 512 in 2D, 320 in 3D.

    Args:
        stages: Number of stages.
        dims: 2 or 3.

    Returns:
        One number a stage.

    Examples:
        >>> features(6, 3)
        (32, 64, 128, 256, 320, 320)
    """
    return tuple(min(BASE_FEATURES * 2**stage, MOST_FEATURES[dims]) for stage in range(stages))


def feature_map_voxels(
    patch_size: Sequence[int], strides: Sequence[Sequence[int]], classes: int
) -> int:
    """Return the voxels of all feature maps of a plain U-Net for one sample.

    Args:
        patch_size: Voxels along each axis.
        strides: Of each stage.
        classes: Output channels.

    Returns:
        Voxels times channels, over all convolutions of encoder and decoder, transposed ones and
        the output.
    """
    widths = features(len(strides), len(patch_size))
    size, sizes = list(patch_size), []
    for stride in strides:
        size = [extent // step for extent, step in zip(size, stride, strict=True)]
        sizes.append(math.prod(size))
    total = sum(CONVOLUTIONS * width * voxels for width, voxels in zip(widths, sizes, strict=True))
    total += sum(
        (CONVOLUTIONS + 1) * width * voxels
        for width, voxels in zip(widths[:-1], sizes[:-1], strict=True)
    )
    return total + classes * sizes[0]


def reference_voxels(dims: int, memory_gb: float) -> float:
    """Return the feature-map voxels of a sample that a memory holds at the reference batch.

    Args:
        dims: 2 or 3.
        memory_gb: Memory; GB.

    Returns:
        Voxels.
    """
    return REFERENCE_VOXELS[dims] * memory_gb / REFERENCE_GB


def voxels_of(topology: Topology, classes: int) -> int:
    """Return the feature-map voxels of a topology.

    Args:
        topology: With its patch.
        classes: Output channels.

    Returns:
        Voxels of one sample.
    """
    return feature_map_voxels(topology.patch_size, topology.strides, classes)
