"""Objects read from label files, each kept apart from the others."""

from collections.abc import Callable
from pathlib import Path

from medseg.errors import InputError, Problem
from medseg.io.found_objects import FoundObjects
from medseg.io.locator import Locator, parse_locator
from medseg.io.mapped_objects import folder_objects, holds_numbers, numbered_objects, voc_objects
from medseg.io.outlined_objects import coco_objects, labelme_objects
from medseg.objects import ObjectInstances

HOW = (
    "Objects are told apart by COCO and Labelme files, by a mask of each, by SegmentationObject"
    " beside SegmentationClass, and by masks of object numbers: declare these in dataset.yaml with"
    " `labels: {NAME: 1-}`, or with `objects: true`"
)
"""For a message about masks of classes."""


def tells_objects_apart(path: Path) -> bool:
    """Tell whether `read_objects` finds objects in a label, by how it is to be read.

    Args:
        path: Of a label, as a `Locator` has it.

    Returns:
        False for masks of classes.
    """
    return _reader(parse_locator(path)) is not None


def read_objects(
    path: Path, *, strict: bool = False
) -> tuple[ObjectInstances, tuple[Problem, ...]]:
    """Read the objects of a label, which `read_mask` would paint into one mask.

    Each has the class that the codes of its `Locator` give it. Regions of crowds are crowds, of
    their class; what is to be left out (value 255) is a crowd of any class. Bad annotations are
    left out and listed, each by its file and number, and so is what has no area.

    Args:
        path: A `Locator` of the kind `coco`, `labelme`, `objects`, `numbers`, `voc-objects`, or
            `values` of one class from some number on (`1-65535`).
        strict: Refuse the first bad annotation instead.

    Returns:
        The objects, and a warning for each annotation that was left out or cut off.

    Raises:
        InputError: If the label holds classes alone (`no-objects`): pieces of a class are not
            taken for objects; if it cannot be read; with `strict` for the first bad annotation.
    """
    place = parse_locator(path)
    reader = _reader(place)
    if reader is None:
        msg = f"label must tell objects apart, got a mask of classes: {place.path.name}. {HOW}."
        raise InputError(msg, code="no-objects")
    return reader(place, strict=strict).finished()


def _reader(place: Locator) -> Callable[..., FoundObjects] | None:
    if holds_numbers(place):
        return numbered_objects
    readers: dict[str, Callable[..., FoundObjects]] = {
        "coco": coco_objects,
        "labelme": labelme_objects,
        "objects": folder_objects,
        "voc-objects": voc_objects,
    }
    return readers.get(place.kind)
