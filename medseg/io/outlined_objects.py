"""Objects that COCO and Labelme outline: each one by itself, whatever lies over it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as run_lengths

from medseg.errors import InputError, Problem
from medseg.io.coco import checked_runs, read_coco, unpacked_runs
from medseg.io.found_objects import FoundObjects, known_value
from medseg.io.labelme import (
    LabelmeFile,
    Shape,
    draw_shape,
    image_size,
    read_labelme,
    shape_box,
    shape_problem,
)
from medseg.io.locator import Locator
from medseg.run_lengths import Mask, coded_part

SMALLEST_SIDE = 1.0
"""Outlines whose box is lower or narrower are no objects; pixels."""

_MARGIN = 1  # pixels beyond its points that a drawn shape may have


def coco_objects(place: Locator, *, strict: bool) -> FoundObjects:
    """Read the objects of an image of a COCO file.

    Args:
        place: The file, the image and the values of the categories.
        strict: Refuse what would be left out.

    Returns:
        In the order of the file.

    Raises:
        InputError: If there is no such file or image (`bad-annotation`); with `strict` for the
            first bad annotation.
    """
    file = read_coco(place.path, strict=False)
    image = file.images.get(int(place.entry))
    if image is None:
        msg = f"entry must be the id of an image, got {place.entry} in {place.path.name}."
        raise InputError(msg, code="bad-annotation")
    found = FoundObjects(image.size, place.codes, strict=strict)
    values = dict(place.codes)
    for annotation in file.annotations.get(image.id, ()):
        name = f"annotation {annotation.get('id')} of {place.path.name}"
        try:
            _add_annotation(found, annotation, values, name)
        except InputError as error:
            found.leave_out(error.code, f"{str(error).rstrip('.')}: left out")
    return found


def _add_annotation(
    found: FoundObjects, annotation: Mapping[str, Any], values: Mapping[str, int], name: str
) -> None:
    value = known_value(values, annotation.get("category_id"), name)
    problems: list[Problem] = []
    runs = checked_runs(annotation, found.size, name, problems)
    for problem in problems:
        found.leave_out(problem.code, problem.message)
    if runs is None:
        return
    if not value:
        found.leave_out("background-object", f"{name} is of the background: left out")
        return
    side = _smallest_side(annotation["segmentation"])
    if side < SMALLEST_SIDE:
        message = f"{name} has a box of {side:.3g} pixels on one side: left out"
        found.leave_out("degenerate-object", message)
        return
    crowd = annotation.get("iscrowd") or 0
    if crowd not in (0, 1):
        msg = f"iscrowd must be 0 or 1, got {crowd!r} in {name}"
        raise InputError(msg, code="bad-annotation")
    found.add(_packed(runs), value, crowd=crowd == 1, score=_score(annotation, name))


def _smallest_side(outline: Any) -> float:
    """Return the shorter side of the box around polygons; of runs every pixel has one."""
    if isinstance(outline, dict):
        return math.inf
    numbers = [one for one in outline if len(one) >= 6]
    sides = []
    for axis in (0, 1):
        values = [float(value) for one in numbers for value in one[axis::2]]
        sides.append(max(values) - min(values))
    return min(sides)


def _score(annotation: Mapping[str, Any], name: str) -> float:
    score = annotation.get("score", 1.0)
    if not isinstance(score, int | float) or not 0 <= score <= 1:
        msg = f"score must be from 0 to 1, got {score!r} in {name}"
        raise InputError(msg, code="bad-annotation")
    return float(score)


def _packed(runs: Mapping[str, Any]) -> bytes:
    """Return run lengths as pycocotools makes them, which other programs may split up."""
    counts = runs["counts"]
    packed = counts.encode("ascii") if isinstance(counts, str) else bytes(counts)
    lengths = unpacked_runs(packed)
    if 0 in lengths[1:]:
        size = [int(side) for side in runs["size"]]
        mask = run_lengths.decode({"size": size, "counts": packed})
        packed = bytes(run_lengths.encode(np.asfortranarray(mask))["counts"])
    return packed


def labelme_objects(place: Locator, *, strict: bool) -> FoundObjects:
    """Read the objects of a Labelme file: shapes of one label and one group are one object.

    A shape that is labelled as background cuts a hole into the objects before it.

    Args:
        place: The file and the values of the labels.
        strict: Refuse what would be left out.

    Returns:
        In the order of their first shapes.

    Raises:
        InputError: If there is no such file (`bad-annotation`); with `strict` for the first bad
            shape.
    """
    file = read_labelme(place.path, strict=False)
    found = FoundObjects(image_size(file), place.codes, strict=strict)
    for problem in file.problems:
        found.leave_out(problem.code, problem.message)
    values = dict(place.codes)
    shapes = []
    canvas = Image.new("L", (found.size[1], found.size[0]))
    for shape in file.shapes:
        try:
            if _is_drawn(found, shape, file, values):
                shapes.append((shape, *_drawn(shape, file, canvas)))
        except InputError as error:
            found.leave_out(error.code, f"{str(error).rstrip('.')}: left out")
    for number, (shape, hole, at) in enumerate(shapes):
        if not values[shape.label]:
            for _, mask, corner in shapes[:number]:
                _cut(mask, corner, hole, at)
    for members in _objects([drawn for drawn in shapes if values[drawn[0].label]]):
        mask, corner = _joined([(part, at) for _, part, at in members])
        if mask.any():
            value = values[members[0][0].label]
            found.add(coded_part(mask, corner, found.size), value)
        else:
            what = " and ".join(str(shape.number) for shape, _, _ in members)
            message = f"shape {what} of {place.path.name} covers no pixel: left out"
            found.leave_out("shape-outside", message)
    return found


Corner = tuple[int, int]
Drawn = tuple[Shape, Mask, Corner]


def _is_drawn(
    found: FoundObjects, shape: Shape, file: LabelmeFile, values: Mapping[str, int]
) -> bool:
    """Tell whether a shape is used; what is not is listed."""
    name = f"shape {shape.number} ({shape.label}, {shape.kind}) of {file.path.name}"
    known_value(values, shape.label, name)
    problem = shape_problem(shape, file.path, found.size)
    if problem is not None and problem.code == "shape-clipped":
        found.problems.append(problem)
    elif problem is not None:
        found.leave_out(problem.code, problem.message)
        return False
    if shape.kind == "mask":  # pixels, its corners included
        return True
    low, high = shape_box(shape)
    side = min(high[0] - low[0], high[1] - low[1])
    if side < SMALLEST_SIDE:
        message = f"{name} has a box of {side:.3g} pixels on one side: left out"
        found.leave_out("degenerate-object", message)
    return side >= SMALLEST_SIDE


def _drawn(shape: Shape, file: LabelmeFile, canvas: Image.Image) -> tuple[Mask, Corner]:
    """Return the pixels of a shape within a box, and the box's first pixel.

    The canvas is empty before and afterwards: a new one for each shape would take the time.
    """
    draw_shape(canvas, shape, 1, file.path)
    (x0, y0), (x1, y1) = shape_box(shape)
    left, top = max(0, math.floor(x0) - _MARGIN), max(0, math.floor(y0) - _MARGIN)
    right = max(left, min(canvas.width, math.ceil(x1) + 1 + _MARGIN))
    bottom = max(top, min(canvas.height, math.ceil(y1) + 1 + _MARGIN))
    pixels = np.asarray(canvas.crop((left, top, right, bottom)))
    canvas.paste(0, (left, top, right, bottom))
    return pixels.astype(np.bool_), (top, left)


def _objects(shapes: Sequence[Drawn]) -> Iterator[list[Drawn]]:
    """Yield the shapes of each object."""
    found: dict[tuple[str, str, int], list[Drawn]] = {}
    for drawn in shapes:
        shape = drawn[0]
        key = (shape.label, shape.group, 0 if shape.group else shape.number)
        found.setdefault(key, []).append(drawn)
    yield from found.values()


def _joined(parts: Sequence[tuple[Mask, Corner]]) -> tuple[Mask, Corner]:
    top = min(corner[0] for _, corner in parts)
    left = min(corner[1] for _, corner in parts)
    bottom = max(corner[0] + mask.shape[0] for mask, corner in parts)
    right = max(corner[1] + mask.shape[1] for mask, corner in parts)
    joined = np.zeros((bottom - top, right - left), np.bool_)
    for mask, (row, column) in parts:
        joined[row - top :, column - left :][: mask.shape[0], : mask.shape[1]] |= mask
    return joined, (top, left)


def _cut(mask: Mask, corner: Corner, hole: Mask, at: Corner) -> None:
    """Take the pixels of a hole from a mask."""
    starts = [max(a, b) for a, b in zip(corner, at, strict=True)]
    ends = [
        min(a + m, b + h) for a, m, b, h in zip(corner, mask.shape, at, hole.shape, strict=True)
    ]
    if any(end <= start for start, end in zip(starts, ends, strict=True)):
        return
    ours, theirs = (
        tuple(slice(s - o, e - o) for s, e, o in zip(starts, ends, origin, strict=True))
        for origin in (corner, at)
    )
    mask[ours] &= ~hole[theirs]
