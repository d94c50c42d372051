"""Patch and batch size under a memory budget.

Source: Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 3; nnU-Net v2.8.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.planning.memory import REFERENCE_BATCH, reference_voxels, voxels_of
from medseg.planning.topology import Topology, topology

START_EDGE = {2: 2048, 3: 256}
"""Edge of the isotropic patch that is started from, voxels at equal spacings."""
SMALLEST_BATCH = 2
FEWEST_STAGES = 3
"""MONAI's DynUNet has at least three."""
SMALLEST_EDGE_OF_THREE = 16
"""Voxels that can be pooled twice."""
LARGEST_SHARE = 0.05
"""Of the dataset's voxels, what a batch may see at most."""


@dataclass(frozen=True)
class PatchPlan:
    """Patch, network topology and batch size.

    Attributes:
        topology: With the patch.
        batch_size: Samples.
        start: Patch before it was shrunk; voxels.
        voxels: Feature-map voxels of a sample.
        budget: Feature-map voxels of a sample that the memory holds.
        batch_by_memory: Batch size that the memory holds.
        batch_by_share: Batch size that sees a twentieth of the dataset.
    """

    topology: Topology
    batch_size: int
    start: tuple[int, ...]
    voxels: int
    budget: float
    batch_by_memory: int
    batch_by_share: int


def start_patch(spacing_mm: Sequence[float], median_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the patch that is started from: as wide in mm along each axis, within the image.

    Args:
        spacing_mm: Of the network's grid; mm.
        median_shape: Of the images on that grid; voxels.

    Returns:
        Voxels along each axis.
    """
    dims = len(spacing_mm)
    density = 1 / np.asarray(spacing_mm, np.float64)
    scale = (START_EDGE[dims] ** dims / density.prod()) ** (1 / dims)
    return tuple(
        int(min(round(float(value)), extent))
        for value, extent in zip(density * scale, median_shape, strict=True)
    )


def plan_patch(
    spacing_mm: Sequence[float],
    median_shape: Sequence[int],
    *,
    dataset_voxels: float,
    classes: int,
    memory_gb: float,
) -> PatchPlan:
    """Shrink the patch along the axis that covers most of the image until the network fits.

    Args:
        spacing_mm: Of the network's grid; mm.
        median_shape: Of the images on that grid; voxels.
        dataset_voxels: Of all images at full resolution, on the network's spacing.
        classes: Output channels.
        memory_gb: Memory of the device; GB.

    Returns:
        The plan.
    """
    dims = len(spacing_mm)
    start = start_patch(spacing_mm, median_shape)
    found = topology(spacing_mm, start)
    if len(found.strides) < FEWEST_STAGES:  # images of a few voxels are padded
        found = topology(spacing_mm, [max(extent, SMALLEST_EDGE_OF_THREE) for extent in start])
    budget = reference_voxels(dims, memory_gb)
    reference_batch = REFERENCE_BATCH[dims]
    while voxels_of(found, classes) / reference_batch * 2 > budget:
        smaller = _smaller(spacing_mm, found, median_shape)
        if smaller.patch_size == found.patch_size:
            break
        found = smaller
    voxels = voxels_of(found, classes)
    by_memory = round(budget / voxels * reference_batch)
    by_share = round(dataset_voxels * LARGEST_SHARE / math.prod(found.patch_size))
    batch = max(min(by_memory, by_share), SMALLEST_BATCH)
    return PatchPlan(found, batch, start, voxels, budget, by_memory, by_share)


def _smaller(spacing_mm: Sequence[float], found: Topology, median_shape: Sequence[int]) -> Topology:
    patch = list(found.patch_size)
    covered = [size / extent for size, extent in zip(patch, median_shape, strict=True)]
    axis = int(np.argsort(covered)[-1])
    trial = list(patch)
    trial[axis] -= found.divisors[axis]
    # a shorter axis may be pooled less often, and is then shortened by less
    patch[axis] -= topology(spacing_mm, trial).divisors[axis]
    return topology(spacing_mm, patch)
