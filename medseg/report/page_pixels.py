"""An image and its labels as a browser decodes them: pictures of slices, and deflated labels.

The file has to open at once from a CD, so it has a budget: quality is given up first, then every
second voxel along the finest axis. Labels are exact for the voxels that are kept.
"""

import io
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import cpu_count
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.report.page_levels import Levels

BUDGET_BYTES = 10_500_000
"""Of image and labels before base64, which adds a third: the file stays under 15 MB."""
LOSSLESS_VALUES = 4_000_000
"""An image of no more values than this is kept as PNG."""
QUALITIES = (95, 90, 85, 80, 75, 70, 65, 60, 50, 40, 30)
"""Of JPEG, tried in this order."""
LARGEST_VOXELS = 160_000_000
LARGEST_SLICE = 4096 * 4096
LARGEST_SIDE_BITS = 13
"""What browsers of tablets decode: voxels in all, pixels of a slice, and of its sides (8192)."""
BETTER = 0.85
"""Another axis is cut if its slices need less than this share of the bytes."""

_CHUNK_VOXELS = 1 << 22
_SAMPLED_SLICES = 6
_DEFLATE_LEVEL = 1

Array = npt.NDArray[Any]
Steps = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Stack:
    """An image and its labels, cut into slices.

    Attributes:
        image: (I, J, K) or (I, J, K, 3) intensities of the voxels that are kept.
        labels: (I, J, K) their labels.
        steps: Distance between kept voxels along each axis; 1 where all are kept.
        order: Axis of the slices, of their rows, and of their columns.
    """

    image: Array
    labels: Array
    steps: Steps
    order: tuple[int, int, int]

    @property
    def count(self) -> int:
        """Number of slices."""
        return int(self.labels.shape[self.order[0]])

    def image_slice(self, index: int) -> Array:
        """Return the image of one slice, (rows, columns) or (rows, columns, 3).

        Args:
            index: Number of the slice.
        """
        rest = range(3, self.image.ndim)
        return np.asarray(self.image.transpose(*self.order, *rest)[index])

    def label_slices(self, start: int, stop: int) -> Array:
        """Return the labels of some slices, (slices, rows, columns).

        Args:
            start: The first slice.
            stop: One past the last.
        """
        return self.labels.transpose(self.order)[start:stop]


@dataclass(frozen=True)
class Chunk:
    """Some slices that follow each other, encoded.

    Attributes:
        first: Number of the first slice.
        labels: Their labels, deflated; see `deflate`.
        slices: A picture each.
    """

    first: int
    labels: bytes
    slices: tuple[bytes, ...]


@dataclass(frozen=True, eq=False)
class Encoded:
    """What a page holds of an image.

    Attributes:
        stack: The voxels that are kept.
        quality: Of JPEG; 0 for PNG, which is without loss.
        error: Mean difference of what is decoded to the image, as far as it can be told from some
            slices; intensity. 0 for PNG.
        chunks: All slices, in their order.
        kind: Type in which labels are kept.
    """

    stack: Stack
    quality: int
    error: float
    chunks: tuple[Chunk, ...]
    kind: np.dtype[Any]


def label_type(largest: int) -> np.dtype[Any]:
    """Return the type in which labels are kept.

    Args:
        largest: Largest label.
    """
    return np.dtype(np.uint8 if largest < 1 << 8 else np.uint16 if largest < 1 << 16 else np.uint32)


def deflate(labels: Array, kind: np.dtype[Any]) -> bytes:
    """Compress labels without loss.

    Each row is stored as the bits in which it differs from the row above (exclusive or): labels
    seldom change from one row to the next. The first row of each slice is stored as it is.

    Args:
        labels: (slices, rows, columns).
        kind: Type to keep them in; little-endian.

    Returns:
        A zlib stream.

    Examples:
        >>> import zlib
        >>> stored = zlib.decompress(deflate(np.full((1, 2, 3), 7), np.dtype(np.uint8)))
        >>> list(stored)
        [7, 7, 7, 0, 0, 0]
    """
    from isal import isal_zlib  # noqa: PLC0415  (light commands come by here)

    stored = labels.astype(kind.newbyteorder("<"), order="C")
    stored[:, 1:] ^= labels[:, :-1].astype(stored.dtype)
    return bytes(isal_zlib.compress(stored.data, _DEFLATE_LEVEL))


def picture(levels: npt.NDArray[np.uint8], quality: int) -> bytes:
    """Encode levels as a JPEG, or as a PNG where the quality is 0.

    Args:
        levels: (rows, columns) or (rows, columns, 3).
        quality: Of JPEG, 1 to 95.

    Returns:
        The file.
    """
    from PIL import Image  # noqa: PLC0415  (light commands come by here)

    image, file = Image.fromarray(np.ascontiguousarray(levels)), io.BytesIO()
    if quality:
        image.save(file, "JPEG", quality=quality, subsampling=0)
    else:
        image.save(file, "PNG")
    return file.getvalue()


