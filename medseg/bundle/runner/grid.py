"""Images on grids, and interpolation along one axis of them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Network = Callable[[Array], Array]
Step = Mapping[str, Any]


class PipelineError(Exception):
    """The image, the pipeline or the network cannot be used; the message says why."""


@dataclass(frozen=True)
class Image:
    """An image on a grid.

    Attributes:
        array: (C, *spatial); float32.
        affine: (D + 1, D + 1) from voxels to mm; RAS+ in 3D, pixels in 2D.
    """

    array: Array
    affine: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis."""
        return self.array.shape[1:]

    @property
    def spacing(self) -> list[float]:
        """Distance between voxels along each axis; mm."""
        squares = np.square(self.affine[:-1, :-1]).sum(axis=0)
        return [float(value) for value in np.sqrt(squares)]


def linear_matrix(extent: int, places: Array) -> Array:
    """Return the (places, extent) matrix of linear interpolation; places within the axis.

    Args:
        extent: Voxels of the axis.
        places: (N,) positions on it, 0 to extent - 1; voxels.

    Returns:
        (N, extent) float32 weights, each row with the sum 1.
    """
    matrix = np.zeros((len(places), extent), np.float32)
    rows = np.arange(len(places))
    lower = np.minimum(places.astype(int), max(extent - 2, 0))
    matrix[rows, lower] = 1 - (places - lower)
    matrix[rows, np.minimum(lower + 1, extent - 1)] += (places - lower).astype(np.float32)
    return matrix


def cubic_matrix(extent: int, places: Array) -> Array:
    """Return the (places, extent) matrix of cubic B-spline interpolation.

    The axis is continued by 12 equal voxels at either end; the coefficients of the spline are what
    the tridiagonal system (1, 4, 1) / 6 gives, mirrored at the ends.

    Args:
        extent: Voxels of the axis.
        places: (N,) positions on it; voxels.

    Returns:
        (N, extent) weights.
    """
    margin = 12
    size = extent + 2 * margin
    system = (np.eye(size) * 4 + np.eye(size, k=1) + np.eye(size, k=-1)) / 6
    system[0, 0] = system[-1, -1] = 5 / 6
    repeated = np.pad(np.eye(extent), ((margin, margin), (0, 0)), mode="edge")
    coefficients = np.linalg.solve(system, repeated)
    below = np.floor(places + margin).astype(int)
    shift = (places + margin - below)[:, None]
    rest = 1 - shift
    weights = (
        rest**3 / 6,
        (4 - 6 * shift**2 + 3 * shift**3) / 6,
        (4 - 6 * rest**2 + 3 * rest**3) / 6,
        shift**3 / 6,
    )
    taps = (weight * coefficients[below + tap - 1] for tap, weight in enumerate(weights))
    return np.asarray(sum(taps), np.float32)


def multiplied(matrix: Array, array: Array, axis: int) -> Array:
    """Multiply an array by a matrix along an axis.

    Args:
        matrix: (N, M).
        array: M long along the axis.
        axis: Of the array.

    Returns:
        The array, N long along the axis.
    """
    if axis == array.ndim - 1:
        return np.asarray(np.ascontiguousarray(array) @ matrix.T)
    shape = array.shape
    flat = np.ascontiguousarray(array).reshape(math.prod(shape[:axis]), shape[axis], -1)
    product = np.asarray(np.matmul(matrix, flat))
    return product.reshape(*shape[:axis], len(matrix), *shape[axis + 1 :])
