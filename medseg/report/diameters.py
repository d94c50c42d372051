"""How long structures are: across a component, and across it within a slice as RECIST measures.

Ends are taken at the centres of the faces of voxels, where a surface through the mask has its
corners: a row of ten voxels of 1 mm is 10 mm long, and a single voxel has the length of its longest
side. What PyRadiomics calls Maximum3DDiameter is measured between the same points.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.geometry import Affine, spacing_mm
from medseg.report.runs import Ints, Parts

Points = npt.NDArray[np.float64]

PAIRS_AT_ONCE = 1 << 22
"""Distances that are held at once."""

DIRECTIONS = 16
"""From which a slice is looked at, to tell which of many need not be measured."""

ALIKE = 1.01
"""Spacings that differ by less than this factor are taken for the same."""


@dataclass(frozen=True)
class InPlane:
    """The longest line within a slice of a structure.

    Attributes:
        diameter_mm: Its length; mm.
        short_mm: Extent, across that line, of the same component in the same slice; mm.
        plane: Number of the slice, from 0.
    """

    diameter_mm: float
    short_mm: float
    plane: int


def slice_axis(affine: Affine, codes: str) -> int:
    """Return the voxel axis that slices follow each other along, as far as a grid tells.

    Args:
        affine: (4, 4) of the grid; RAS, mm.
        codes: Its axis codes, such as `LPS`.

    Returns:
        That whose spacing is unlike the two others, which are alike: pixels are square. Where all
        are alike the one from foot to head; where all differ that of the widest.

    Examples:
        >>> slice_axis(np.diag([1.0, 4.0, 1.0, 1.0]), "RAS")
        1
        >>> slice_axis(np.diag([0.98, 0.98, 0.625, 1.0]), "LPS")
        2
        >>> slice_axis(np.eye(4), "SRA")
        0
    """
    spacing = spacing_mm(affine)
    alike = [
        bool(max(pair) <= ALIKE * min(pair))
        for pair in (np.delete(spacing, axis) for axis in range(3))
    ]
    if sum(alike) == 1:
        return alike.index(True)
    if not any(alike):
        return int(spacing.argmax())
    return next(axis for axis in range(3) if codes[axis] in "IS")


def largest_diameters(parts: Parts, affine: Affine) -> dict[int, float]:
    """Return, of each label, the largest distance between two points of one component.

    Args:
        parts: Of a label map; 2D or 3D.
        affine: Of its grid; mm.

    Returns:
        Label to mm; labels that were found alone.
    """
    steps = np.asarray(affine, np.float64)[:-1, :-1]
    axes = range(len(steps))
    result: dict[int, float] = {}
    for label, members, bound in _largest_first(parts, parts.component, steps, axes):
        if result.get(label, 0.0) < bound:
            points = _faces(parts, members, axes) @ steps.T
            result[label] = max(result.get(label, 0.0), _farthest(_hull(points))[0])
    return result


def in_plane_diameters(parts: Parts, affine: Affine, axis: int) -> dict[int, InPlane]:
    """Return, of each label, the longest line within one slice of one component.

    Args:
        parts: Of a label map in 3D, with runs that lie within its slices.
        affine: (4, 4) of its grid; mm.
        axis: Voxel axis that slices follow each other along.

    Returns:
        Label to the line; labels that were found alone.

    Source:
        RECIST 1.1 (Eisenhauer et al., European Journal of Cancer 45, 2009): the longest diameter
        in the plane of measurement, and what is perpendicular to it.
    """
    plane = parts.runs.coordinates()[parts.runs.others.index(axis)]
    within = [other for other in range(3) if other != axis]
    # what turns a slice into a plane: its rows and columns need not be perpendicular
    steps = np.linalg.qr(np.asarray(affine, np.float64)[:3, within])[1]
    result: dict[int, InPlane] = {}
    slices = parts.component * parts.runs.shape[axis] + plane
    for label, members, bound in _largest_first(parts, slices, steps, within):
        if label in result and result[label].diameter_mm >= bound:
            continue
        hull = _hull(_faces(parts, members, within) @ steps.T)
        length, line = _farthest(hull)
        if label not in result or length > result[label].diameter_mm:
            across = hull @ np.array([-line[1], line[0]]) / length
            result[label] = InPlane(length, float(np.ptp(across)), int(plane[members[0]]))
    return result


def _largest_first(
    parts: Parts, key: Ints, steps: Points, axes: Sequence[int]
) -> Iterator[tuple[int, Ints, float]]:
    """Yield groups of runs of one key: their label, runs, and a length that none exceeds; mm."""
    if not len(key):
        return
    order = np.argsort(key, kind="stable")
    begins = np.flatnonzero(np.diff(key[order], prepend=-1))
    ends = np.append(begins[1:], len(order))
    bounds = _bounds(_ends_of(parts, order, axes) @ steps.T, begins, steps)
    for group in np.argsort(-bounds, kind="stable"):
        members = order[begins[group] : ends[group]]
        yield int(parts.runs.label[members[0]]), members, float(bounds[group])


def _bounds(ends: Points, begins: Ints, steps: Points) -> npt.NDArray[np.float64]:
    """Return a length that no line within each group of (2, N, axes) ends of runs exceeds; mm."""
    if len(steps) == 2:  # a line is nearly as long as it looks from the side nearest to its own
        angles = np.arange(DIRECTIONS) * np.pi / DIRECTIONS
        directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    else:
        directions = np.eye(3)
    widths = []
    for direction in directions:
        low, high = (getattr(np, name)(ends @ direction, axis=0) for name in ("min", "max"))
        faces = np.abs(direction @ steps).max()
        widths.append(np.maximum.reduceat(high, begins) - np.minimum.reduceat(low, begins) + faces)
    if len(steps) == 2:
        return np.asarray(np.max(widths, axis=0) / np.cos(np.pi / 2 / DIRECTIONS))
    return np.asarray(np.linalg.norm(widths, axis=0))


def _ends_of(parts: Parts, members: Ints, axes: Sequence[int]) -> Points:
    """Return the first and last voxels of runs, (2, N, axes)."""
    runs = parts.runs
    ends = np.empty((2, len(members), len(runs.shape)))
    for other, index in zip(runs.others, runs.coordinates(members), strict=True):
        ends[..., other] = index
    ends[0, :, runs.axis] = runs.start[members]
    ends[1, :, runs.axis] = runs.stop[members] - 1
    return ends[..., list(axes)]


def _faces(parts: Parts, members: Ints, axes: Sequence[int]) -> Points:
    """Return the centres of the faces of the voxels at the ends of runs; voxels, along `axes`."""
    voxels = _corners_of(_ends_of(parts, members, axes).reshape(-1, len(axes)))
    half = 0.5 * np.eye(len(axes))
    return np.concatenate([voxels + side for side in (*half, *-half)])


def _corners_of(voxels: Points) -> Points:
    """Return those voxels that can be corners of the hull of all; some more may be among them."""
    if len(voxels) <= len(voxels[0]) + 1:
        return voxels
    from scipy.spatial import ConvexHull, QhullError  # noqa: PLC0415  (light commands come by)

    try:
        return np.asarray(voxels[ConvexHull(voxels).vertices])
    except QhullError:  # all in a line or a plane
        return np.unique(voxels, axis=0)


def _hull(points: Points) -> Points:
    """Return the corners of the hull of points that do not lie in a plane, or in 2D on a line."""
    from scipy.spatial import ConvexHull  # noqa: PLC0415  (light commands come by here)

    return np.asarray(points[ConvexHull(points).vertices])


def _farthest(points: Points) -> tuple[float, Points]:
    """Return the largest distance of two points, and the way from the one to the other."""
    from scipy.spatial.distance import cdist  # noqa: PLC0415  (light commands come by here)

    best, line = -1.0, np.zeros(points.shape[1])
    size = max(1, PAIRS_AT_ONCE // len(points))
    for first in range(0, len(points), size):
        distances = cdist(points[first : first + size], points)
        one, other = np.unravel_index(int(distances.argmax()), distances.shape)
        if distances[one, other] > best:
            best, line = float(distances[one, other]), points[other] - points[first + one]
    return best, line
