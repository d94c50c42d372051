"""Sheared or unevenly spaced slices, resampled to a rectangular even grid."""

from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.io.dicom.grid import Grid

Array = npt.NDArray[Any]


def regularise(planes: Array, grid: Grid, *, fill: float) -> Array:
    """Resample slices to their grid: shifted in plane, then interpolated along the normal.

    Linear interpolation in both steps, in float32 and one slice at a time.

    Args:
        planes: (C, K, rows, columns) slices as acquired.
        grid: Where they lie.
        fill: Value outside the slices.

    Returns:
        (C, slices, rows, columns) on the grid, of the same type.
    """
    columns, rows, slices = grid.size
    shifted = planes
    if grid.sheared:
        shifted = np.empty((*planes.shape[:2], rows, columns), planes.dtype)
        for time in range(planes.shape[0]):
            for place, offset in enumerate(grid.offsets):
                shifted[time, place] = _shift(planes[time, place], offset, (rows, columns), fill)
    if not grid.uneven:
        return shifted
    result = np.empty((planes.shape[0], slices, rows, columns), planes.dtype)
    for time in range(planes.shape[0]):
        for place in range(slices):
            result[time, place] = _between(shifted[time], grid.depths, place)
    return result


def _shift(plane: Array, offset: Array, shape: tuple[int, int], fill: float) -> Array:
    """Place a slice at a fractional (column, row) of a larger plane."""
    whole = np.floor(offset).astype(int)
    part = (offset - whole).astype(np.float32)
    out = np.full(shape, fill, np.float32)
    rows, columns = plane.shape
    out[whole[1] : whole[1] + rows, whole[0] : whole[0] + columns] = plane
    for axis, fraction in ((1, part[0]), (0, part[1])):
        if fraction > 0:
            before = np.roll(out, 1, axis)
            first = [slice(None), slice(None)]
            first[axis] = slice(0, 1)
            before[tuple(first)] = fill
            out += fraction * (before - out)
    return _typed(out, plane.dtype)


def _between(slices: Array, depths: Array, place: int) -> Array:
    """Interpolate one plane between the two slices next to it."""
    above = int(np.searchsorted(depths, place).clip(1, len(depths) - 1))
    low, high = depths[above - 1], depths[above]
    part = np.float32(np.clip((place - low) / (high - low), 0, 1))
    if part == 0:
        return np.asarray(slices[above - 1])
    if part == 1:
        return np.asarray(slices[above])
    below = slices[above - 1].astype(np.float32)
    return _typed(below + part * (slices[above].astype(np.float32) - below), slices.dtype)


def _typed(values: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    return np.rint(values).astype(dtype)
