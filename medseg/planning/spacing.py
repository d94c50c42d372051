"""The spacing that images are brought to.

Source: Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 2; nnU-Net v2.8.
"""

from collections.abc import Sequence

import numpy as np

ANISOTROPY = 3.0
"""A median spacing is anisotropic when its coarsest axis is over three times the others, and has
less than a third of their voxels."""
COARSE_PERCENTILE = 10
LOWRES_THRESHOLD = 0.25
"""A low resolution is planned where the patch covers less of the median image."""
LOWRES_STEP = 1.03
LOWRES_GAIN = 2.0
"""A low resolution has to have at most half of the voxels to be worth it."""


def target_spacing(
    spacings_mm: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]
) -> tuple[tuple[float, ...], int | None]:
    """Return the median spacing, finer along the coarse axis of anisotropic data.

    Args:
        spacings_mm: Of each case; mm.
        shapes: Of each case after cropping; voxels.

    Returns:
        Spacing along each axis; mm; and the coarse axis of anisotropic data, else None.

    Examples:
        >>> target_spacing([(1, 1, 1), (1, 1, 1.2)], [(9, 9, 9), (9, 9, 9)])[1] is None
        True
    """
    table = np.asarray(spacings_mm, np.float64)
    spacing = np.percentile(table, 50, axis=0)
    size = np.percentile(np.asarray(shapes, np.float64), 50, axis=0)
    worst = int(np.argmax(spacing))
    others = [axis for axis in range(len(spacing)) if axis != worst]
    coarse = spacing[worst] > ANISOTROPY * max(spacing[axis] for axis in others)
    few = size[worst] * ANISOTROPY < min(size[axis] for axis in others)
    if not (coarse and few):
        return tuple(float(value) for value in spacing), None
    tenth = float(np.percentile(table[:, worst], COARSE_PERCENTILE))
    finest_allowed = max(spacing[axis] for axis in others)
    if tenth < finest_allowed:
        tenth = float(finest_allowed) + 1e-5
    spacing[worst] = tenth
    return tuple(float(value) for value in spacing), worst


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], wanted_mm: Sequence[float]
) -> tuple[int, ...]:
    """Return the voxels of an image at another spacing.

    Args:
        shape: Voxels along each axis.
        spacing_mm: Spacing it has; mm.
        wanted_mm: Spacing wanted; mm.

    Returns:
        Voxels along each axis.
    """
    return tuple(
        max(1, round(extent * own / wanted))
        for extent, own, wanted in zip(shape, spacing_mm, wanted_mm, strict=True)
    )


def coarser(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """Return a spacing 3 % coarser; axes under half of the coarsest alone, while there are some.

    Args:
        spacing_mm: Spacing; mm.

    Returns:
        The coarser spacing; mm.
    """
    spacing = np.asarray(spacing_mm, np.float64)
    fine = spacing.max() / spacing > 2
    spacing = (
        np.where(fine, spacing * LOWRES_STEP, spacing) if fine.any() else spacing * LOWRES_STEP
    )
    return tuple(float(value) for value in spacing)
