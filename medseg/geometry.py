"""Affines, frames and spacings; numpy only.

Everywhere in medseg an affine maps voxel indices, counted from zero at voxel centres, to
millimetres in RAS+ (x to the right, y to the front, z to the head). DICOM's LPS frame exists only
inside `medseg.io.dicom`.
"""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError

Affine: TypeAlias = npt.NDArray[np.float64]

LPS_TO_RAS: Affine = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Turns DICOM's patient frame into RAS and back: it is its own inverse."""

ORTHONORMAL_TOLERANCE = 1e-4
"""Largest deviation of the direction cosines' Gram matrix from identity that is repaired."""

SAME_GRID_TOLERANCE_VOXELS = 1e-3
"""Two grids are the same when no corner differs by more than this fraction of a voxel."""


def affine_from_dicom(
    position_mm: npt.ArrayLike,
    orientation: npt.ArrayLike,
    pixel_spacing_mm: tuple[float, float],
    slice_step_mm: float,
) -> Affine:
    """Build the voxel-to-patient affine of an evenly spaced DICOM series.

    Maps `(column, row, slice, 1)`, counted from zero at voxel centres, to millimetres in
    DICOM's LPS patient frame. Multiply by `LPS_TO_RAS` before writing NIfTI.

    Args:
        position_mm: (3,) ImagePositionPatient of the first slice; LPS, mm.
        orientation: (6,) ImageOrientationPatient: cosines along a row, then along a column.
        pixel_spacing_mm: PixelSpacing as stored, (between rows, between columns); mm.
        slice_step_mm: Signed distance between slice centres along row x column; mm.

    Returns:
        (4, 4) affine; LPS, mm.

    Raises:
        GeometryError: If the two direction cosines are not orthonormal.

    Source:
        DICOM PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1.

    Examples:
        >>> a = affine_from_dicom((10, 20, 30), (1, 0, 0, 0, 1, 0), (0.5, 0.75), 2.0)
        >>> (a @ [2, 4, 1, 1]).tolist()
        [11.5, 22.0, 32.0, 1.0]
    """
    cosines = np.asarray(orientation, np.float64).reshape(2, 3)
    error = float(np.abs(cosines @ cosines.T - np.eye(2)).max())
    if not error <= 1e-3:
        msg = (
            f"orientation must be two orthonormal direction cosines, got {cosines.ravel().tolist()}"
        )
        raise GeometryError(msg)
    row, column = cosines
    affine = np.eye(4)
    affine[:3, 0] = row * pixel_spacing_mm[1]
    affine[:3, 1] = column * pixel_spacing_mm[0]
    affine[:3, 2] = np.cross(row, column) * slice_step_mm
    affine[:3, 3] = np.asarray(position_mm, np.float64)
    return affine


