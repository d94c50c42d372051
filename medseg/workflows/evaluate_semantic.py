"""Scores of a whole data set from one confusion matrix, and the pictures of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import InputError, MedsegError, Problem, UsageError
from medseg.io.files import file_stem, is_image_file
from medseg.io.raster import voc_colors
from medseg.io.read import read
from medseg.metrics.semantic import SemanticMetrics, SemanticScores
from medseg.volume import DEFAULT_COLORS, Label, Volume

CONFUSION_CSV = "confusion.csv"
CONFUSION_PNG = "confusion.png"
CLASSES_PNG = "class_iou.png"
PREDICTIONS_PNG = "predictions.png"

GRID_ROWS = 8
"""Images in the picture of predictions: from the worst to the best in even steps."""

BACKGROUND = "background"

ReadPair = Callable[[], tuple[Volume, Volume]]


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set.

    Attributes:
        names: By value in the masks, 0 included.
        colors: Of those values that have one of their own.
        ignored: Value of pixels of the truth that count for nobody; none when None.
    """

    names: Mapping[int, str]
    colors: Mapping[int, tuple[int, int, int]]
    ignored: int | None = None

    @classmethod
    def of(
        cls,
        tables: Sequence[Mapping[int, str]],
        labels: Sequence[Label],
        *,
        background: str = BACKGROUND,
        ignored: int | None = None,
    ) -> "ClassTable":
        """Join the names that the cases give their values.

        Args:
            tables: Of each case.
            labels: With the colours.
            background: Name of value 0.
            ignored: Value of pixels that count for nobody.

        Returns:
            The classes by rising value.

        Raises:
            InputError: If two cases give a value other names, or two values have one name
                (`label-mismatch`).
        """
        names = {0: background}
        for table in tables:
            for value, name in table.items():
                if names.setdefault(value, name) != name:
                    msg = (
                        "cases must give their values the same names, got"
                        f" {names[value]!r} and {name!r} for {value}. Give the names (--labels)."
                    )
                    raise InputError(msg, code="label-mismatch")
        if len(set(names.values())) < len(names):
            msg = f"classes must have different names, got {sorted(names.values())}."
            raise InputError(msg, code="label-mismatch")
        return cls(dict(sorted(names.items())), {one.index: one.color for one in labels}, ignored)

    @property
    def palette(self) -> npt.NDArray[np.uint8]:
        """(C, 3) colours in the order of the values: their own, else PASCAL VOC's."""
        standard = voc_colors(256)
        rows = [
            self.colors.get(value)
            or (
                standard[value]
                if value < len(standard)
                else DEFAULT_COLORS[value % len(DEFAULT_COLORS)]
            )
            for value in self.names
        ]
        return np.array(rows, np.uint8)

    @property
    def left_out(self) -> int:
        """The index of ignored pixels: one past the last class."""
        return len(self.names)

    def indices(self, mask: npt.NDArray[Any], *, truth: bool) -> npt.NDArray[np.uint16]:
        """Return values as class indices, counted from 0.

        Args:
            mask: Values that all have a name; ignored ones in the truth too.
            truth: Whether ignored values are left out.

        Returns:
            The same shape; `left_out` where they are.
        """
        table = np.zeros(65536, np.uint16)
        table[list(self.names)] = np.arange(len(self.names))
        if truth and self.ignored is not None:
            table[self.ignored] = self.left_out
        found: npt.NDArray[np.uint16] = table[mask]
        return found


