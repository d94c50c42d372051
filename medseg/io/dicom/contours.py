"""Outlines of a mask, plane by plane: closed, with holes cut in through a slit."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import find_contours

Points = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

STRAIGHT = 1e-9
"""Turn, in pixels squared, below which three points lie on a line."""


def outlines(mask: Mask) -> Iterator[Points]:
    """Yield the outlines of a plane, one for each part that hangs together by its sides.

    They run halfway between pixels within and without, so that the centres of just the pixels of
    the mask lie inside. Holes are joined to the outline around them by a slit of no width (a
    keyhole), which every reader fills alike; parts within a hole are outlines of their own.

    Args:
        mask: (rows, columns).

    Yields:
        (N, 2) rows and columns of the corners, N at least 3, the first not repeated.

    Examples:
        >>> [len(points) for points in outlines(np.eye(3, dtype=bool))]
        [4, 4, 4]
    """
    parts, _ = ndimage.label(mask)
    for number, box in enumerate(ndimage.find_objects(parts), start=1):
        inside = np.pad(parts[box] == number, 1)
        # of pixels that touch at a corner the ones of the mask are apart, as labelled above
        found = find_contours(inside.astype(np.float32), 0.5, fully_connected="low")
        outer, *holes = sorted((loop[:-1] for loop in found), key=_area, reverse=True)
        corners = _straightened(_joined(outer, holes, inside))
        yield corners + np.array([box[0].start - 1, box[1].start - 1])


def _area(loop: Points) -> float:
    rows, columns = loop.T
    return float(abs(np.dot(rows, np.roll(columns, 1)) - np.dot(columns, np.roll(rows, 1))) / 2)


def _straightened(loop: Points) -> Points:
    """Leave out points on the way from the one before straight on to the next."""
    before, after = loop - np.roll(loop, 1, axis=0), np.roll(loop, -1, axis=0) - loop
    turns = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    ahead = (before * after).sum(axis=1) > 0  # a slit is gone back along
    kept: Points = loop[~(ahead & (np.abs(turns) < STRAIGHT))]
    return kept


def _joined(outer: Points, holes: Sequence[Points], inside: Mask) -> Points:
    """Cut holes into an outline, each from its leftmost point straight to what is left of it."""
    loops = [outer, *holes]
    place_of = {
        (float(row), float(column)): (number, place)
        for number, loop in enumerate(loops)
        for place, (row, column) in enumerate(loop)
    }
    slits: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for number, hole in enumerate(holes, start=1):
        on_rows = np.flatnonzero(hole[:, 0] % 1 == 0)
        at = int(on_rows[hole[on_rows, 1].argmin()])
        row, column = hole[at]
        without = np.flatnonzero(~inside[int(row), : int(np.floor(column)) + 1])
        slits.setdefault(place_of[float(row), float(without[-1]) + 0.5], []).append((number, at))
    return _walked(loops, slits)


def _walked(loops: Sequence[Points], slits: dict[tuple[int, int], list[tuple[int, int]]]) -> Points:
    """Return the corners as a pen meets them that follows the first loop and enters every slit.

    Args:
        loops: Corners of each.
        slits: Loop and corner, to the loops that are entered there and the corner they begin at.
    """
    corners = []
    first = ((0, place) for place in range(len(loops[0])))
    ways: list[Iterator[tuple[int, int]]] = [iter(first)]
    while ways:
        here = next(ways[-1], None)
        if here is None:
            ways.pop()
            continue
        corners.append(loops[here[0]][here[1]])
        for hole, at in slits.pop(here, []):
            count = len(loops[hole])
            there = [(hole, (at + step) % count) for step in range(count + 1)]
            ways.append(iter([*there, here]))
    return np.array(corners)


def to_patient(
    points: Points, position: Any, orientation: Any, spacing: Any
) -> npt.NDArray[np.float64]:
    """Return where points of a slice lie in the patient.

    Args:
        points: (N, 2) rows and columns, of pixel centres.
        position: ImagePositionPatient.
        orientation: ImageOrientationPatient.
        spacing: PixelSpacing, between rows and between columns; mm.

    Returns:
        (N, 3) in LPS mm.
    """
    along, down = np.asarray(orientation, np.float64).reshape(2, 3)
    rows, columns = points.T[:, :, None]
    between_rows, between_columns = (float(value) for value in spacing)
    offsets = columns * between_columns * along + rows * between_rows * down
    return np.asarray(np.asarray(position, np.float64) + offsets)
