"""Several single-channel volumes of one case as one multi-channel volume."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medseg.errors import GeometryError
from medseg.geometry import SAME_GRID_TOLERANCE_VOXELS, grid_difference_voxels
from medseg.volume import Volume


def stack_channels(volumes: Sequence[Volume]) -> Volume:
    """Join co-registered volumes along the channel axis.

    Args:
        volumes: One or more volumes on one grid.

    Returns:
        Volume with the channels of all; affine and source of the first.

    Raises:
        GeometryError: If the grids differ (code `grid-mismatch`).
    """
    first = volumes[0]
    if len(volumes) == 1:
        return first
    for number, other in enumerate(volumes[1:], start=1):
        difference = grid_difference(first, other)
        if difference:
            msg = (
                f"channels must lie on one grid, got channel {number} off channel 0: {difference}."
                " Resample them to one grid first."
            )
            raise GeometryError(msg, code="grid-mismatch")
    array = np.concatenate([volume.array for volume in volumes])
    problems = tuple(problem for volume in volumes for problem in volume.source.problems)
    return Volume(array, first.affine, replace(first.source, problems=problems))


def grid_difference(volume: Volume, other: Volume) -> str:
    """Say how the grids of two volumes differ.

    Args:
        volume: The one.
        other: The other.

    Returns:
        What differs, or an empty string for one grid (within 1e-3 voxel).
    """
    if volume.shape != other.shape:
        return f"size {list(volume.shape)} and {list(other.shape)}"
    if volume.is_2d:
        return ""
    voxels = grid_difference_voxels(volume.shape, volume.affine, other.affine)
    return f"{voxels:.3g} voxels apart" if voxels > SAME_GRID_TOLERANCE_VOXELS else ""