@dataclass(frozen=True, eq=False)
class Semantic:
    """The scores of a data set, and how well each case was met.

    Attributes:
        scores: Of all cases.
        classes: Its classes.
        accuracy: Share of the pixels that are right, by case; cases without a pixel are left out.
    """

    scores: SemanticScores
    classes: ClassTable
    accuracy: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return the part `semantic` of the JSON document; `index` is the value in masks."""
        document = self.scores.as_json()
        values = dict(zip(document["labels"], self.classes.names, strict=True))
        document["labels"] = {
            name: {**scores, "index": values[name]} for name, scores in document["labels"].items()
        }
        return {**document, "ignored_value": self.classes.ignored}

    def shown_cases(self) -> list[str]:
        """Return the cases of the picture of predictions: from the worst to the best."""
        ranked = sorted(self.accuracy, key=lambda case: (self.accuracy[case], case))
        if len(ranked) <= GRID_ROWS:
            return ranked
        steps = np.linspace(0, len(ranked) - 1, GRID_ROWS).round().astype(int)
        return [ranked[step] for step in steps]


def score_dataset(
    cases: Mapping[str, ReadPair], classes: ClassTable, *, boundaries: bool
) -> Semantic:
    """Count all cases.

    Args:
        cases: What reads prediction and truth of each, on one grid.
        classes: Names of all values in them.
        boundaries: Whether contours are scored; 2D alone.

    Returns:
        The scores.
    """
    ignore = None if classes.ignored is None else classes.left_out
    metrics = SemanticMetrics(tuple(classes.names.values()), ignore, boundaries=boundaries)
    accuracy = {}
    for case, read_pair in cases.items():
        volumes = read_pair()
        pred = classes.indices(volumes[0].array[0], truth=False)
        label = classes.indices(volumes[1].array[0], truth=True)
        metrics.add(pred, label)
        counted = label != classes.left_out
        if counted.any():
            accuracy[case] = float((pred == label)[counted].mean())
    return Semantic(metrics.scores(), classes, accuracy)


def write_pictures(semantic: Semantic, output: Path) -> None:
    """Write the confusion matrix as CSV and picture, and the IoU of the classes as bars.

    Args:
        semantic: The scores.
        output: Folder they go into.

    Raises:
        OutputError: If a file cannot be written.
    """
    from medseg.report.semantic import (  # noqa: PLC0415  (matplotlib takes its time)
        write_class_bars,
        write_confusion_csv,
        write_confusion_picture,
    )

    write_confusion_csv(semantic.scores, output / CONFUSION_CSV)
    write_confusion_picture(semantic.scores, output / CONFUSION_PNG)
    write_class_bars(semantic.scores, output / CLASSES_PNG)


def images_of(folder: Path, cases: Sequence[str]) -> dict[str, Path]:
    """Find the image of each case: the file of its name.

    Args:
        folder: With images, at any depth.
        cases: Case ids.

    Returns:
        The file of each case that has exactly one.

    Raises:
        UsageError: If there is no folder (`not-found`), or no case has an image (`no-images`).
    """
    if not folder.is_dir():
        msg = f"images must be a folder, got {str(folder)!r}."
        raise UsageError(msg, code="not-found")
    by_stem: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and is_image_file(file):
            by_stem.setdefault(file_stem(file), []).append(file)
    found = {case: by_stem[case][0] for case in cases if len(by_stem.get(case, ())) == 1}
    if not found and cases:
        msg = (
            f"images must hold files named as the cases, such as {cases[0]!r}, got none in"
            f" {str(folder)!r}."
        )
        raise UsageError(msg, code="no-images")
    return found


def write_predictions(
    semantic: Semantic, cases: Mapping[str, ReadPair], images: Mapping[str, Path], path: Path
) -> list[Problem]:
    """Draw some cases: image, truth, prediction and error.

    Args:
        semantic: The scores.
        cases: What reads prediction and truth of each.
        images: File of each case that has one.
        path: The PNG to write.

    Returns:
        A warning for each case that cannot be drawn.

    Raises:
        OutputError: If the file cannot be written.
    """
    from medseg.report.prediction_grid import GridRow, write_prediction_grid  # noqa: PLC0415

    rows, problems = [], []
    for case in semantic.shown_cases():
        if case not in images:
            text = f"{case} is not drawn: there is not one image of this name"
            problems.append(Problem("no-image", text, "warning"))
            continue
        pred, label = cases[case]()
        try:
            image = _picture_of(images[case], label)
        except MedsegError as error:
            text = f"{case} is not drawn: {error}"
            problems.append(Problem(error.code, text, "warning"))
            continue
        masks = (
            semantic.classes.indices(label.array[0], truth=True),
            semantic.classes.indices(pred.array[0], truth=False),
        )
        rows.append(GridRow(f"{case}    {semantic.accuracy[case]:.1%} right", image, *masks))
    if rows:
        write_prediction_grid(
            rows,
            tuple(semantic.classes.names.values()),
            path,
            ignore_index=semantic.classes.left_out,
            colors=semantic.classes.palette,
        )
    return problems


def _picture_of(path: Path, label: Volume) -> npt.NDArray[Any]:
    volume = read(path)
    if volume.shape != label.shape:
        msg = (
            f"image must have the size of its masks, {label.shape}, got {volume.shape} in"
            f" {path.name}."
        )
        raise InputError(msg, code="grid-mismatch")
    return np.moveaxis(volume.array, 0, -1) if volume.channels == 3 else volume.array[0]
