"""Object instances of an image: a mask, a class and a score each, kept as run lengths."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from medseg import run_lengths
from medseg.errors import UsageError
from medseg.run_lengths import Mask
from medseg.volume import Segmentation

ANY_CLASS = 0
"""Class of a crowd where objects of any class may be."""

MOST_HIDDEN = 0.7
"""Share of a mask in surer objects above which it lies within one, or is a double of several."""

AT_ONCE = 512
"""Objects whose overlaps with all others are held at a time."""

PLACES = 1 << 16
"""Numbers that the objects of one class can have in `layers`."""


@dataclass(frozen=True)
class ObjectInstances:
    """The objects of one 2D image, of which some may overlap.

    A mask is kept as COCO's compressed run lengths, some hundred bytes, and is laid out when it is
    wanted: a thousand objects of a large image would be gigabytes.

    Attributes:
        size: Rows and columns of the image.
        masks: Compressed run lengths of each object, columns first, as COCO counts them.
        classes: (N,) class of each object, from 1 on; 0 of a crowd that may be of any class.
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
        coded = tuple(run_lengths.coded(mask, size) for mask in masks)
        return cls._of_coded(coded, classes, size, scores, crowd)

    @classmethod
    def _of_coded(
        cls,
        coded: tuple[bytes, ...],
        classes: Sequence[int] | npt.NDArray[Any],
        size: tuple[int, int],
        scores: Sequence[float] | npt.NDArray[Any] | None,
        crowd: Sequence[bool] | npt.NDArray[Any] | None,
    ) -> "ObjectInstances":
        numbers = np.asarray(classes, np.int32).reshape(-1)
        regions = np.zeros(len(coded), np.bool_) if crowd is None else np.asarray(crowd, np.bool_)
        least = np.where(regions, ANY_CLASS, 1) if len(regions) == len(numbers) else 1
        if (numbers < least).any():
            msg = f"classes must be 1 or more, got {int(numbers.min())}."
            raise UsageError(msg)
        return cls(
            size,
            coded,
            numbers,
            np.ones(len(coded), np.float32) if scores is None else np.asarray(scores, np.float32),
            regions,
        )

    def of_class(self, number: int) -> "ObjectInstances":
        """Return the objects of one class, and the crowds that may be of it.

        Args:
            number: The class.
        """
        may_be = self.crowd & (self.classes == ANY_CLASS)
        return self.chosen((self.classes == number) | may_be)

    @classmethod
    def of_crops(
        cls,
        crops: Iterable[tuple[Mask, int, int]],
        classes: Sequence[int] | npt.NDArray[Any],
        *,
        size: tuple[int, int],
        scores: Sequence[float] | npt.NDArray[Any] | None = None,
    ) -> "ObjectInstances":
        """Return objects of masks that reach over a part of the image each.

        No mask of the whole image is made, so that an object costs what its own box does.

        Args:
            crops: Mask of each object, and the row and column of its first pixel; what lies
                beyond the image is left out.
            classes: As `of`.
            size: As `of`.
            scores: As `of`.

        Returns:
            The objects, in the order given.

        Raises:
            UsageError: If a class is below 1.

        Examples:
            >>> crop = np.ones((2, 3), bool)
            >>> ObjectInstances.of_crops([(crop, -1, 4)], [1], size=(4, 6)).boxes.tolist()
            [[4.0, 0.0, 6.0, 1.0]]
        """
        coded = tuple(_coded_crop(mask, (row, column), size) for mask, row, column in crops)
        return cls._of_coded(coded, classes, size, scores, None)

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
        for number, part in run_lengths.parts_of(labels):
            inside = labels[part] == number
            chosen = classes if isinstance(classes, int) else _most_common(classes[part][inside])
            if chosen:
                corner = part[0].start, part[1].start
                found.append(run_lengths.coded_part(inside, corner, labels.shape))
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

    @classmethod
    def of_layers(cls, layers: npt.NDArray[Any]) -> "ObjectInstances":
        """Return the objects of what `layers` made, or of a part of it.

        Args:
            layers: (layers, rows, columns).

        Returns:
            The objects, layer by layer, by class and number.
        """
        coded, classes, crowd = [], [], []
        for layer in layers:
            for code, part in run_lengths.parts_of(layer):
                corner = (part[0].start, part[1].start)
                coded.append(run_lengths.coded_part(layer[part] == code, corner, layer.shape))
                classes.append(abs(code) // PLACES)
                crowd.append(code < 0)
        size = (int(layers.shape[1]), int(layers.shape[2]))
        return cls._of_coded(tuple(coded), classes, size, None, crowd)

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
        return run_lengths.areas(self.masks, self.size)

    @cached_property
    def boxes(self) -> npt.NDArray[np.float32]:
        """(N, 4) x0, y0, x1, y1 of each object; pixels, the ends not within."""
        if not self.masks:
            return np.zeros((0, 4), np.float32)
        boxes = np.asarray(coco.toBbox(self.coco), np.float32)
        boxes[:, 2:] += boxes[:, :2]
        return boxes

    def mask(self, number: int) -> Mask:
        """Return the mask of one object, (rows, columns).

        Args:
            number: Place of the object, from 0.
        """
        coded = {"size": list(self.size), "counts": self.masks[number]}
        return np.asarray(coco.decode(coded)).astype(np.bool_)

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

    def without_doubles(self) -> "ObjectInstances":
        """Return the objects, the surest first, with lower scores for those found before.

        A network may find a thing a second time, or two neighbours once more together. The score of
        what lies for over 0.7 of its pixels in surer objects of its class, and not in a single
        larger one, is multiplied by the share that does not.

        Source: Bodla et al., Soft-NMS, ICCV 2017, the linear form, of masks and their areas here.
        """
        scores, order = self.scores.copy(), np.lexsort((self.areas, -self.scores))
        order = order[~self._nested()[order]]
        for number in np.unique(self.classes):
            own = order[self.classes[order] == number]
            masks = [self.masks[place] for place in own]
            hidden = run_lengths.hidden_shares(masks, self.size, MOST_HIDDEN)
            scores[own] *= np.where(hidden > MOST_HIDDEN, 1 - hidden, 1)
        return replace(self, scores=scores).chosen(np.argsort(-scores, kind="stable"))

    def _nested(self) -> npt.NDArray[np.bool_]:
        """Return which objects lie for over 0.7 of their pixels in a surer and larger one."""
        if len(self) < 2 or self.scores.min() == self.scores.max():
            return np.zeros(len(self), np.bool_)
        nested, objects = np.zeros(len(self), np.bool_), self.coco
        for start in range(0, len(self), AT_ONCE):  # rows of the table of all pairs
            some = slice(start, start + AT_ONCE)
            # as crowds: over the area of the first
            within = np.asarray(coco.iou(objects[some], objects, [1] * len(self)))
            surer = self.scores[None] > self.scores[some, None]
            larger = self.areas[None] > self.areas[some, None]
            nested[some] = (surer & larger & (within > MOST_HIDDEN)).any(axis=1)
        return nested & ~self.crowd

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
        return np.asarray(coco.iou(self.coco, other.coco, crowd), np.float64)

    def label_map(self, *, nested_on_top: bool = False) -> npt.NDArray[np.int32]:
        """Return a map with the number of the object in each pixel, (rows, columns).

        Args:
            nested_on_top: An object that lies for over 0.7 in a larger one is seen, though that is
                the surer.

        Returns:
            0 is background, object `i` has the number `i + 1`. Where objects overlap, the one with
            the higher score is seen; of equal scores the smaller, so that it is not hidden.
        """
        rows, columns = self.size
        labels = np.zeros(rows * columns, np.int32)  # columns first, as the runs are
        nested = self._nested() if nested_on_top else np.zeros(len(self), np.bool_)
        order = np.lexsort((-self.areas, np.where(nested, 0, self.scores), nested))
        for place in order:
            for start, end in run_lengths.runs_of(self.masks[place]):
                labels[start:end] = place + 1
        return np.ascontiguousarray(labels.reshape(columns, rows).T)

    def painted(self, values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return a map with a value of the object in each pixel, those within others on top.

        Args:
            values: (N,) of each object.

        Returns:
            (rows, columns), 0 where there is nothing.
        """
        table = np.zeros(len(self) + 1, np.int32)
        table[1:] = values
        return np.asarray(table[self.label_map(nested_on_top=True)])

    def layers(self) -> npt.NDArray[np.int32]:
        """Return maps that hold every pixel of every object, one layer where none overlap.

        They can be cropped, flipped and turned as any label of an image, and `of_layers` reads
        what is left of the objects. Scores are not kept.

        Returns:
            (layers, rows, columns), at least one layer: 0 where there is nothing, else the class
            times 65536 and the number of the object, from 1 on; negative of a crowd.

        Raises:
            UsageError: If there are more than 65535 objects, or classes beyond 32767.
        """
        if len(self) >= PLACES or (len(self) and self.classes.max() >= PLACES // 2):
            most = int(self.classes.max())
            msg = (
                "objects must be at most 65535 and their classes at most 32767, got"
                f" {len(self)} and {most}."
            )
            raise UsageError(msg)
        layers = [np.zeros(self.size, np.int32)]
        boxes = self.boxes.astype(np.int64)
        for place, (x0, y0, x1, y1) in enumerate(boxes):
            inside = self.mask(place)[y0:y1, x0:x1]
            free = (layer[y0:y1, x0:x1] for layer in layers)
            part = next((part for part in free if not part[inside].any()), None)
            if part is None:
                layers.append(np.zeros(self.size, np.int32))
                part = layers[-1][y0:y1, x0:x1]
            code = int(self.classes[place]) * PLACES + place + 1
            part[inside] = -code if self.crowd[place] else code
        return np.stack(layers)


@dataclass(frozen=True, repr=False)
class ObjectSegmentation(Segmentation):
    """The objects of a case, on the grid of its source; `array` holds the class of each voxel.

    Attributes:
        slices: Objects of the image; of a volume those of each slice of the last axis, with rows
            along its second axis and columns along its first.
        numbers: Number of the object, from 1 on, that each of a slice's belongs to: an object of a
            volume has the same number in all its slices.
        candidates: Objects of each slice, those of low scores included, for scores that rank them;
            as `slices` where there are none.
    """

    slices: tuple[ObjectInstances, ...] = ()
    numbers: tuple[npt.NDArray[np.int32], ...] = ()
    candidates: tuple[ObjectInstances, ...] = ()

    @property
    def count(self) -> int:
        """How many objects there are."""
        return max((int(some.max()) for some in self.numbers if some.size), default=0)

    @cached_property
    def class_of(self) -> dict[int, int]:
        """Class of each object by its number."""
        return {
            int(number): int(kind)
            for objects, numbers in zip(self.slices, self.numbers, strict=True)
            for number, kind in zip(numbers, objects.classes, strict=True)
        }

    def of_classes(self, classes: Sequence[int]) -> "ObjectSegmentation":
        """Return the objects of some classes, numbered anew from 1 on.

        Args:
            classes: Of those that stay; `array` stays as it is.
        """
        which = [np.isin(objects.classes, classes) for objects in self.slices]
        slices = tuple(o.chosen(own) for o, own in zip(self.slices, which, strict=True))
        kept = [numbers[own] for numbers, own in zip(self.numbers, which, strict=True)]
        left = np.unique(np.concatenate(kept)) if kept else np.zeros(0, np.int32)
        numbers = tuple((np.searchsorted(left, own) + 1).astype(np.int32) for own in kept)
        candidates = tuple(o.chosen(np.isin(o.classes, classes)) for o in self.candidates)
        return replace(self, slices=slices, numbers=numbers, candidates=candidates)

    def instance_map(self) -> npt.NDArray[np.int32]:
        """Return the number of the object in each voxel, 0 for none; in the shape of `array`.

        Where objects overlap, the surer is seen, or the smaller where it lies in the larger.
        """
        maps = [
            objects.painted(own) for objects, own in zip(self.slices, self.numbers, strict=True)
        ]
        if self.array.ndim == len(maps[0].shape):
            return maps[0]
        return np.stack([one.T for one in maps], axis=-1)


def _coded_crop(crop: Mask, corner: tuple[int, int], size: tuple[int, int]) -> bytes:
    """Return the run lengths of what of a crop lies within the image."""
    (row, column), (rows, columns) = corner, size
    top, left = max(0, -row), max(0, -column)
    inside = crop[top : max(0, rows - row), left : max(0, columns - column)]
    if not inside.size:
        return run_lengths.coded_part(np.zeros((0, 0), np.bool_), (0, 0), size)
    return run_lengths.coded_part(inside, (row + top, column + left), size)


def _most_common(values: npt.NDArray[Any]) -> int:
    counts = np.bincount(values[values > 0].astype(np.int64))
    return int(counts.argmax()) if counts.size else 0
