"""Labelme's JSON files: where the image is, and shapes drawn into a mask."""

import base64
import io
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from medseg.errors import InputError, Problem
from medseg.io.files import file_stem, is_image_file
from medseg.io.locator import Codes, Locator, parse_locator
from medseg.io.raster import read_raster, read_raster_info
from medseg.volume import Source, Volume, mask_dtype

_OUTSIDE_PIXELS = 1.0
"""Points may lie this far off the image: annotators draw along its border."""
_FARTHEST = 100
"""Sizes of the image that a shape may reach beyond it: Pillow draws others wrongly, or never."""
_NO_AREA = ("line", "linestrip", "point", "points")
_FEWEST_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}
_TIFF_STARTS = (b"II*\0", b"MM\0*")

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Shape:
    """One shape that somebody drew.

    Attributes:
        number: Position in the file, from 1.
        label: What it is of.
        kind: Labelme's `shape_type`.
        points: (x, y) of each point: columns to the right, rows downwards.
        mask: Of the kind `mask`: a PNG in base64 that fills the box of the two points.
        group: Labelme's `group_id`, of shapes that are one object; empty: none.
    """

    number: int
    label: str
    kind: str
    points: Points
    mask: str = ""
    group: str = ""

    @property
    def has_area(self) -> bool:
        """Whether it is of a kind that covers pixels."""
        return self.kind not in _NO_AREA


@dataclass(frozen=True)
class LabelmeFile:
    """An annotated image.

    Attributes:
        path: The JSON file.
        shapes: In the order in which they are drawn.
        size: (rows, columns) of the image as the file states it, if it does.
        image_path: As written in the file.
        embedded: Whether the file holds the image.
        problems: One of each shape that could not be read.
    """

    path: Path
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None
    image_path: str = ""
    embedded: bool = False
    problems: tuple[Problem, ...] = ()

    @property
    def image(self) -> Path:
        """Where the image is: at `imagePath`, in the file itself, or beside it.

        Raises:
            InputError: If it is nowhere (`not-found`).
        """
        named = self.path.parent / self.image_path.replace("\\", "/")
        if self.image_path and is_image_file(named) and named.is_file():
            return named
        if self.embedded:
            return Locator(self.path, kind="labelme-image").as_path()
        for path in sorted(self.path.parent.glob(f"{_escaped(self.path.stem)}.*")):
            if is_image_file(path) and file_stem(path) == self.path.stem:
                return path
        msg = f"imagePath must lead to an image, got {self.image_path!r} in {self.path.name}."
        raise InputError(msg, code="not-found")


