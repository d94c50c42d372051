"""A mask that is filled plane by plane, in whatever direction, and lies in memory as in a file."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

PLANES = 64
"""Planes that are gathered before they are written: each cache line of the mask then once."""


class Board:
    """A mask on the source grid.

    Files hold 3D masks with the first axis running fastest. Planes across that axis would be
    written byte by byte, so they are gathered first.

    Args:
        shape: (I, J, K) or (rows, columns); voxels.
        dtype: Of the mask.
        fill: Value where nothing is written.
        walk: Axis along which planes follow on each other, in either direction.
    """

    def __init__(self, shape: Sequence[int], dtype: np.dtype[Any], fill: int, walk: int) -> None:
        order: Literal["C", "F"] = "F" if len(shape) == 3 else "C"
        self._mask = np.full(tuple(shape), fill, dtype, order=order)
        self._walk = walk
        self._fill = fill
        self._part: npt.NDArray[Any] | None = None
        self._number = -1
        if order == "F" and walk < 2:
            extents = list(shape)
            extents[walk] = min(PLANES, shape[walk])
            self._part = np.empty(extents, dtype)

    def put(self, where: Sequence[slice], values: npt.NDArray[Any]) -> None:
        """Write a box that lies in one run of `PLANES` planes.

        Args:
            where: The box.
            values: Of that shape.
        """
        if self._part is None:
            self._mask[tuple(where)] = values
            return
        planes = where[self._walk]
        number = planes.start // PLANES
        if number != self._number:
            self._flush()
            self._part.fill(self._fill)
            self._number = number
        here = list(where)
        here[self._walk] = slice(planes.start - number * PLANES, planes.stop - number * PLANES)
        self._part[tuple(here)] = values

    def finished(self) -> npt.NDArray[Any]:
        """Return the mask; nothing can be written after."""
        self._flush()
        self._part = None
        return self._mask

    def _flush(self) -> None:
        if self._part is None or self._number < 0:
            return
        start = self._number * PLANES
        part = self._mask.swapaxes(0, self._walk)[start : start + PLANES].swapaxes(0, self._walk)
        for column in range(part.shape[1]):  # as much at once as a cache holds
            part[:, column] = self._part[tuple(slice(n) for n in part.shape)][:, column]
