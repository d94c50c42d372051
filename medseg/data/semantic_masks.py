"""Labels of a dataset written as palette PNG, whatever they were drawn with."""

from pathlib import Path

import numpy as np

from medseg.data.dataset import LabelledDataset, TrainingCase
from medseg.errors import InputError, UsageError
from medseg.io.atomic import write_text
from medseg.io.masks import read_mask
from medseg.io.raster import voc_colors, write_palette_png
from medseg.volume import IGNORED, Label

CLASS_FILE = "classes.txt"


def write_semantic_masks(dataset: LabelledDataset, folder: Path) -> tuple[Path, ...]:
    """Write the label of every case as a PNG whose pixels are class numbers, and `classes.txt`.

    Class 0 is the background or what the dataset has in its place, 255 is what is left out. The
    palette has the dataset's colours, or those of PASCAL VOC. With the images beside them in
    `images`, a folder of `masks` and `classes.txt` is a dataset again.

    Args:
        dataset: Of natural images.
        folder: Gets `masks/<case>.png` and `classes.txt`.

    Returns:
        The masks, in the order of the cases.

    Raises:
        InputError: If a label is not 2D (`unsupported-dimensions`), cannot be read, or holds a
            value that is not known (`unknown-label`).
        UsageError: If structures overlap, or there are more than 255 classes.
        OutputError: If writing fails.
    """
    if dataset.regions or len(dataset.structures) >= IGNORED:
        msg = (
            f"dataset must have at most {IGNORED} classes that do not overlap, got"
            f" {len(dataset.structures)} structures."
        )
        raise UsageError(msg)
    paths = []
    for case in dataset.cases:
        path = folder / "masks" / f"{case.case_id}.png"
        write_semantic_mask(dataset, case, path)
        paths.append(path)
    names = [dataset.background_name, *(structure.name for structure in dataset.structures)]
    lines = [_line(n, name, dataset) for n, name in enumerate(names)]
    if dataset.ignored:
        lines.append(f"{IGNORED} void 224 224 192")
    write_text(folder / CLASS_FILE, "\n".join(lines) + "\n")
    return tuple(paths)


def write_semantic_mask(dataset: LabelledDataset, case: TrainingCase, path: Path) -> None:
    """Write the label of one case as a PNG whose pixels are class numbers.

    Args:
        dataset: The dataset of the case.
        case: With a label.
        path: PNG file to write.

    Raises:
        InputError: As `write_semantic_masks`; also if the case has no label (`no-label`).
        OutputError: If writing fails.
    """
    if case.label is None:
        msg = f"case must have a label, got none for {case.case_id}."
        raise InputError(msg, code="no-label")
    mask = read_mask(case.label)
    if not mask.is_2d:
        msg = f"label must be 2D to be a picture, got {mask.shape} for {case.case_id}."
        raise InputError(msg, code="unsupported-dimensions")
    numbers = {value: n for n, values in enumerate(dataset.class_values) for value in values}
    numbers |= dict.fromkeys(dataset.ignored, IGNORED)
    present = np.unique(mask.array).tolist()
    if unknown := [value for value in present if value not in numbers]:
        msg = f"label must hold only {sorted(numbers)}, got {unknown[:10]} in {case.case_id}."
        raise InputError(msg, code="unknown-label")
    table = np.zeros(max(present) + 1, np.uint8)
    for value in present:
        table[value] = numbers[value]
    labels = [
        Label(number, structure.name, color)
        for number, structure in enumerate(dataset.structures, start=1)
        if (color := dataset.colors.get(structure.name)) is not None
    ]
    zero = dataset.colors.get(dataset.background_name)
    labels += [Label(0, dataset.background_name, zero)] if zero else []
    path.parent.mkdir(parents=True, exist_ok=True)
    write_palette_png(table[mask.array[0]], labels, path)


def _line(number: int, name: str, dataset: LabelledDataset) -> str:
    red, green, blue = dataset.colors.get(name) or voc_colors(number + 1)[number].tolist()
    return f"{number} {name} {red} {green} {blue}"