def encode(image: Array, labels: Array, spacing_mm: Sequence[float], levels: Levels) -> Encoded:
    """Encode an image and its labels within the budget.

    Args:
        image: (I, J, K) or (I, J, K, 3) intensities.
        labels: (I, J, K).
        spacing_mm: Distance of voxels along each axis; mm.
        levels: What levels stand for.

    Returns:
        The first grid that fits, and the best quality that fits on it.
    """
    kind = label_type(int(labels.max(initial=0)))
    steps = _within_limits(labels.shape, spacing_mm)
    with ThreadPoolExecutor(min(8, cpu_count() or 1)) as pool:
        while True:
            encoded = _encoded_on(_stack(image, labels, steps, levels), kind, levels, pool)
            if encoded is not None:
                return encoded
            steps = _coarser(labels.shape, steps, spacing_mm)


def _within_limits(shape: Sequence[int], spacing_mm: Sequence[float]) -> Steps:
    i, j, k = (1 << max(0, (n - 1).bit_length() - LARGEST_SIDE_BITS) for n in shape)
    steps: Steps = (i, j, k)
    while True:
        kept = sorted(_kept(shape, steps))
        if math.prod(kept) <= LARGEST_VOXELS and kept[1] * kept[2] <= LARGEST_SLICE:
            return steps
        steps = _coarser(shape, steps, spacing_mm)


def _kept(shape: Sequence[int], steps: Steps) -> list[int]:
    return [-(-n // step) for n, step in zip(shape, steps, strict=True)]


def _coarser(shape: Sequence[int], steps: Steps, spacing_mm: Sequence[float]) -> Steps:
    """Double the step of the axis with the finest grid; of two alike, of the longer."""
    kept = _kept(shape, steps)
    axis = min(
        (a for a in range(3) if kept[a] > 1),
        key=lambda a: (round(spacing_mm[a] * steps[a], 3), -kept[a]),
    )
    i, j, k = (step * 2 if a == axis else step for a, step in enumerate(steps))
    return i, j, k


def _stack(image: Array, labels: Array, steps: Steps, levels: Levels) -> Stack:
    """Cut along the axis whose slices need the fewest bytes."""
    every = tuple(slice(None, None, step) for step in steps)
    image, labels = image[every], labels[every]
    axes = sorted(range(3), key=lambda axis: -abs(image.strides[axis]))
    stacks = []
    for first in axes:
        rows, columns = (axis for axis in axes if axis != first)
        stacks.append(Stack(image, labels, steps, (first, rows, columns)))
    needed = [_estimate(stack, levels, 80, 3)[0] for stack in stacks]
    best = min(range(3), key=needed.__getitem__)
    return stacks[best if needed[best] < BETTER * needed[0] else 0]  # the first is read fastest


def _estimate(stack: Stack, levels: Levels, quality: int, samples: int) -> tuple[float, float]:
    """Return bytes of all slices, and the mean error of intensities, judged by some of them."""
    from PIL import Image  # noqa: PLC0415

    places = np.unique(np.linspace(0, stack.count - 1, samples + 2).astype(int)[1:-1])
    size, error = 0, 0.0
    for place in places:
        shown = levels.encode(stack.image_slice(int(place)))
        file = picture(shown, quality)
        size += len(file)
        if quality:
            decoded = np.asarray(Image.open(io.BytesIO(file)))
            error += float(np.abs(levels.values[decoded] - levels.values[shown]).mean())
    return size * stack.count / len(places), error / len(places)


def _encoded_on(
    stack: Stack, kind: np.dtype[Any], levels: Levels, pool: ThreadPoolExecutor
) -> Encoded | None:
    """Encode all slices at the best quality that fits; None where none does."""
    count = stack.count
    at_once = max(1, _CHUNK_VOXELS * count // max(1, stack.labels.size))
    starts = range(0, count, at_once)
    labels = list(
        pool.map(lambda n: deflate(stack.label_slices(n, min(n + at_once, count)), kind), starts)
    )
    budget = BUDGET_BYTES - sum(map(len, labels))
    lossless = (0,) if stack.image.size <= LOSSLESS_VALUES else ()
    for quality in (*lossless, *QUALITIES):
        needed, error = _estimate(stack, levels, quality, _SAMPLED_SLICES)
        if needed > budget:
            continue
        slices = list(
            pool.map(
                lambda n, q=quality: picture(levels.encode(stack.image_slice(n)), q), range(count)
            )
        )
        if sum(map(len, slices)) <= budget:
            chunks = (
                Chunk(start, part, tuple(slices[start : start + at_once]))
                for start, part in zip(starts, labels, strict=True)
            )
            return Encoded(stack, quality, error, tuple(chunks), kind)
    return None
