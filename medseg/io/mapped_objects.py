"""Objects of image files: of numbers, of PASCAL VOC's two masks, and of a mask for each."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.errors import InputError
from medseg.io.files import describe_file, file_suffix, read_file
from medseg.io.found_objects import FoundObjects
from medseg.io.locator import Codes, Locator
from medseg.io.masks import LARGEST_LABEL, read_numbers
from medseg.io.recode import mask_files, ranges_of
from medseg.run_lengths import coded_part, parts_of
from medseg.volume import IGNORED, size_text

_LOSSY = (".jpg", ".jpeg")
_MOST_NAMED = 10
_UNKNOWN = -1
_LARGEST_TABLE = 1 << 22


def holds_numbers(place: Locator) -> bool:
    """Tell whether the values of a label file are numbers of objects.

    Args:
        place: Of a label.

    Returns:
        True for `numbers`, and for `values` of one class that has all values from some number
        on: the values of a class that are counted on and on tell objects apart. Bounded ranges
        may as well be grey levels.
    """
    if place.kind != "values":
        return place.kind == "numbers"
    ranges = [(high, value) for _, high, value in ranges_of(place.codes)]
    classes = [high for high, value in ranges if value not in (0, IGNORED)]
    return classes == [LARGEST_LABEL]


def numbered_objects(place: Locator, *, strict: bool) -> FoundObjects:
    """Read a map of object numbers: every value is one object, in one piece or several.

    Args:
        place: The image file, and the class of each range of numbers. A range up to 65535 has no
            end.
        strict: Refuse what would be left out.

    Returns:
        By rising number; what is to be left out as a crowd of any class.

    Raises:
        InputError: If it is no such file (`not-a-mask`, `lossy-labels`); with `strict` if a
            number is of no class (`unknown-label`).
    """
    if file_suffix(place.path) in _LOSSY:
        msg = f"object numbers must be stored without loss, got JPEG: {place.path.name}."
        raise InputError(msg, code="lossy-labels")
    labels = read_numbers(place.path)
    found = FoundObjects(_size(labels), place.codes, strict=strict)
    numbers, at = _numbers_in(labels)
    values = _values_of(numbers, place.codes)
    unknown = numbers[values == _UNKNOWN].tolist()
    for number in unknown:
        message = f"number {number} of {place.path.name} is of no class: left out"
        found.leave_out("unknown-label", message)
    is_object = (values > 0) & (values != found.ignored)
    places = np.where(is_object, np.arange(1, numbers.size + 1), 0).astype(np.int32)[at]
    for number, part in enumerate(ndimage.find_objects(places), start=1):
        if part is None:
            continue
        mask = coded_part(places[part] == number, (part[0].start, part[1].start), found.size)
        found.add(mask, int(values[number - 1]))
    if found.ignored:
        _add_ignored(found, (values == found.ignored)[at])
    return found


def voc_objects(place: Locator, *, strict: bool) -> FoundObjects:
    """Read the two masks of PASCAL VOC: objects of one, with their classes of the other.

    Void (255, in a mask of objects of 8 bits) is left out: a crowd of any class.

    Args:
        place: The mask of classes with the values of its codes, and the mask of objects.
        strict: Refuse what would be left out.

    Returns:
        By rising number.

    Raises:
        InputError: If either is no mask, or they differ in size (`grid-mismatch`); with `strict`
            if an object is of no class or of several, or a class has pixels of no object.
    """
    of_object = place.path.parent / place.entry
    classes, labels = read_numbers(place.path), read_numbers(of_object)
    if classes.shape != labels.shape:
        sizes = f"{size_text(labels.shape)} for {size_text(classes.shape)}"
        msg = f"masks of objects and classes must have one size, got {sizes} in {of_object.name}."
        raise InputError(msg, code="grid-mismatch")
    found = FoundObjects(_size(labels), place.codes, strict=strict)
    present, at = _numbers_in(classes)
    values = _values_of(present, place.codes)[at]
    void = values == IGNORED
    if labels.dtype == np.uint8:
        void |= labels == IGNORED
    name = f"{of_object.parent.name}/{of_object.name}"
    for number, part in parts_of(np.where(void, 0, labels)):
        inside = (labels[part] == number) & ~void[part]
        value = _class_of(found, values[part][inside], f"object {number} of {name}")
        if value:
            row, column = (int(axis.start) for axis in part)
            found.add(coded_part(inside, (row, column), found.size), value)
    if lost := int(np.count_nonzero((labels == 0) & ~void & (values != 0))):
        found.leave_out("class-without-object", f"{name} has no object at {lost} pixels of classes")
    _add_ignored(found, void)
    return found


def _class_of(found: FoundObjects, values: npt.NDArray[Any], name: str) -> int:
    """Return the class that most pixels of an object have; 0 where it is of none."""
    present, counts = np.unique(values, return_counts=True)
    counts[present <= 0] = 0
    value, most = int(present[counts.argmax()]), int(counts.max())
    if not most:
        found.leave_out("unknown-label", f"{name} is of no class: left out")
        return 0
    if most < values.size:
        message = f"{name} has {values.size - most} of {values.size} pixels outside of its class"
        found.leave_out("mixed-classes", message)
    return value


def folder_objects(place: Locator, *, strict: bool) -> FoundObjects:
    """Read a folder with a mask of each object.

    Args:
        place: The folder.
        strict: Refuse what would be left out.

    Returns:
        In the order of the files' names.

    Raises:
        InputError: If there is no mask (`not-found`), or none can be read; with `strict` for the
            first bad mask, and if masks overlap (`overlapping-objects`).
    """
    files = mask_files(place.path)
    sizes = Counter(size for file in files if (size := _size_of(file)) is not None)
    if not sizes:
        msg = f"{place.path} must hold a mask of each object, got none that can be read."
        raise InputError(msg, code="not-found")
    size = sizes.most_common(1)[0][0]
    found = FoundObjects(size, place.codes or (("object", 1),), strict=strict)
    covered = np.zeros(size, np.bool_)
    shared, overlapping = 0, []
    for file in files:
        try:
            mask = _object(file, size)
        except InputError as error:
            found.leave_out(error.code, f"{str(error).rstrip('.')}: left out")
            continue
        (_, part), *_ = parts_of(mask)
        both = int(np.count_nonzero(covered[part] & mask[part]))
        shared += both
        overlapping += [file.name] if both else []
        covered[part] |= mask[part]
        row, column = (int(axis.start) for axis in part)
        found.add(coded_part(mask[part], (row, column), size), found.classes[0])
    if overlapping:
        found.leave_out("overlapping-objects", _overlap(overlapping, shared, place.path))
    return found


def _overlap(names: Sequence[str], pixels: int, folder: Path) -> str:
    listed = ", ".join(names[:_MOST_NAMED])
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    of = f"{folder.parent.name}/{folder.name}"
    return f"{len(names)} masks of {of} overlap others, by {pixels} pixels: {listed}{more}"


def _size_of(file: Path) -> tuple[int, int] | None:
    try:
        size = describe_file(file).size
    except InputError:  # named when it is read
        return None
    return (size[0], size[1]) if len(size) == 2 else None


def _object(file: Path, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    name = f"{file.parent.parent.name}/{file.parent.name}/{file.name}"
    array = read_file(file).array
    if array.shape[1:] != size:
        sizes = f"{size_text(array.shape[1:])} for {size_text(size)}"
        msg = f"masks of one image must have one size, got {sizes} in {name}."
        raise InputError(msg, code="grid-mismatch")
    if (array != array[:1]).any():
        msg = f"mask must be grey, got a colour image in {name}."
        raise InputError(msg, code="not-a-mask")
    mask: npt.NDArray[np.bool_] = array[0] != 0
    if not mask.any():
        msg = f"mask of an object must have a pixel, got none in {name}."
        raise InputError(msg, code="degenerate-object")
    return mask


def _numbers_in(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the numbers in a map, by rising value, and which of them each pixel has."""
    most = int(labels.max())
    if most > _LARGEST_TABLE:
        numbers, at = np.unique(labels, return_inverse=True)
        return numbers, at.reshape(labels.shape)
    present = np.zeros(most + 1, np.bool_)  # a tenth of the time of sorting all pixels
    present[labels] = True
    places = np.cumsum(present, dtype=np.int32) - 1
    return np.flatnonzero(present), places[labels]


def _values_of(numbers: npt.NDArray[Any], codes: Codes) -> npt.NDArray[np.int64]:
    """Return the value of each number by the ranges of the codes; -1 of those in no range."""
    values = np.full(numbers.shape, _UNKNOWN, np.int64)
    for low, high, value in ranges_of(codes):
        within = numbers >= low
        if high < LARGEST_LABEL:
            within &= numbers <= high
        values[within & (values == _UNKNOWN)] = value
    return values


def _add_ignored(found: FoundObjects, region: npt.NDArray[np.bool_]) -> None:
    if region.any():
        found.add(coded_part(region, (0, 0), found.size), found.ignored)


def _size(labels: npt.NDArray[Any]) -> tuple[int, int]:
    rows, columns = labels.shape
    return int(rows), int(columns)
