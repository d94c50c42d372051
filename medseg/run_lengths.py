"""COCO's run lengths: a mask as the lengths of its runs of pixels, columns first."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from medseg.errors import UsageError

Mask = npt.NDArray[np.bool_]

MOST_AT_ONCE = 255
"""pycocotools 2.0.11 keeps the number of masks whose area it takes in 8 bits, and NumPy 2 refuses
more: an OverflowError."""


def coded(mask: npt.NDArray[Any], size: tuple[int, ...]) -> bytes:
    """Return the run lengths of a mask.

    Args:
        mask: (rows, columns).
        size: Rows and columns that it has to have.

    Returns:
        Compressed run lengths.

    Raises:
        UsageError: If it has another size.
    """
    if mask.shape != tuple(size):
        msg = f"mask must have the size of its image, got {mask.shape} and {tuple(size)}."
        raise UsageError(msg)
    found = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return bytes(found["counts"])


def areas(masks: Sequence[bytes], size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Return the pixels of each mask.

    Args:
        masks: Compressed run lengths.
        size: Rows and columns.
    """
    every = [{"size": list(size), "counts": mask} for mask in masks]
    found = [
        coco.area(every[start : start + MOST_AT_ONCE])
        for start in range(0, len(every), MOST_AT_ONCE)
    ]
    return np.concatenate([np.zeros(0, np.int64), *found]).astype(np.int64)


def coded_part(part: Mask, corner: tuple[int, int], size: tuple[int, ...]) -> bytes:
    """Return the run lengths of a mask of which a part is given, in the time of the part.

    Args:
        part: (rows, columns) of a box; outside of it the mask is empty.
        corner: Row and column of the part's first pixel.
        size: Rows and columns of the image.

    Returns:
        Compressed run lengths, as `pycocotools` makes them of the whole mask.

    Raises:
        UsageError: If the part reaches beyond the image.

    Examples:
        >>> whole = np.zeros((5, 6), bool)
        >>> whole[2:4, 3:6] = True
        >>> coded_part(whole[1:5, 2:], (1, 2), (5, 6)) == coded(whole, (5, 6))
        True
    """
    (top, left), (rows, columns) = corner, size
    if min(corner) < 0 or top + part.shape[0] > rows or left + part.shape[1] > columns:
        msg = f"part must lie in its image of {rows}x{columns}, got {part.shape} at {corner}."
        raise UsageError(msg)
    framed = np.zeros((part.shape[1], part.shape[0] + 2), np.int8)  # a column a row
    framed[:, 1:-1] = part.T
    steps = np.diff(framed, axis=1)
    starts, ends = (
        (left + column) * rows + top + row
        for column, row in (np.nonzero(steps == 1), np.nonzero(steps == -1))
    )
    apart = starts[1:] != ends[:-1]  # a run over the end of a column goes on in the next
    starts, ends = starts[np.r_[True, apart][: starts.size]], ends[np.r_[apart, True][: ends.size]]
    edges = np.stack([starts, ends], axis=1).reshape(-1)
    counts = np.diff(np.r_[0, edges, rows * columns]).tolist()
    if len(counts) > 1 and not counts[-1]:
        counts.pop()
    found = coco.frPyObjects({"size": [rows, columns], "counts": counts}, rows, columns)
    return bytes(found["counts"])


def runs_of(mask: bytes) -> list[list[int]]:
    """Return where each run of an object starts and ends, columns first.

    Args:
        mask: Compressed run lengths.

    Returns:
        First pixel and the one after the last, counted columns first.

    A mask laid out costs as much as its image; its runs cost as much as its outline.

    Source: pycocotools `maskApi.c`, `rleToString`: the lengths, those after the third as
    differences to the second before, in digits of five bits from the lowest, with a sixth for
    "more follows", as characters from 48 on.
    """
    digits = np.frombuffer(mask, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero((digits & 0x20) == 0)  # digit of each number
    first = np.r_[0, last[:-1] + 1][: last.size]
    count = last - first + 1
    place = np.arange(digits.size) - np.repeat(first, count)
    lengths = np.add.reduceat((digits & 0x1F) << (5 * place), first) if last.size else last
    lengths = lengths - np.where(digits[last] & 0x10, np.int64(1) << (5 * count), 0)
    for chain in (lengths[1::2], lengths[2::2]):
        np.cumsum(chain, out=chain)
    edges = np.cumsum(lengths)
    return edges[: edges.size // 2 * 2].reshape(-1, 2).tolist()


def parts_of(labels: npt.NDArray[Any]) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Yield each number of a map with the rows and columns that hold it.

    Args:
        labels: (rows, columns); 0 is background.

    Yields:
        The number, and the rows and columns from its first to its last, by rising number.
    """
    rows, columns = np.nonzero(labels)
    numbers = labels[rows, columns]
    order = np.argsort(numbers, kind="stable")
    numbers, rows, columns = numbers[order], rows[order], columns[order]
    changes = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
    edges = [0, *changes.tolist(), numbers.size] if numbers.size else []
    for start, end in pairwise(edges):
        r, c = rows[start:end], columns[start:end]
        part = (slice(int(r.min()), int(r.max()) + 1), slice(int(c.min()), int(c.max()) + 1))
        yield int(numbers[start]), part


def hidden_shares(
    masks: Sequence[bytes], size: tuple[int, int], most: float
) -> npt.NDArray[np.float64]:
    """Return the share of each mask that lies in those before it.

    Args:
        masks: Compressed run lengths.
        size: Rows and columns.
        most: A mask of which a larger share is hidden does not hide others.

    Returns:
        (N,) 0 to 1; 1 of an empty mask.

    Examples:
        >>> one, two = np.eye(2, dtype=bool), np.ones((2, 2), bool)
        >>> masks = [coded(mask, (2, 2)) for mask in (one, two, two)]
        >>> hidden_shares(masks, (2, 2), 0.4).tolist(), hidden_shares(masks, (2, 2), 0.5).tolist()
        ([0.0, 0.5, 0.5], [0.0, 0.5, 1.0])
    """
    taken = np.zeros(size[0] * size[1], np.bool_)
    shares = np.ones(len(masks))
    for place, (mask, area) in enumerate(zip(masks, areas(masks, size).tolist(), strict=True)):
        runs = runs_of(mask)
        if area:
            shares[place] = sum(np.count_nonzero(taken[start:end]) for start, end in runs) / area
        for start, end in runs if shares[place] <= most else ():
            taken[start:end] = True
    return shares
