"""The matrix that interpolates along one axis of a grid."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

NEGLIGIBLE_WEIGHT = 1e-9
"""Weights of a spline below this are 0: they end in denormal numbers, which processors dread."""

SPLINE_MARGIN, SPLINE_REACH = 12, 32
"""Voxels that scipy repeats at either end, and over which a coefficient falls to 1e-18."""

RUN_ROWS = 64
"""Rows of a matrix that are multiplied together: a band of it, where all but a band is 0."""

COLUMNS_AT_ONCE = 64


class Band(NamedTuple):
    """Rows of a matrix, without the zeros before and after what they use.

    Attributes:
        rows: Of the matrix.
        columns: Of the matrix.
        weights: (rows, columns).
    """

    rows: slice
    columns: slice
    weights: torch.Tensor


@lru_cache(maxsize=64)
def axis_bands(old: int, new: int, order: int) -> tuple[Band, ...]:
    """Return what `axis_matrix` does without its zeros, which for a large picture are 100 MB.

    Args:
        old: As `axis_matrix`.
        new: As `axis_matrix`.
        order: 1 or 3.

    Returns:
        Bands of the matrix.
    """
    return bands_of(axis_matrix.__wrapped__(old, new, order))


def nearest_voxels(old: int, new: int) -> torch.Tensor:
    """Return the voxel that each of another number of them is nearest to, (new,) int64.

    Args:
        old: Voxels before.
        new: Voxels after, over the same field of view.
    """
    return torch.from_numpy(np.rint(_positions(old, new)).astype(np.int64))


def bands_of(matrix: torch.Tensor) -> tuple[Band, ...]:
    """Cut a matrix into runs of rows, each with the columns from the first to the last it uses.

    Args:
        matrix: (rows, columns).

    Returns:
        Its bands, from the first row on.
    """
    bands = []
    for start in range(0, len(matrix), RUN_ROWS):
        part = matrix[start : start + RUN_ROWS]
        used = torch.nonzero((part != 0).any(dim=0))
        low, high = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
        band = part[:, low:high].contiguous()
        bands.append(Band(slice(start, start + len(part)), slice(low, high), band))
    return tuple(bands)


@lru_cache(maxsize=32)
def axis_matrix(old: int, new: int, order: int) -> torch.Tensor:
    """Return the matrix that takes the voxels of an axis to another number of them.

    Args:
        old: Voxels before.
        new: Voxels after, over the same field of view.
        order: 0, 1 or 3.

    Returns:
        (new, old) float32; rows sum to 1.
    """
    if order == 3:
        return torch.from_numpy(_cubic_matrix(old, new))
    positions = _positions(old, new)
    matrix = np.zeros((new, old), np.float32)
    rows = np.arange(new)
    if order == 0:
        matrix[rows, np.rint(positions).astype(int)] = 1
    else:
        lower = np.minimum(positions.astype(int), max(old - 2, 0))
        matrix[rows, lower] = 1 - (positions - lower)
        matrix[rows, np.minimum(lower + 1, old - 1)] += positions - lower
    return torch.from_numpy(matrix)


def _cubic_matrix(old: int, new: int) -> npt.NDArray[np.float32]:
    """Return what `scipy.ndimage.zoom` does along an axis, with order 3, nearest and grid mode.

    The coefficients of a spline fall by 0.27 from voxel to voxel: some columns at a time, with the
    voxels around them, are as good as all at once and take a small part of time and memory.
    """
    positions = (np.arange(new) + 0.5) * (old / new) - 0.5 + SPLINE_MARGIN
    matrix = np.zeros((new, old), np.float32)
    for start in range(0, old, COLUMNS_AT_ONCE):
        stop = min(old, start + COLUMNS_AT_ONCE)
        low, high = max(0, start - SPLINE_REACH), min(old, stop + SPLINE_REACH)
        unit = np.eye(high - low, stop - start, k=low - start)
        padded = np.pad(unit, ((SPLINE_MARGIN, SPLINE_MARGIN), (0, 0)), mode="edge")
        coefficients = ndimage.spline_filter1d(padded, order=3, axis=0, mode="nearest")
        first = np.searchsorted(positions, low + SPLINE_MARGIN if low else -np.inf)
        last = np.searchsorted(positions, high + SPLINE_MARGIN - 1 if high < old else np.inf)
        below = np.floor(positions[first:last]).astype(np.intp)
        part = np.zeros((last - first, stop - start))
        shift = positions[first:last] - below
        for tap, weight in enumerate(_cubic_weights(shift)):
            part += weight[:, None] * coefficients[below - low - 1 + tap]
        part[np.abs(part) < NEGLIGIBLE_WEIGHT] = 0
        matrix[first:last, start:stop] = part
    return matrix


def _cubic_weights(shift: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], ...]:
    """Return the cubic B-spline at four neighbours, the first one before the lower."""
    rest = 1 - shift
    return (
        rest**3 / 6,
        (4 - 6 * shift**2 + 3 * shift**3) / 6,
        (4 - 6 * rest**2 + 3 * rest**3) / 6,
        shift**3 / 6,
    )


def _positions(old: int, new: int) -> npt.NDArray[np.float64]:
    positions = np.asarray((np.arange(new) + 0.5) * (old / new) - 0.5, np.float64)
    return positions.clip(0, old - 1)
