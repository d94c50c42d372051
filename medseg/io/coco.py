"""COCO's JSON files: outlines and run lengths of objects drawn into a mask of classes."""

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import InputError, Problem
from medseg.io.locator import Codes
from medseg.volume import IGNORED, Source, Volume, mask_dtype

_FEWEST_NUMBERS = 6  # x and y of three points
_MOST_LISTED = 10
_FARTHEST = 100
"""Sizes of the image that a polygon may reach to."""


@dataclass(frozen=True)
class CocoImage:
    """An image of the file.

    Attributes:
        id: As in the file.
        file_name: As in the file; relative to the images' folder.
        size: (rows, columns).
    """

    id: int
    file_name: str
    size: tuple[int, int]


@dataclass(frozen=True)
class CocoFile:
    """A file of annotated images.

    Attributes:
        path: JSON file.
        images: By id.
        categories: Name by id, in the order of the ids.
        annotations: Of each image, by its id.
        problems: One of each annotation that is none, or of no image of the file.
    """

    path: Path
    images: Mapping[int, CocoImage]
    categories: Mapping[int, str]
    annotations: Mapping[int, Sequence[Mapping[str, Any]]] = field(repr=False)
    problems: tuple[Problem, ...] = field(default=(), repr=False)

    @property
    def has_crowds(self) -> bool:
        """Whether regions are marked in which objects were not told apart."""
        return any(a.get("iscrowd") for listed in self.annotations.values() for a in listed)


