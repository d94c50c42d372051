"""The closed surface of a mask, in the patient."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph
from skimage.measure import marching_cubes

from medseg.geometry import LPS_TO_RAS, Affine, apply_affine

SMOOTHING_ROUNDS = 15
"""Takes the stairs of voxels away from an organ."""

MOST_CHANGE = 0.02
"""Share of its volume that a piece of a surface may gain or lose by smoothing."""

_SHRINK, _SWELL = 0.5, -0.53
# Taubin's lambda and mu: a pass-band of 1 / 0.5 - 1 / 0.53 = 0.11, near his 0.1


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed surface of triangles.

    Attributes:
        points_mm: (N, 3) corners; LPS, mm.
        triangles: (M, 3) corners of each triangle, anticlockwise seen from outside.
    """

    points_mm: npt.NDArray[np.float64]
    triangles: npt.NDArray[np.int32]


def surface_of(
    mask: npt.NDArray[np.bool_], affine: Affine, *, smoothing: int = SMOOTHING_ROUNDS
) -> Surface:
    """Return the surface of a mask, half way between the voxels inside and those outside.

    It is closed where the mask ends at the edge of its grid too. Of a structure of few voxels the
    surface cuts the corners: a single voxel becomes an octahedron of a sixth of its volume.

    Args:
        mask: (I, J, K), with at least one voxel.
        affine: (4, 4) of that grid; RAS, mm.
        smoothing: Rounds of Taubin's smoothing, which does not shrink what is much thicker than a
            voxel; 0 for none. Pieces that would gain or lose over 2 % of their volume are
            smoothed less.

    Returns:
        The surface; LPS, mm.

    Raises:
        ValueError: If the mask has no voxel.

    Source:
        Lewiner et al., Efficient Implementation of Marching Cubes' Cases with Topological
        Guarantees, 2003; Taubin, A Signal Processing Approach to Fair Surface Design, SIGGRAPH
        1995.

    Examples:
        >>> box = surface_of(np.ones((10, 10, 10), bool), np.diag([1, 1, 2.0, 1]), smoothing=0)
        >>> box.points_mm.min(axis=0).tolist(), box.points_mm.max(axis=0).tolist()
        ([-9.5, -9.5, -1.0], [0.5, 0.5, 19.0])
    """
    if not mask.any():
        msg = f"mask must have a voxel, got none in {mask.shape}"
        raise ValueError(msg)
    padded = np.pad(mask, 1).view(np.uint8)
    points, triangles, _, _ = marching_cubes(padded, 0.5)
    points = points.astype(np.float64) - 1  # of the padding
    if smoothing:
        points = _smoothed(points, triangles, smoothing)
    surface = Surface(apply_affine(LPS_TO_RAS @ affine, points), triangles)
    if np.linalg.det(affine[:3, :3]) > 0:  # scikit-image lets them face inwards
        surface = Surface(surface.points_mm, triangles[:, ::-1])
    return surface


def _smoothed(
    points: npt.NDArray[np.float64], triangles: npt.NDArray[np.int32], rounds: int
) -> npt.NDArray[np.float64]:
    """Smooth a closed surface, piece by piece as far as its volume stays.

    Every neighbour counts alike, so that smoothing voxel indices and mapping them is the same as
    smoothing millimetres.
    """
    starts, ends = triangles.ravel(), triangles[:, [1, 2, 0]].ravel()  # both ways, being closed
    ones = np.ones(starts.size)
    near = sparse.coo_array((ones, (starts, ends)), shape=(len(points), len(points))).tocsr()
    share = 1 / near.sum(axis=1)[:, None]
    smooth = points
    for _ in range(rounds):
        for step in (_SHRINK, _SWELL):
            smooth = smooth + step * ((near @ smooth) * share - smooth)
    count, piece = csgraph.connected_components(near, directed=False)
    extent = _extents(points, smooth - points, (triangles, piece, count))
    return np.asarray(points + extent[piece, None] * (smooth - points))


def _extents(
    points: npt.NDArray[np.float64],
    step: npt.NDArray[np.float64],
    pieces: tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], int],
) -> npt.NDArray[np.float64]:
    """Return for each piece how much of a step keeps its volume: all, quarters of it or nothing."""
    triangles, piece, count = pieces
    extent = np.zeros(count)
    left = triangles
    for share in (1.0, 0.75, 0.5, 0.25):
        number = piece[left[:, 0]]
        before, after = (
            np.bincount(number, _six_volumes(moved, left), count)
            for moved in (points, points + share * step)
        )
        changed = np.abs(after - before) > MOST_CHANGE * np.abs(before)
        extent[~changed & (before != 0)] = share
        left = left[changed[number]]
        if not len(left):
            break
    return extent


def _six_volumes(
    points: npt.NDArray[np.float64], triangles: npt.NDArray[np.int32]
) -> npt.NDArray[np.float64]:
    """Return six times the volume between each triangle and one point in the middle."""
    first, second, third = np.moveaxis((points - points.mean(axis=0))[triangles], 1, 0)
    return np.asarray((first * np.cross(second, third)).sum(axis=1))
