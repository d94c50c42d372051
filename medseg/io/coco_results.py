"""Objects written as COCO's JSON."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medseg.errors import InputError, UsageError
from medseg.io.atomic import write_text
from medseg.objects import ANY_CLASS, ObjectInstances


def write_coco(
    path: Path, images: Iterable[tuple[str, ObjectInstances]], names: Sequence[str]
) -> None:
    """Write the objects of images as a COCO file, atomically.

    Ids of images and annotations count from 1; category ids are the classes. Masks are compressed
    run lengths, so that every pixel comes back.

    Args:
        path: JSON file to write.
        images: File name, as the file shall state it, and objects of each image.
        names: Of the classes, from class 1 on.

    Raises:
        UsageError: If an object has a class without a name, or a file name occurs twice.
        OutputError: If writing fails.
    """
    document = coco_document(images, names)
    parts = []
    for key, entries in document.items():  # one a line: short, and still to be looked at
        lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries)
        parts.append(f'"{key}": [\n{lines}\n]')
    write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def coco_document(
    images: Iterable[tuple[str, ObjectInstances]], names: Sequence[str]
) -> dict[str, list[dict[str, Any]]]:
    """Return what a COCO file of objects holds.

    Args:
        images: As `write_coco`.
        names: As `write_coco`.

    Returns:
        `images`, `categories` and `annotations`, as JSON has them.

    Raises:
        UsageError: As `write_coco`.
    """
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (file_name, objects) in enumerate(images, start=1):
        unnamed = sorted(set(objects.classes.tolist()) - set(range(len(names) + 1)))
        if unnamed:
            msg = f"names must name every class, got {len(names)} and class {unnamed[0]}."
            raise UsageError(msg)
        rows, columns = objects.size
        listed.append({"id": number, "file_name": file_name, "height": rows, "width": columns})
        for annotation in _annotations(objects, len(names)):
            identity = len(annotations) + 1
            annotations.append({"id": identity, "image_id": number, **annotation})
    if len({image["file_name"] for image in listed}) < len(listed):
        msg = "images must have file names of their own, got one twice."
        raise UsageError(msg)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": listed, "categories": categories, "annotations": annotations}


def _annotations(objects: ObjectInstances, classes: int) -> Iterable[dict[str, Any]]:
    columns = zip(
        objects.masks, objects.classes, objects.boxes, objects.areas, objects.scores,
        objects.crowd, strict=True,
    )  # fmt: skip
    for mask, number, (x0, y0, x1, y1), area, score, crowd in columns:
        entry = {
            "segmentation": {"size": list(objects.size), "counts": mask.decode("ascii")},
            "bbox": [float(value) for value in (x0, y0, x1 - x0, y1 - y0)],
            "area": int(area),
            "score": _shortest(score),
            "iscrowd": int(crowd),
        }
        # COCO knows no crowd of any class: it becomes one of each
        for category in range(1, classes + 1) if number == ANY_CLASS else [int(number)]:
            yield {"category_id": category, **entry}


def _shortest(value: np.float32) -> float:
    """Return the number of fewest digits that is the same float32."""
    return float(np.format_float_positional(value, unique=True))


def read_coco_results(path: Path) -> list[tuple[str, ObjectInstances]]:
    """Read a file that `write_coco` wrote, scores included.

    Args:
        path: JSON file.

    Returns:
        File name and objects of each image, in the order of the file.

    Raises:
        InputError: If it is no such file (`bad-annotation`).
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        images = []
        for image in document["images"]:
            own = [one for one in document["annotations"] if one["image_id"] == image["id"]]
            objects = ObjectInstances(
                (int(image["height"]), int(image["width"])),
                tuple(one["segmentation"]["counts"].encode("ascii") for one in own),
                np.array([one["category_id"] for one in own], np.int32),
                np.array([one.get("score", 1.0) for one in own], np.float32),
                np.array([one.get("iscrowd", 0) for one in own], np.bool_),
            )
            images.append((str(image["file_name"]), objects))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        msg = (
            f"{path.name} must hold objects as COCO has them, got {type(error).__name__}: {error}."
        )
        raise InputError(msg, code="bad-annotation") from error
    return images