def is_coco(path: Path) -> bool:
    """Tell whether a JSON file is one of COCO's, with objects.

    Args:
        path: The file.

    Returns:
        Whether it is an object with `images`, `annotations` and `categories`.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    keys = ("images", "annotations", "categories")
    return isinstance(document, dict) and all(isinstance(document.get(key), list) for key in keys)


def read_coco(path: Path, *, strict: bool = True) -> CocoFile:
    """Read a file of annotations; the last few are kept in memory while they do not change.

    Args:
        path: JSON file.
        strict: Refuse annotations of an image or a category that is not there. Else those of no
            image are the file's problems, and those of no category stay.

    Returns:
        Its contents.

    Raises:
        InputError: If it is no such file, an id occurs twice, or, with `strict`, an annotation is
            of an image or a category that is not there (`bad-annotation`).
    """
    try:
        status = path.stat()
        file, wrong = _read(path, status.st_mtime_ns, status.st_size)
        if strict and wrong:
            listed = list(wrong[:_MOST_LISTED])
            msg = f"{len(wrong)} annotations of no known image or category, ids {listed}"
            raise ValueError(msg)
        return file
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path.name} must be a COCO file, got {type(error).__name__}: {error}."
        raise InputError(msg, code="bad-annotation") from error


@lru_cache(maxsize=4)
def _read(path: Path, _changed_ns: int, _bytes: int) -> tuple[CocoFile, tuple[Any, ...]]:
    """Return the contents, and the ids of annotations of nothing known."""
    document = json.loads(path.read_text(encoding="utf-8-sig"))
    images = [
        CocoImage(int(e["id"]), str(e["file_name"]), (int(e["height"]), int(e["width"])))
        for e in document["images"]
    ]
    categories = sorted((int(e["id"]), str(e["name"])) for e in document["categories"])
    for what, ids in (("image", [i.id for i in images]), ("category", [c for c, _ in categories])):
        if len(set(ids)) != len(ids):
            msg = f"{what} ids must occur once, got one twice"
            raise ValueError(msg)
    names = dict(categories)
    annotations: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    wrong: list[Any] = []
    problems: list[Problem] = []
    known, tabled = {str(image.id) for image in images}, {str(identity) for identity in names}
    for place, entry in enumerate(document["annotations"], start=1):
        if not isinstance(entry, dict):
            message = f"entry {place} of the annotations of {path.name} is no object: left out"
            problems.append(Problem("bad-annotation", message, "warning"))
            wrong.append(f"entry {place}")
            continue
        of_image, of_category = str(entry.get("image_id")), str(entry.get("category_id"))
        if of_image in known:
            annotations[int(of_image)].append(entry)
        else:
            message = f"annotation {entry.get('id')} of {path.name} is of the image {of_image}"
            message += ", which is not in the file: left out"
            problems.append(Problem("unknown-image", message, "warning"))
        if of_image not in known or of_category not in tabled:
            wrong.append(entry.get("id"))
    by_id = {image.id: image for image in images}
    return CocoFile(path, by_id, names, dict(annotations), tuple(problems)), tuple(wrong)


def read_coco_mask(path: Path, entry: str, codes: Codes) -> Volume:
    """Draw the objects of an image into a mask of classes.

    Smaller objects lie over larger ones, those of equal area in the order of the file. Regions
    of crowds lie under all objects; they are left out (255). Outlines of fewer than three points
    have no area; the volume's problems list them.

    Args:
        path: JSON file.
        entry: Id of the image.
        codes: Value of each category id.

    Returns:
        (1, rows, columns); uint8 or uint16.

    Raises:
        InputError: If it is no such file or has no such image, an annotation has no outline
            (`bad-annotation`), or a category no value (`unknown-label`).

    Source:
        Lin et al., Microsoft COCO, 2014, and its `pycocotools`, which decode polygons and runs.
    """
    from pycocotools import mask as coco  # noqa: PLC0415  (needed for this format alone)

    file = read_coco(path)
    image = file.images.get(int(entry))
    if image is None:
        msg = f"entry must be the id of an image, got {entry} in {path.name}."
        raise InputError(msg, code="bad-annotation")
    values = {int(code): value for code, value in codes}
    array = np.zeros(image.size, mask_dtype(max([0, *values.values()])))
    problems: list[Problem] = []
    drawn = []
    for annotation in file.annotations.get(image.id, ()):
        name = f"annotation {annotation.get('id')} of {path.name}"
        runs = checked_runs(annotation, image.size, name, problems)
        if runs is not None:
            crowd = bool(annotation.get("iscrowd"))
            value = IGNORED if crowd else _value(annotation, values, path)
            drawn.append((crowd, int(coco.area(runs)), value, runs))
    drawn.sort(key=lambda one: (not one[0], -one[1]))  # stable
    for _, _, value, runs in drawn:  # decoded one by one: there may be thousands
        array[coco.decode(runs).astype(bool)] = value
    source = Source(format="raster", path=path, has_spacing=False, problems=tuple(problems))
    return Volume(array[None], np.eye(3), source)


def _value(annotation: Mapping[str, Any], values: Mapping[int, int], path: Path) -> int:
    category = int(annotation["category_id"])
    if category not in values:
        msg = f"category ids must be among {sorted(values)}, got {category} in {path.name}."
        raise InputError(msg, code="unknown-label")
    return values[category]


def checked_runs(
    annotation: Mapping[str, Any], size: tuple[int, int], name: str, problems: list[Problem]
) -> Any:
    """Return the run lengths of one object.

    Args:
        annotation: As in the file.
        size: Rows and columns of its image.
        name: For messages.
        problems: Gets what is left out.

    Returns:
        As pycocotools takes them; None where there is no pixel.

    Raises:
        InputError: If there are no polygons or runs of this size (`bad-annotation`).
    """
    from pycocotools import mask as coco  # noqa: PLC0415

    try:
        runs = _runs(annotation["segmentation"], size)
        if runs is None:
            message = f"{name} has no outline of three points: left out"
            problems.append(Problem("shape-without-area", message, "warning"))
            return None
        if short := _short_parts(annotation["segmentation"]):
            message = f"{name} has {short} parts of fewer than three points: these are left out"
            problems.append(Problem("part-without-area", message, "warning"))
        if tuple(runs["size"]) != size:
            msg = f"size must be {list(size)}, got {list(runs['size'])}"
            raise ValueError(msg)
        pixels = int(coco.area(runs))
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        msg = (
            f"segmentation must be polygons or runs, got {type(error).__name__}: {error} in {name}."
            " Boxes alone make no mask."
        )
        raise InputError(msg, code="bad-annotation") from error
    if not pixels:
        message = f"{name} covers no pixel of its image: left out"
        problems.append(Problem("shape-outside", message, "warning"))
        return None
    return runs


def _short_parts(outline: Any) -> int:
    polygons = outline if isinstance(outline, list) else ()
    return sum(len(one) < _FEWEST_NUMBERS for one in polygons)


def _runs(outline: Any, size: tuple[int, int]) -> Any:
    """Return run lengths in pycocotools' form; None for polygons without area."""
    from pycocotools import mask as coco  # noqa: PLC0415

    if isinstance(outline, dict):
        counts = outline["counts"]
        packed = not isinstance(counts, list)
        lengths = unpacked_runs(counts) if packed else [int(count) for count in counts]
        # pycocotools leaves the memory as it is where runs end before the mask does
        if sum(lengths) != math.prod(outline["size"]) or min(lengths, default=0) < 0:
            msg = f"runs must add up to {outline['size']}, got {sum(lengths)} pixels"
            raise ValueError(msg)
        return outline if packed else coco.frPyObjects(outline, *outline["size"])
    polygons = [[float(value) for value in one] for one in outline]
    if any(len(one) % 2 or not all(map(math.isfinite, one)) for one in polygons):
        msg = "polygons must be pairs of finite numbers"
        raise ValueError(msg)
    farthest = max((abs(value) for one in polygons for value in one), default=0.0)
    if farthest > _FARTHEST * max(size):  # pycocotools takes memory for every pixel of an edge
        msg = f"polygons must lie near their image of {list(size)}, got a point at {farthest:g}"
        raise ValueError(msg)
    drawn = [one for one in polygons if len(one) >= _FEWEST_NUMBERS]
    return coco.merge(coco.frPyObjects(drawn, *size)) if drawn else None


def unpacked_runs(text: str | bytes) -> list[int]:
    """Return the run lengths of a compressed mask.

    Args:
        text: As pycocotools writes it.

    Returns:
        Pixels of each run, columns first, beginning with what is not the object.

    Raises:
        ValueError: If it is no such text.

    Source:
        `rleFrString` of pycocotools: five bits a character, the sixth says that more follow, the
        sign is extended; from the fourth number on it is the difference to the last but one.
    """
    lengths: list[int] = []
    number, shift = 0, 0
    for byte in text.encode("ascii") if isinstance(text, str) else text:
        bits = byte - 48
        if not 0 <= bits < 64:
            msg = f"runs must be text of pycocotools, got the character {chr(byte)!r}"
            raise ValueError(msg)
        number |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
        number, shift = 0, 0
    if shift:
        msg = "runs must end with a whole number"
        raise ValueError(msg)
    return lengths
