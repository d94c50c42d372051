"""What is written of the objects of a case."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.io.atomic import write_text
from medseg.io.coco_results import write_coco
from medseg.io.nifti import write_nifti_mask
from medseg.io.raster import write_label_map
from medseg.objects import ObjectInstances, ObjectSegmentation
from medseg.report.objects import object_counts
from medseg.volume import Segmentation, mask_dtype

COCO = "objects.json"
TABLE = "objects.csv"
NUMBERS_NIFTI = "instances.nii.gz"
NUMBERS_PNG, NUMBERS_TIFF = "instances.png", "instances.tif"

COCO_OF_CLASSES = "coco.json"

OBJECT_FILES = frozenset({COCO, COCO_OF_CLASSES, TABLE, NUMBERS_NIFTI, NUMBERS_PNG, NUMBERS_TIFF})

COLUMNS = ("object", "class", "score", "pixels", "row", "column", "height", "width")


def write_objects(folder: Path, found: ObjectSegmentation, case: str) -> dict[str, str]:
    """Write the objects of a case: COCO JSON, a map of their numbers, and a table.

    The JSON holds candidates of low scores too, which average precision ranks.

    Args:
        folder: Where the files go.
        found: The objects.
        case: Id of the case, which the images in the JSON are named by.

    Returns:
        Kind of output to file name.

    Raises:
        OutputError: If a file cannot be written.
        UsageError: If a volume has more objects than a NIfTI mask can number (65535).
    """
    by_class = {label.index: label.name for label in found.labels}
    last = max(by_class, default=0)
    names = [by_class.get(number, f"class {number}") for number in range(1, last + 1)]
    flat = found.array.ndim == 2
    images = [
        (_image_name(found, case, None if flat else number), objects)
        for number, objects in enumerate(found.candidates or found.slices)
    ]
    write_coco(folder / COCO, images, names)
    write_text(folder / TABLE, _table(found, flat=flat))
    numbers = found.instance_map()
    if flat:
        picture = write_label_map(numbers, folder / Path(NUMBERS_PNG).stem)
        return {"coco": COCO, "objects": TABLE, "instances": picture.name}
    narrow = numbers.astype(mask_dtype(found.count))
    write_nifti_mask(replace(found, array=narrow, labels=()), folder / NUMBERS_NIFTI)
    return {"coco": COCO, "objects": TABLE, "instances": NUMBERS_NIFTI}


def write_coco_of_classes(folder: Path, segmentation: Segmentation, case: str) -> str:
    """Write the labels of a case as COCO JSON: one annotation a label, of a volume a slice too.

    Pieces of a label are not taken for objects.

    Args:
        folder: Where the file goes.
        segmentation: The labels.
        case: Id of the case, which the images in the JSON are named by.

    Returns:
        File name.

    Raises:
        OutputError: If the file cannot be written.
    """
    flat = segmentation.array.ndim == 2
    by_index = {label.index: label.name for label in segmentation.labels}
    names = [by_index.get(n, f"class {n}") for n in range(1, max(by_index, default=0) + 1)]
    planes = (
        [(_image_name(segmentation, case), segmentation.array)]
        if flat
        else (
            (_image_name(segmentation, case, number), segmentation.array[..., number].T)
            for number in range(segmentation.array.shape[2])
        )
    )
    images = ((name, _regions(plane)) for name, plane in planes)
    write_coco(folder / COCO_OF_CLASSES, images, names)
    return COCO_OF_CLASSES


def _image_name(segmentation: Segmentation, case: str, number: int | None = None) -> str:
    """Return the name of a picture's file, or that of a slice of a volume."""
    if number is not None:
        return f"{case}_slice_{number:04d}"
    source = segmentation.source
    is_file = source.format == "raster" and source.path is not None
    return case + (source.path.suffix if is_file and source.path else "")


def _regions(plane: npt.NDArray[Any]) -> ObjectInstances:
    """Return each label of a plane as one region."""
    regions = ObjectInstances.of_label_map(plane)
    found = [number for number in np.unique(plane).tolist() if number]
    return replace(regions, classes=np.array(found, np.int32))


def object_summary(found: ObjectSegmentation) -> dict[str, Any]:
    """Return how many objects there are, in all and of each class.

    Args:
        found: The objects.
    """
    names = {label.index: label.name for label in found.labels}
    counts = {names[index]: count for index, count in object_counts(found).items()}
    return {"count": found.count, "classes": counts}


def _table(found: ObjectSegmentation, *, flat: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    size = _pixel_mm2(found) if flat else _voxel_mm3(found)
    unit = ("area_mm2", "area_um2") if flat else ("volume_mm3",)
    head = COLUMNS if flat else (*COLUMNS[:3], "voxels", "first_slice", "last_slice")
    writer.writerow((*head, *(unit if size else ())))
    for row, pixels in _rows(found, flat=flat):
        measured: tuple[str, ...] = ()
        if size:
            value = pixels * size
            measured = (f"{value:.6g}", f"{value * 1e6:.6g}")[: len(unit)]
        writer.writerow((*row, *measured))
    return text.getvalue()


def _rows(found: ObjectSegmentation, *, flat: bool) -> Iterator[tuple[tuple[Any, ...], int]]:
    names = {label.index: label.name for label in found.labels}
    if flat:
        [objects], [numbers] = found.slices, found.numbers
        for place in np.argsort(numbers):
            x0, y0, x1, y1 = objects.boxes[place]
            pixels = int(objects.areas[place])
            box = (int(y0), int(x0), int(y1 - y0), int(x1 - x0))
            name = names[int(objects.classes[place])]
            score = f"{objects.scores[place]:.4f}"
            yield (int(numbers[place]), name, score, pixels, *box), pixels
        return
    for number, kind in sorted(found.class_of.items()):
        seen = [
            (k, int(objects.areas[place]), float(objects.scores[place]))
            for k, (objects, own) in enumerate(zip(found.slices, found.numbers, strict=True))
            for place in np.flatnonzero(own == number)
        ]
        voxels = sum(area for _, area, _ in seen)
        score = f"{max(score for *_, score in seen):.4f}"
        yield (number, names[kind], score, voxels, seen[0][0], seen[-1][0]), voxels


def _pixel_mm2(found: ObjectSegmentation) -> float:
    """Return the area of a pixel, 0 where the image states none."""
    return float(abs(np.linalg.det(found.affine[:2, :2]))) if found.source.has_spacing else 0.0


def _voxel_mm3(found: ObjectSegmentation) -> float:
    return float(abs(np.linalg.det(found.affine[:3, :3]))) if found.source.has_spacing else 0.0
