"""Object instances of an image: a mask, a class and a score each, kept as run lengths."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as run_lengths

from medseg.errors import UsageError

Mask = npt.NDArray[np.bool_]

_MOST_AT_ONCE = 255
"""pycocotools 2.0.11 keeps the number of masks whose area it takes in 8 bits, and NumPy 2 refuses
more: an OverflowError."""


@dataclass(frozen=True)
class ObjectInstances:
    """The objects of one 2D image, of which some may overlap.

    A mask is kept as COCO's compressed run lengths, some hundred bytes, and is laid out when it is
    wanted: a thousand objects of a large image would be gigabytes.

    Attributes:
        size: Rows and columns of the image.
        masks: Compressed run lengths of each object, columns first, as COCO counts them.
        classes: (N,) class of each object, from 1 on.
        scores: (N,) how sure the network is, from 0 to 1; 1 in a reference.
        crowd: (N,) whether it is a region of many objects that nobody told apart: a reference
            that is neither missed nor a false alarm.
    """

    size: tuple[int, int]
    masks: tuple[bytes, ...] = ()
    classes: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    scores: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    crowd: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        """Refuse columns of different lengths.

        Raises:
            UsageError: If masks, classes, scores and crowd are not as many.
        """
        lengths = [len(self.masks), len(self.classes), len(self.scores), len(self.crowd)]
        if len(set(lengths)) > 1:
            msg = f"masks, classes, scores and crowd must be as many, got {lengths}."
            raise UsageError(msg)

    @classmethod
    def of(
        cls,
        masks: Iterable[Mask],
        classes: Sequence[int] | npt.NDArray[Any],
        *,
        size: tuple[int, int],
        scores: Sequence[float] | npt.NDArray[Any] | None = None,
        crowd: Sequence[bool] | npt.NDArray[Any] | None = None,
    ) -> "ObjectInstances":
        """Return objects of masks.

        Args:
            masks: (rows, columns) of each object, one after another; nothing keeps them.
            classes: Class of each, from 1 on.
            size: Rows and columns.
            scores: Of each; 1 when left out.
            crowd: Of each; False when left out.

        Returns:
            The objects, in the order given.

        Raises:
            UsageError: If a mask has another size, or a class is below 1.

        Examples:
            >>> square = np.zeros((4, 6), bool)
            >>> square[1:3, 2:5] = True
            >>> one = ObjectInstances.of([square], [1], size=(4, 6))
            >>> one.areas.tolist(), one.boxes.tolist()
            ([6], [[2.0, 1.0, 5.0, 3.0]])
        """
        coded = tuple(_coded(mask, size) for mask in masks)
        numbers = np.asarray(classes, np.int32).reshape(-1)
        if numbers.size and numbers.min() < 1:
            msg = f"classes must be 1 or more, got {int(numbers.min())}."
            raise UsageError(msg)
        return cls(
            size,
            coded,
            numbers,
            np.ones(len(coded), np.float32) if scores is None else np.asarray(scores, np.float32),
            np.zeros(len(coded), np.bool_) if crowd is None else np.asarray(crowd, np.bool_),
        )

    @classmethod
    def of_label_map(
        cls, labels: npt.NDArray[Any], classes: int | npt.NDArray[Any] = 1
    ) -> "ObjectInstances":
        """Return the objects of a map that holds a number for each.

        Args:
            labels: (rows, columns); 0 is background, every other value one object.
            classes: Class of all, or (rows, columns) class of each pixel: an object has the class
                that most of its pixels have, 0 left out.

        Returns:
            The objects, by rising number. One whose pixels are all of class 0 is left out.

        Examples:
            >>> ObjectInstances.of_label_map(np.array([[0, 7, 7], [3, 0, 7]])).areas.tolist()
            [1, 3]
        """
        found, of_class = [], []
        for number, part in parts_of(labels):
            inside = labels[part] == number
            chosen = classes if isinstance(classes, int) else _most_common(classes[part][inside])
            if chosen:
                corner = part[0].start, part[1].start
                found.append(coded_part(inside, corner, labels.shape))
                of_class.append(chosen)
        rows, columns = labels.shape
        count = len(found)
        return cls(
            (int(rows), int(columns)),
            tuple(found),
            np.array(of_class, np.int32),
            np.ones(count, np.float32),
            np.zeros(count, np.bool_),
        )

    def __len__(self) -> int:
        """Return how many objects there are."""
        return len(self.masks)

    @property
    def coco(self) -> list[dict[str, Any]]:
        """Run lengths as pycocotools takes them."""
        return [{"size": list(self.size), "counts": mask} for mask in self.masks]

    @cached_property
    def areas(self) -> npt.NDArray[np.int64]:
        """(N,) pixels of each object."""
        found = [run_lengths.area(part) for part in _batched(self.coco)]
        return np.concatenate([np.zeros(0, np.int64), *found]).astype(np.int64)

    @cached_property
    def boxes(self) -> npt.NDArray[np.float32]:
        """(N, 4) x0, y0, x1, y1 of each object; pixels, the ends not within."""
        if not self.masks:
            return np.zeros((0, 4), np.float32)
        boxes = np.asarray(run_lengths.toBbox(self.coco), np.float32)
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    def mask(self, number: int) -> Mask:
        """Return the mask of one object, (rows, columns).

        Args:
            number: Place of the object, from 0.
        """
        coded = {"size": list(self.size), "counts": self.masks[number]}
        return np.asarray(run_lengths.decode(coded)).astype(np.bool_)

    def chosen(self, which: npt.NDArray[Any] | Sequence[int]) -> "ObjectInstances":
        """Return some of the objects.

        Args:
            which: Their places, or (N,) booleans.
        """
        index = np.asarray(which)
        places = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64)
        return ObjectInstances(
            self.size,
            tuple(self.masks[place] for place in places),
            self.classes[places],
            self.scores[places],
            self.crowd[places],
        )

    def iou(self, other: "ObjectInstances") -> npt.NDArray[np.float64]:
        """Return the overlap of each object with each of another image.

        Args:
            other: Objects of an image of this size.

        Returns:
            (N, M) intersection over union; over the area of this object alone where the other is
            a crowd.

        Raises:
            UsageError: If the images have different sizes.
        """
        if self.size != other.size:
            msg = f"size of both images must be the same, got {self.size} and {other.size}."
            raise UsageError(msg)
        if not len(self) or not len(other):
            return np.zeros((len(self), len(other)))
        crowd = other.crowd.astype(np.uint8).tolist()
        return np.asarray(run_lengths.iou(self.coco, other.coco, crowd), np.float64)

    def label_map(self) -> npt.NDArray[np.int32]:
        """Return a map with the number of the object in each pixel, (rows, columns).

        Returns:
            0 is background, object `i` has the number `i + 1`. Where objects overlap, the one with
            the higher score is seen; of equal scores the smaller, so that it is not hidden.
        """
        labels = np.zeros(self.size, np.int32)
        boxes = self.boxes.astype(np.int64)
        for place in np.lexsort((-self.areas, self.scores)):
            x0, y0, x1, y1 = boxes[place]
            part = labels[y0:y1, x0:x1]
            part[self.mask(int(place))[y0:y1, x0:x1]] = place + 1
        return labels


def _batched(masks: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(masks), _MOST_AT_ONCE):
        yield masks[start : start + _MOST_AT_ONCE]


def _coded(mask: npt.NDArray[Any], size: tuple[int, ...]) -> bytes:
    if mask.shape != tuple(size):
        msg = f"mask must have the size of its image, got {mask.shape} and {tuple(size)}."
        raise UsageError(msg)
    coded = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    return bytes(coded["counts"])


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
        >>> coded_part(whole[1:5, 2:], (1, 2), (5, 6)) == _coded(whole, (5, 6))
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
    coded = run_lengths.frPyObjects({"size": [rows, columns], "counts": counts}, rows, columns)
    return bytes(coded["counts"])


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


def _most_common(values: npt.NDArray[Any]) -> int:
    counts = np.bincount(values[values > 0].astype(np.int64))
    return int(counts.argmax()) if counts.size else 0