def is_labelme(path: Path) -> bool:
    """Tell whether a JSON file is one of Labelme's.

    Args:
        path: The file.

    Returns:
        Whether it is an object with `shapes`.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and isinstance(document.get("shapes"), list)


def read_labelme(path: Path, *, strict: bool = True) -> LabelmeFile:
    """Read what is annotated.

    Args:
        path: JSON file.
        strict: As `labelme_in`.

    Returns:
        Its contents.

    Raises:
        InputError: If it is no such file (`bad-annotation`).
    """
    found = labelme_in(path, strict=strict)
    if found is None:
        msg = f"{path.name} must be a file of Labelme, got JSON without shapes."
        raise InputError(msg, code="bad-annotation")
    return found


def labelme_in(path: Path, *, strict: bool = True) -> LabelmeFile | None:
    """Read a JSON file that may be one of Labelme's.

    Args:
        path: JSON file.
        strict: A shape without a label, or whose points are none, makes the file a damaged one.
            Else it is left out, and one of the file's problems.

    Returns:
        Its contents; None for JSON that has no `shapes`.

    Raises:
        InputError: If it is damaged (`bad-annotation`).
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(document, dict) or "shapes" not in document:
            return None
        shapes, problems = _shapes(document["shapes"], path, strict=strict)
        rows, columns = document.get("imageHeight"), document.get("imageWidth")
        return LabelmeFile(
            path,
            shapes,
            None if rows is None or columns is None else (int(rows), int(columns)),
            str(document.get("imagePath") or ""),
            bool(document.get("imageData")),
            problems,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"{path.name} must be a file of Labelme, got {type(error).__name__}: {error}."
        raise InputError(msg, code="bad-annotation") from error


def _shapes(
    entries: Sequence[Mapping[str, Any]], path: Path, *, strict: bool
) -> tuple[tuple[Shape, ...], tuple[Problem, ...]]:
    shapes, problems = [], []
    for number, entry in enumerate(entries, start=1):
        try:
            shapes.append(_shape(number, entry))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if strict:
                raise
            what = f"shape {number} of {path.name} must have a label and points"
            message = f"{what}, got {type(error).__name__}: {error}: left out"
            problems.append(Problem("bad-annotation", message, "warning"))
    return tuple(shapes), tuple(problems)


def _shape(number: int, entry: Mapping[str, Any]) -> Shape:
    points = [(float(x), float(y)) for x, y in entry.get("points") or ()]
    if not all(math.isfinite(value) for point in points for value in point):
        msg = f"points must be finite in shape {number}"
        raise ValueError(msg)
    kind = str(entry.get("shape_type") or "polygon")
    group = entry.get("group_id")
    return Shape(
        number,
        str(entry["label"]),
        kind,
        points,
        str(entry.get("mask") or ""),
        "" if group is None else str(group),
    )


def read_labelme_mask(path: Path, codes: Codes) -> Volume:
    """Draw the shapes of a file into a mask, later ones over earlier ones.

    Borders belong to a shape, as Labelme's own exporter has it. Lines and points have no area
    and are left out; so are shapes without points or outside of the image. The volume's problems
    list every one.

    Args:
        path: JSON file.
        codes: Value of each label.

    Returns:
        (1, rows, columns); uint8 or uint16.

    Raises:
        InputError: If it is no such file (`bad-annotation`), has a label without a value
            (`unknown-label`) or a kind of shape that is not known (`unknown-shape`).
    """
    file = read_labelme(path)
    values = dict(codes)
    unknown = sorted({shape.label for shape in file.shapes} - set(values))
    if unknown:
        listed = ", ".join(repr(label) for label in unknown[:10])
        msg = f"labels must be among {', '.join(values)}, got {listed} in {path.name}."
        raise InputError(msg, code="unknown-label")
    rows, columns = image_size(file)
    dtype = mask_dtype(max(values.values(), default=0))
    canvas = Image.new("L" if dtype == np.uint8 else "I", (columns, rows))
    problems = []
    for shape in file.shapes:
        problem = shape_problem(shape, path, (rows, columns))
        problems += [problem] if problem else []
        if problem is None or problem.code == "shape-clipped":
            draw_shape(canvas, shape, values[shape.label], path)
    array = np.asarray(canvas).astype(dtype)[None]
    source = Source(format="raster", path=path, has_spacing=False, problems=tuple(problems))
    return Volume(array, np.eye(3), source)


def image_size(file: LabelmeFile) -> tuple[int, int]:
    """Return rows and columns of the image of a file.

    Args:
        file: Says them, or leads to the image.

    Raises:
        InputError: If the image is needed and cannot be read.
    """
    if file.size:
        return file.size
    place = parse_locator(file.image)
    if place.kind:
        rows, columns = read_labelme_image(place.path).shape
        return rows, columns
    return read_raster_info(place.path).size


def shape_problem(shape: Shape, path: Path, size: tuple[int, int]) -> Problem | None:
    """Say why a shape is not drawn, or not as a whole.

    Args:
        shape: One of the file.
        path: The file.
        size: Rows and columns of the image.

    Returns:
        A warning; `shape-clipped` where the shape is drawn up to the border, others where it is
        not drawn. None where nothing is wrong.

    Raises:
        InputError: If the kind is not known (`unknown-shape`).
    """
    if shape.kind not in _FEWEST_POINTS and shape.kind not in _NO_AREA:
        known = ", ".join((*_FEWEST_POINTS, *_NO_AREA))
        msg = (
            f"shape_type must be one of {known}, got {shape.kind!r} of shape {shape.number} in"
            f" {path.name}."
        )
        raise InputError(msg, code="unknown-shape")
    what = f"shape {shape.number} ({shape.label}, {shape.kind}) of {path.name}"
    if not shape.points:
        return Problem("shape-without-points", f"{what} has no points: left out", "warning")
    if len(shape.points) < _FEWEST_POINTS.get(shape.kind, len(shape.points) + 1):
        return Problem("shape-without-area", f"{what} has no area: left out", "warning")
    low, high = shape_box(shape)
    over = [high[0] - (size[1] - 1), high[1] - (size[0] - 1), -low[0], -low[1]]
    if low[0] > size[1] or low[1] > size[0] or high[0] < 0 or high[1] < 0:
        return Problem("shape-outside", f"{what} lies outside of the image: left out", "warning")
    if max(over) > _FARTHEST * max(size):
        message = f"{what} has a point {max(over):.4g} pixels off the image: left out"
        return Problem("shape-outside", message, "warning")
    if max(over) > _OUTSIDE_PIXELS:
        message = f"{what} reaches {max(over):.4g} pixels beyond the image: cut off there"
        return Problem("shape-clipped", message, "warning")
    return None


def shape_box(shape: Shape) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the box around a shape.

    Args:
        shape: With points.

    Returns:
        Least x and y, largest x and y.
    """
    if shape.kind == "circle":
        (x, y), radius = shape.points[0], math.dist(*shape.points[:2])
        return (x - radius, y - radius), (x + radius, y + radius)
    xs, ys = zip(*shape.points, strict=True)
    return (min(xs), min(ys)), (max(xs), max(ys))


def draw_shape(canvas: Image.Image, shape: Shape, value: int, path: Path) -> None:
    """Draw a shape, its border included.

    Args:
        canvas: Changed.
        shape: One that has no problem but to be cut off.
        value: Of its pixels.
        path: The file, for a message.

    Raises:
        InputError: If a drawn mask is damaged (`bad-annotation`).
    """
    low, high = shape_box(shape)
    draw = ImageDraw.Draw(canvas)
    if shape.kind == "rectangle":
        draw.rectangle([low, high], fill=value, outline=value)
    elif shape.kind == "circle":
        draw.ellipse([low, high], fill=value, outline=value)
    elif shape.kind == "mask":
        stamp = _stamp(shape, path)
        canvas.paste(value, (int(low[0]), int(low[1])), stamp)
    else:
        draw.polygon(shape.points, fill=value, outline=value)


def _stamp(shape: Shape, path: Path) -> Image.Image:
    """Decode the picture of a drawn mask."""
    (left, top), (right, bottom) = shape_box(shape)
    wanted = int(right) - int(left) + 1, int(bottom) - int(top) + 1
    name = f"shape {shape.number} of {path.name}"
    try:
        data = io.BytesIO(base64.b64decode(shape.mask, validate=True))
        with Image.open(data) as image:
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError) as error:
        msg = f"mask must be a PNG in base64, got {error} in {name}."
        raise InputError(msg, code="bad-annotation") from error
    if pixels.shape != wanted[::-1]:
        got = "x".join(map(str, pixels.shape))
        msg = f"mask must fill its box of {wanted[1]}x{wanted[0]} pixels, got {got} in {name}."
        raise InputError(msg, code="bad-annotation")
    return Image.fromarray(pixels != 0)


def read_labelme_image(path: Path, *, frame: int | None = None, channels: int = 1) -> Volume:
    """Read the image that lies in a JSON file.

    Args:
        path: JSON file.
        frame: As `read_raster`.
        channels: As `read_raster`.

    Returns:
        (C, rows, columns), as `read_raster`.

    Raises:
        InputError: If there is none (`bad-annotation`), or it cannot be read.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        data = base64.b64decode(document["imageData"], validate=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"imageData must be a picture in base64, got {error} in {path.name}."
        raise InputError(msg, code="bad-annotation") from error
    suffix = ".tif" if data.startswith(_TIFF_STARTS) else ".png"
    with tempfile.TemporaryDirectory() as folder:  # one reader for all pictures
        file = Path(folder) / f"{path.name}{suffix}"
        file.write_bytes(data)
        volume = read_raster(file, frame=frame, channels=channels)
    return replace(volume, source=replace(volume.source, path=path))


def labels_of(files: Sequence[LabelmeFile]) -> list[str]:
    """Return the labels that occur.

    Args:
        files: Annotations.

    Returns:
        Names, sorted.
    """
    return sorted({shape.label for file in files for shape in file.shapes})


def _escaped(stem: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in stem)
