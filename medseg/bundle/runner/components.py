"""Connected parts of a mask, by its runs along the last axis."""

from itertools import product

import numpy as np

from medseg.bundle.runner.grid import Array


def largest_component(mask: Array) -> Array:
    """Return the largest connected part of a mask, of equal ones the first.

    Args:
        mask: (I, J, K) or (rows, columns); bool.

    Returns:
        The same shape. Voxels that touch by a face, an edge or a corner are connected.
    """
    line, start, stop = _runs(mask)
    if not len(line):
        return mask
    root = _roots(mask.shape, line, start, stop, corners=True)
    sizes = np.bincount(root, weights=stop - start)
    return _painted(mask.shape, line, start, stop, root == sizes.argmax())


def fill_holes(mask: Array) -> Array:
    """Return a mask with what it encloses; background is connected by faces.

    Args:
        mask: (I, J, K) or (rows, columns); bool.

    Returns:
        The same shape.
    """
    line, start, stop = _runs(~mask)
    root = _roots(mask.shape, line, start, stop, corners=False)
    lead = mask.shape[:-1]
    places = np.stack(np.unravel_index(line, lead))
    ends = np.array(lead)[:, None] - 1
    at_edge = ((places == 0) | (places == ends)).any(0) | (start == 0) | (stop == mask.shape[-1])
    outside = np.isin(root, root[at_edge])
    return ~_painted(mask.shape, line, start, stop, outside)


def _runs(mask: Array) -> tuple[Array, Array, Array]:
    """Return line, first voxel and one past the last of each run, in the order of the array."""
    lines = np.pad(mask.reshape(-1, mask.shape[-1]), ((0, 0), (1, 1)))
    line, start = np.nonzero(lines[:, 1:] & ~lines[:, :-1])
    _, stop = np.nonzero(lines[:, :-1] & ~lines[:, 1:])
    return line, start, stop


def _painted(shape: tuple[int, ...], line: Array, start: Array, stop: Array, kept: Array) -> Array:
    """Return the mask of some runs."""
    marks = np.zeros((int(np.prod(shape[:-1])), shape[-1] + 1), np.int8)
    marks[line[kept], start[kept]] = 1
    marks[line[kept], stop[kept]] = -1
    return marks.cumsum(axis=1, dtype=np.int8)[:, :-1].reshape(shape).astype(bool)


def _roots(
    shape: tuple[int, ...], line: Array, start: Array, stop: Array, *, corners: bool
) -> Array:
    """Return for each run the first run that it is connected with."""
    root = np.arange(len(line))
    pairs = [
        _touching(shape, line, start, stop, shift, int(corners))
        for shift in product((-1, 0, 1), repeat=len(shape) - 1)
        if shift > (0,) * len(shift) and (corners or sum(map(abs, shift)) == 1)
    ]
    one, other = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    while True:
        least = np.minimum(root[one], root[other])
        joined = root.copy()
        np.minimum.at(joined, root[one], least)
        np.minimum.at(joined, root[other], least)
        while not np.array_equal(joined, joined[joined]):
            joined = joined[joined]
        if np.array_equal(joined, root):
            return root
        root = joined[root]


def _touching(
    shape: tuple[int, ...],
    line: Array,
    start: Array,
    stop: Array,
    shift: tuple[int, ...],
    reach: int,
) -> tuple[Array, Array]:
    """Return pairs of runs that touch, the second in the line that lies `shift` further."""
    lead = shape[:-1]
    places = np.stack(np.unravel_index(line, lead)) + np.array(shift)[:, None]
    runs = np.flatnonzero(((places >= 0) & (places < np.array(lead)[:, None])).all(0))
    beside = np.ravel_multi_index(tuple(places[:, runs]), lead)
    width = shape[-1] + 2
    first = np.searchsorted(line * width + stop, beside * width + start[runs] - reach, "right")
    last = np.searchsorted(line * width + start, beside * width + stop[runs] + reach, "left")
    counts = np.maximum(last - first, 0)
    within = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    return np.repeat(runs, counts), np.repeat(first, counts) + within
