"""How many objects a dataset has, and how large they are."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.data.dataset import LabelledDataset
from medseg.errors import InputError
from medseg.io.objects import read_objects
from medseg.objects import ObjectInstances

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
"""Of which sizes are given."""

_AT_ONCE = 512


@dataclass(frozen=True)
class ObjectSizes:
    """Sizes of the objects of one class, or of all.

    Attributes:
        objects: How many there are; crowds are not counted, here and below.
        images: How many images have one.
        most_in_an_image: Their largest number in one image.
        sides: Square roots of the areas of their boxes, at `QUANTILES`; pixels. NaN without any.
        ratios: Heights of their boxes over the widths, at `QUANTILES`.
        areas: Pixels of their masks, at `QUANTILES`.
    """

    objects: int
    images: int
    most_in_an_image: int
    sides: tuple[float, ...]
    ratios: tuple[float, ...]
    areas: tuple[float, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the sizes as they stand in JSON documents."""
        names = [f"p{100 * quantile:02.0f}" for quantile in QUANTILES]
        return {
            "objects": self.objects,
            "images": self.images,
            "most_in_an_image": self.most_in_an_image,
            **{
                key: dict(zip(names, (round(v, 4) for v in values), strict=True))
                for key, values in (
                    ("box_side_pixels", self.sides),
                    ("box_height_over_width", self.ratios),
                    ("area_pixels", self.areas),
                )
            },
        }


@dataclass(frozen=True)
class ObjectStatistics:
    """Objects of a dataset.

    Attributes:
        counts: Objects of each class, in the order of the classes, by case.
        crowds: Regions of crowds, and of what is left out, by case.
        overlapping: Pairs of objects that share pixels, by case.
        classes: Sizes by the name of the class.
        all: Sizes of all objects.
    """

    counts: Mapping[str, tuple[int, ...]]
    crowds: Mapping[str, int]
    overlapping: Mapping[str, int]
    classes: Mapping[str, ObjectSizes]
    all: ObjectSizes

    def as_json(self) -> dict[str, Any]:
        """Return the statistics as they stand in JSON documents."""
        return {
            "images": len(self.counts),
            "images_without_object": sum(not sum(counts) for counts in self.counts.values()),
            "crowds": sum(self.crowds.values()),
            "overlapping_pairs": sum(self.overlapping.values()),
            "all": self.all.as_json(),
            "classes": {name: sizes.as_json() for name, sizes in self.classes.items()},
            "cases": {case: list(counts) for case, counts in self.counts.items()},
        }


def statistics_of_objects(
    cases: Iterable[tuple[str, ObjectInstances]],
    names: Sequence[str],
    steps: Mapping[str, tuple[float, ...]] | None = None,
) -> ObjectStatistics:
    """Describe the objects of images, which are looked at one by one.

    Args:
        cases: Id and objects of each image.
        names: Of the classes, from class 1 on.
        steps: Size of a pixel of a case, rows and columns, in that of the pixels that sizes are
            stated in, where images differ in it; 1 each when left out.

    Returns:
        The statistics.

    Raises:
        InputError: If an object has a class without a name (`unknown-label`).
    """
    counts, crowds, overlapping = {}, {}, {}
    tables = [np.zeros((0, 5))]  # a row an object: image, class, width, height, area
    for image, (case, objects) in enumerate(cases):
        own = objects.chosen(~objects.crowd)
        if len(own) and own.classes.max() > len(names):
            msg = f"names must name every class, got class {own.classes.max()} in {case}."
            raise InputError(msg, code="unknown-label")
        counts[case] = tuple(np.bincount(own.classes, minlength=len(names) + 1)[1:].tolist())
        crowds[case] = len(set(objects.chosen(objects.crowd).masks))  # of all classes: once
        overlapping[case] = _overlapping_pairs(own)
        sides = own.boxes[:, 2:] - own.boxes[:, :2]
        row, column = (steps or {}).get(case, (1.0, 1.0))
        sides, areas = sides * [column, row], own.areas * (row * column)
        columns = (np.full(len(own), image), own.classes, *sides.T, areas)
        tables.append(np.stack(columns, axis=1))
    table = np.concatenate(tables)
    classes = {
        name: _sizes(table[table[:, 1] == number]) for number, name in enumerate(names, start=1)
    }
    return ObjectStatistics(counts, crowds, overlapping, classes, _sizes(table))


def object_statistics(
    dataset: LabelledDataset, steps: Mapping[str, tuple[float, ...]] | None = None
) -> ObjectStatistics:
    """Read the objects of every case of a dataset and describe them.

    Args:
        dataset: Opened with `objects=True`.
        steps: As `statistics_of_objects`.

    Returns:
        The statistics; what a label leaves out is not in them.

    Raises:
        InputError: If a label cannot be read, or does not tell objects apart (`no-objects`).
    """
    cases = ((c.case_id, read_objects(c.label)[0]) for c in dataset.cases if c.label is not None)
    names = [structure.name for structure in dataset.structures]
    return statistics_of_objects(cases, names, steps)


def _overlapping_pairs(objects: ObjectInstances) -> int:
    count = 0
    for start in range(0, len(objects), _AT_ONCE):  # rows of the table of all pairs
        some = objects.chosen(np.arange(start, min(start + _AT_ONCE, len(objects))))
        count += int(np.count_nonzero(np.triu(some.iou(objects), start + 1)))
    return count


def _sizes(table: npt.NDArray[np.float64]) -> ObjectSizes:
    image, _, width, height, area = table.T
    per_image = np.bincount(image.astype(np.int64))
    return ObjectSizes(
        objects=len(table),
        images=int(np.count_nonzero(per_image)),
        most_in_an_image=int(per_image.max(initial=0)),
        sides=_quantiles(np.sqrt(width * height)),
        ratios=_quantiles(height / width),
        areas=_quantiles(area),
    )


def _quantiles(values: npt.NDArray[np.float64]) -> tuple[float, ...]:
    if not values.size:
        return (float("nan"),) * len(QUANTILES)
    return tuple(float(value) for value in np.quantile(values, QUANTILES))
