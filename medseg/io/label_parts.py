"""The labels of a mask one by one: where each lies, and what its file is called."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from medseg.volume import Label, Segmentation

Box: TypeAlias = tuple[slice, ...]

_UNSAFE = re.compile(r'[\s<>:"/\\|?*]+')
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows
_LONGEST_STEM = 100  # bytes; leaves room for what makes a name unique, and for the suffix


def label_boxes(segmentation: Segmentation) -> list[Box | None]:
    """Find where each label lies, in one pass over the mask.

    Args:
        segmentation: The labels. A region that others lie within is all of it.

    Returns:
        For each label the smallest box that holds its voxels; None where it has none.

    Examples:
        >>> from medseg.volume import make_labels
        >>> seg = Segmentation(np.array([[0, 2], [0, 2]], np.uint8), np.eye(3), make_labels("ab"))
        >>> label_boxes(seg)
        [None, (slice(0, 2, None), slice(1, 2, None))]
    """
    return boxes_of(segmentation.array, segmentation.labels)


def boxes_of(array: npt.NDArray[Any], labels: Sequence[Label]) -> list[Box | None]:
    """Find where each label lies in an array, as `label_boxes` in that of a segmentation.

    Args:
        array: Values of the labels, of any dimensions.
        labels: The labels.

    Returns:
        For each label the smallest box that holds its voxels; None where it has none.
    """
    is_turned = array.flags.f_contiguous and not array.flags.c_contiguous
    found = ndimage.find_objects(array.T if is_turned else array)  # in the order of the memory
    boxes = [box[::-1] if is_turned and box else box for box in found]
    return [
        box_around([boxes[value - 1] for value in label.inside if value <= len(boxes)])
        for label in labels
    ]


def box_around(boxes: Sequence[Box | None]) -> Box | None:
    """Return the smallest box that holds others.

    Args:
        boxes: Of the same grid; None for what is nowhere.

    Returns:
        The box; None where all are.
    """
    held = [box for box in boxes if box is not None]
    if not held:
        return None
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*held, strict=True)
    )


def label_mask(segmentation: Segmentation, label: Label, box: Box) -> npt.NDArray[np.bool_]:
    """Return which voxels of a box belong to a label.

    Args:
        segmentation: All labels.
        label: One of them.
        box: Part of the grid.

    Returns:
        Mask in the shape of the box.
    """
    part = segmentation.array[box]
    if len(label.inside) == 1:
        return np.asarray(part == label.inside[0])
    return np.isin(part, label.inside)


def file_stems(labels: Sequence[Label]) -> list[str]:
    """Return a name for the file of each label that every file system takes.

    What some system forbids, and blanks, become `_`; letters stay as they are. Names that are
    equal, or differ in capitals alone, end in the number of their label.

    Args:
        labels: The structures.

    Returns:
        File names without suffix, all different.

    Examples:
        >>> from medseg.volume import make_labels
        >>> file_stems(make_labels(["left/right lung", "spleen", "Spleen"]))
        ['left_right_lung', 'spleen_2', 'Spleen_3']
    """
    stems = [_stem(label) for label in labels]
    count = Counter(stem.casefold() for stem in stems)
    taken = {folded for folded, times in count.items() if times == 1}
    result = []
    for label, stem in zip(labels, stems, strict=True):
        name = stem
        if count[stem.casefold()] > 1:
            name = f"{stem}_{label.index}"
            while name.casefold() in taken:
                name += "_"
            taken.add(name.casefold())
        result.append(name)
    return result


def _stem(label: Label) -> str:
    text = unicodedata.normalize("NFC", label.name)
    text = "".join("_" if unicodedata.category(sign)[0] == "C" else sign for sign in text)
    stem = _UNSAFE.sub("_", text).strip("._")
    stem = stem.encode()[:_LONGEST_STEM].decode(errors="ignore")
    if not stem or _DEVICES.fullmatch(stem):
        return f"label_{label.index}_{stem}".strip("_")
    return stem
