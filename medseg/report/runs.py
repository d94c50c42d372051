"""Runs of equal labels along one axis: a label map small enough to count, join and project.

A segmentation of 100 million voxels holds a few million runs, so volumes, connected components and
the extent of every label come from one pass over the voxels, whatever the number of labels.
"""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

_CHUNK_LINES_VOXELS = 1 << 24


@dataclass(frozen=True, eq=False)
class Runs:
    """Every stretch of one non-zero label along one axis, mostly that contiguous in memory.

    Attributes:
        shape: Voxels along each axis of the label map.
        axis: The axis that runs lie along.
        others: The remaining axes, slowest first; with `coordinates` they place a line.
        line: (N,) number of the line of each run, rising.
        start: (N,) first voxel of the run on its axis.
        stop: (N,) one past the last voxel.
        label: (N,) label of the run, never 0.
    """

    shape: tuple[int, ...]
    axis: int
    others: tuple[int, ...]
    line: Ints
    start: Ints
    stop: Ints
    label: Ints

    def coordinates(self, members: Ints | slice = slice(None)) -> tuple[Ints, ...]:
        """Return the voxel index of runs along each of `others`.

        Args:
            members: Numbers of the runs; all when left out.
        """
        sizes = tuple(self.shape[axis] for axis in self.others)
        return tuple(np.unravel_index(self.line[members], sizes))


@dataclass(frozen=True, eq=False)
class Parts:
    """The connected components of all labels.

    Attributes:
        runs: Of a label map.
        component: (N,) component of each run, see `connected`.
    """

    runs: Runs
    component: Ints

    @classmethod
    def of(cls, array: npt.NDArray[Any], *, not_along: int | None = None) -> "Parts":
        """Find the components of a label map.

        Args:
            array: As `find_runs`.
            not_along: Axis that runs must not lie along.

        Returns:
            The components.
        """
        runs = find_runs(array, not_along=not_along)
        return cls(runs, connected(runs))


def find_runs(array: npt.NDArray[Any], *, not_along: int | None = None) -> Runs:
    """Find the runs of a label map.

    Args:
        array: (I, J, K) or (rows, columns) labels; integer, 0 is background.
        not_along: Axis that runs must not lie along.

    Returns:
        The runs, along the axis with the smallest stride that they may lie along.

    Examples:
        >>> import numpy as np
        >>> runs = find_runs(np.array([[0, 1, 1, 2], [2, 2, 0, 0]], np.uint8))
        >>> list(zip(runs.line.tolist(), runs.start.tolist(), runs.stop.tolist()))
        [(0, 1, 3), (0, 3, 4), (1, 0, 2)]
    """
    order = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    if order[-1] == not_along:
        order[-2:] = order[:-3:-1]
    length = array.shape[order[-1]]
    ordered = array.transpose(order)
    step = max(1, _CHUNK_LINES_VOXELS // max(1, ordered[:1].size))
    parts = [
        _runs_of_lines(ordered[first : first + step].reshape(-1, length))
        for first in range(0, len(ordered), step)
    ]
    lines_a_part = step * (ordered[:1].size // max(1, length))
    line = [part[0] + number * lines_a_part for number, part in enumerate(parts)]
    start, stop, label = (
        np.concatenate([part[field] for part in parts]) if parts else np.zeros(0, np.int64)
        for field in (1, 2, 3)
    )
    return Runs(
        shape=array.shape,
        axis=order[-1],
        others=tuple(order[:-1]),
        line=np.concatenate(line) if line else np.zeros(0, np.int64),
        start=start,
        stop=stop,
        label=label,
    )


def _runs_of_lines(lines: npt.NDArray[Any]) -> tuple[Ints, Ints, Ints, Ints]:
    """Return line, start, stop and label of the non-zero runs of (lines, length) labels."""
    count, length = lines.shape
    flat = lines.reshape(-1)
    begins = np.empty(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=begins[1:])
    begins.reshape(count, length)[:, 0] = True  # a run ends with its line
    first = np.flatnonzero(begins)
    last = np.append(first[1:], flat.size)
    label = flat[first]
    kept = label != 0
    first, last = first[kept], last[kept]
    line = first // length
    return line, first - line * length, last - line * length, label[kept].astype(np.int64)


def connected(runs: Runs) -> Ints:
    """Number the connected components of all labels at once.

    Voxels of one label that share a face, an edge or a corner are connected (26 neighbours in 3D,
    8 in 2D).

    Args:
        runs: Of a label map.

    Returns:
        (N,) component of each run, from 0 in no particular order.
    """
    from scipy.sparse import coo_array, csgraph  # noqa: PLC0415  (light commands come by here)

    total = len(runs.line)
    pairs = [_touching(runs, step) for step in product((-1, 0, 1), repeat=len(runs.others))]
    a = np.concatenate([pair[0] for pair in pairs])
    b = np.concatenate([pair[1] for pair in pairs])
    graph = coo_array((np.ones(len(a), np.bool_), (a, b)), shape=(total, total))
    _, component = csgraph.connected_components(graph, directed=False)
    return np.asarray(component, np.int64)


def _touching(runs: Runs, step: tuple[int, ...]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Pair the runs that touch a run of their label on the line `step` further."""
    nothing = np.zeros(0, np.int32)
    sizes = [runs.shape[axis] for axis in runs.others]
    offset = 0
    inside = np.ones(len(runs.line), np.bool_)
    for size, move, index in zip(sizes, step, runs.coordinates(), strict=True):
        offset = offset * size + move
        inside &= (index + move >= 0) & (index + move < size)
    if offset <= 0:  # the other direction finds the same pairs
        return nothing, nothing
    width = runs.shape[runs.axis] + 2
    starts, stops = (runs.line * width + end for end in (runs.start, runs.stop))
    here = np.flatnonzero(inside)
    target = (runs.line[here] + offset) * width
    # candidates end at or after this run's start (corners touch) and begin at or before its stop
    low = np.searchsorted(stops, target + runs.start[here], "left")
    high = np.searchsorted(starts, target + runs.stop[here], "right")
    count = np.maximum(high - low, 0)
    mine = np.repeat(here, count)
    theirs = (
        np.arange(len(mine)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(low, count)
    )
    same = runs.label[mine] == runs.label[theirs]
    return mine[same].astype(np.int32), theirs[same].astype(np.int32)


def label_profiles(runs: Runs, labels: int) -> tuple[Ints, ...]:
    """Count the voxels of each label in each plane.

    Args:
        runs: Of a label map.
        labels: Largest label.

    Returns:
        An array (labels + 1, planes) for each axis of the label map.
    """
    profiles: list[Ints] = [np.zeros(0, np.int64)] * len(runs.shape)
    length = runs.stop - runs.start
    for axis, index in zip(runs.others, runs.coordinates(), strict=True):
        size = runs.shape[axis]
        counts = np.bincount(
            runs.label * size + index, weights=length, minlength=(labels + 1) * size
        )
        profiles[axis] = counts.astype(np.int64).reshape(labels + 1, size)
    size = runs.shape[runs.axis] + 1
    rise, fall = (
        np.bincount(runs.label * size + end, minlength=(labels + 1) * size)
        for end in (runs.start, runs.stop)
    )
    profiles[runs.axis] = (rise - fall).reshape(labels + 1, size).cumsum(axis=1)[:, :-1]
    return tuple(profiles)