def spacing_mm(affine: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the distance between voxel centres along each axis.

    Args:
        affine: (N + 1, N + 1) voxel-to-world affine; mm.

    Returns:
        (N,) spacing; mm.

    Examples:
        >>> spacing_mm(np.diag([-0.5, 0.75, 2.0, 1.0])).tolist()
        [0.5, 0.75, 2.0]
    """
    matrix = np.asarray(affine, np.float64)[:-1, :-1]
    return np.asarray(np.linalg.norm(matrix, axis=0))


def direction(affine: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the direction cosines of an affine, one column an axis.

    Args:
        affine: (N + 1, N + 1) voxel-to-world affine; mm.

    Returns:
        (N, N) unit columns.

    Raises:
        GeometryError: If an axis has no length.
    """
    matrix = np.asarray(affine, np.float64)[:-1, :-1]
    spacing = spacing_mm(affine)
    if not np.isfinite(matrix).all() or (spacing <= 0).any():
        msg = f"affine must have finite axes of non-zero length, got {matrix.tolist()}"
        raise GeometryError(msg)
    return np.asarray(matrix / spacing)


def orthonormal_error(affine: npt.ArrayLike) -> float:
    """Return by how much the axes of an affine fail to be perpendicular.

    Args:
        affine: (N + 1, N + 1) voxel-to-world affine; mm.

    Returns:
        Largest absolute entry of `D.T @ D - I` for the direction cosines D.
    """
    cosines = direction(affine)
    return float(np.abs(cosines.T @ cosines - np.eye(len(cosines))).max())


def orthonormalised(affine: npt.ArrayLike) -> Affine:
    """Return the nearest affine with perpendicular axes, or refuse.

    The spacings and the world position of voxel 0 stay; the direction cosines become the nearest
    orthonormal matrix (polar decomposition). An affine that is orthonormal within rounding of
    float32 comes back unchanged.

    Args:
        affine: (4, 4) voxel-to-world affine; mm.

    Returns:
        (4, 4) affine.

    Raises:
        GeometryError: If the axes are off by more than `ORTHONORMAL_TOLERANCE`, or any entry is
            not finite.

    Examples:
        >>> orthonormalised(np.diag([2.0, 2.0, 3.0, 1.0])).diagonal().tolist()
        [2.0, 2.0, 3.0, 1.0]
    """
    given = np.asarray(affine, np.float64)
    if not np.isfinite(given).all():
        msg = f"affine must be finite, got {given.tolist()}"
        raise GeometryError(msg)
    error = orthonormal_error(given)
    if error > ORTHONORMAL_TOLERANCE:
        rows = "; ".join(" ".join(f"{value:.5g}" for value in row) for row in given)
        msg = (
            f"affine must have perpendicular axes (within {ORTHONORMAL_TOLERANCE:g}), got a shear"
            f" of {error:.2g} in [{rows}]. Resample the image to an even grid first."
        )
        raise GeometryError(msg, code="sheared-affine")
    if error < 1e-6:  # rounding of float32 header fields
        return given.copy()
    u, _, vt = np.linalg.svd(direction(given))
    result = given.copy()
    result[:-1, :-1] = (u @ vt) * spacing_mm(given)
    return result


def axis_codes(affine: npt.ArrayLike) -> str:
    """Name the world direction that each voxel axis points to, nearest first.

    Each world axis is used once: the largest cosine is settled first.

    Args:
        affine: (4, 4) voxel-to-world affine; RAS, mm.

    Returns:
        Three letters such as `RAS` or `LPS`.

    Examples:
        >>> axis_codes(np.diag([-1.0, -1.0, 2.0, 1.0]))
        'LPS'
    """
    cosines = direction(affine)
    remaining = np.abs(cosines)
    letters = [""] * 3
    for _ in range(3):
        world, axis = np.unravel_index(int(remaining.argmax()), remaining.shape)
        letters[axis] = ("LR", "PA", "IS")[world][int(cosines[world, axis] > 0)]
        remaining[world, :] = -1
        remaining[:, axis] = -1
    return "".join(letters)


def reorientation(affine: npt.ArrayLike, codes: str) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Say how voxel axes are exchanged and turned round so that they point to given directions.

    Args:
        affine: (4, 4) voxel-to-world affine; RAS, mm.
        codes: Three letters such as `RAS`.

    Returns:
        For each new axis the present one, and whether it is turned round.

    Raises:
        ValueError: If the letters do not name three directions.

    Examples:
        >>> reorientation(np.diag([-1.0, -1.0, 2.0, 1.0]), "RAS")
        ((0, 1, 2), (True, True, False))
    """
    pairs = ("LR", "PA", "IS")
    own = axis_codes(affine)
    axes, flips = [], []
    for code in codes:
        pair = next((pair for pair in pairs if code in pair), "")
        found = [axis for axis, letter in enumerate(own) if letter in pair]
        if len(codes) != 3 or len(found) != 1 or found[0] in axes:
            msg = f"codes must name three directions, such as RAS, got {codes!r}"
            raise ValueError(msg)
        axes.append(found[0])
        flips.append(own[found[0]] != code)
    return tuple(axes), tuple(flips)


def corners(shape: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the voxel indices of the corner voxels of a grid.

    Args:
        shape: (N,) voxels along each axis.

    Returns:
        (2**N, N) indices: eight in 3D.
    """
    last = np.asarray(shape, np.float64) - 1
    return np.stack(np.meshgrid(*[(0.0, end) for end in last], indexing="ij"), -1).reshape(
        -1, last.size
    )


def apply_affine(affine: npt.ArrayLike, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Map points through an affine.

    Args:
        affine: (N + 1, N + 1) affine.
        points: (..., N) points.

    Returns:
        (..., N) mapped points.
    """
    matrix = np.asarray(affine, np.float64)
    return np.asarray(np.asarray(points, np.float64) @ matrix[:-1, :-1].T + matrix[:-1, -1])


def moved(affine: Affine, axis: int, voxels: float) -> Affine:
    """Return the affine of a grid that begins further along an axis.

    Args:
        affine: (D + 1, D + 1) affine; mm.
        axis: Voxel axis.
        voxels: How much further.

    Returns:
        (D + 1, D + 1).
    """
    result = np.array(affine, np.float64)
    result[:-1, -1] += voxels * result[:-1, axis]
    return result


def grid_difference_voxels(
    shape: npt.ArrayLike, affine: npt.ArrayLike, other_affine: npt.ArrayLike
) -> float:
    """Return how far two grids of one shape lie apart, in voxels.

    Args:
        shape: (3,) voxels along each axis.
        affine: (4, 4) of the first grid; mm.
        other_affine: (4, 4) of the second grid, same frame; mm.

    Returns:
        Largest distance between equal corner voxels, as a fraction of the smallest spacing.
    """
    points = corners(shape)
    gap = apply_affine(affine, points) - apply_affine(other_affine, points)
    return float(np.linalg.norm(gap, axis=1).max() / spacing_mm(affine).min())


def voxel_volume_ml(affine: npt.ArrayLike) -> float:
    """Return the volume of one voxel.

    Args:
        affine: (4, 4) voxel-to-world affine; mm.

    Returns:
        Volume; ml.

    Examples:
        >>> round(voxel_volume_ml(np.diag([1.0, 2.0, 5.0, 1.0])), 6)
        0.01
    """
    return float(abs(np.linalg.det(np.asarray(affine, np.float64)[:3, :3]))) / 1000
