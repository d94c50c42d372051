"""Pictures of the scores of a labelled data set: confusion matrix and bars, a class a row."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from medseg.io.atomic import write_text
from medseg.metrics.semantic import CLASS_METRICS, SemanticScores
from medseg.report.figure import ABSENT, FAINT, TEXT, literal, new_page, save_page, short

FEW_CLASSES = 8
MOST_NUMBERED = 50
"""Classes up to which the cells of the matrix hold numbers."""
LARGEST_MATRIX = 3000
BAR_HEIGHT = 24
LONGEST_AXIS_NAME = 40
VALUE_COLUMN = 1.09
"""Where the numbers beside the bars end, on the axis from 0 to 1."""

_TITLES = {"iou": "IoU", "dice": "Dice (F1)", "boundary_f1": "Boundary F1"}


def write_confusion_csv(scores: SemanticScores, path: Path) -> None:
    """Write the confusion matrix: a row a true class, a column a predicted one; pixels.

    Args:
        scores: Of a data set.
        path: The CSV to write.

    Raises:
        OutputError: If the file cannot be written.
    """
    write_text(path, scores.confusion_csv())


def write_confusion_picture(scores: SemanticScores, path: Path) -> None:
    """Draw the confusion matrix as shares of each true class.

    A cell holds percent of its row, nothing where no pixel is. Rows of classes that are absent
    from the truth are grey.

    Args:
        scores: Of a data set.
        path: The PNG to write.

    Raises:
        OutputError: If the file cannot be written.
    """
    count = len(scores.names)
    cell = min(64 if count <= FEW_CLASSES else 42, LARGEST_MATRIX / count)
    names = [short(name, LONGEST_AXIS_NAME) for name in scores.names]
    margin = 90 + 7 * max(len(name) for name in names)
    side = max(count * cell + margin, 560)
    figure = new_page(side + 40, side, constrained=True)
    axes = figure.subplots()
    totals = scores.confusion.sum(axis=1, keepdims=True)
    shares = np.full(scores.confusion.shape, np.nan)
    np.divide(scores.confusion, totals, out=shares, where=totals > 0)
    axes.set_facecolor(ABSENT)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if count <= MOST_NUMBERED:
        for row, column in np.argwhere(scores.confusion):
            share = float(shares[row, column])
            color = "white" if share > 0.5 else TEXT
            axes.text(column, row, percent(share), color=color, **_centred(cell))
    size = min(10.0, max(4.0, cell / 4.2))
    axes.set_xticks(range(count), names, rotation=90, fontsize=size)
    axes.set_yticks(range(count), names, fontsize=size)
    literal([*axes.get_xticklabels(), *axes.get_yticklabels()])
    axes.set_xticks(np.arange(0.5, count - 1), minor=True)
    axes.set_yticks(np.arange(0.5, count - 1), minor=True)
    axes.grid(which="minor", color="white", linewidth=1)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel("prediction", color=FAINT)
    axes.set_ylabel("truth, rows in %", color=FAINT)
    figure.suptitle(_summary(scores), color=TEXT, fontsize=11)  # wider than few cells
    save_page(figure, path)


def write_class_bars(scores: SemanticScores, path: Path, metric: str = "iou") -> None:
    """Draw one metric of every class as bars, with the mean as a line.

    Args:
        scores: Of a data set.
        path: The PNG to write.
        metric: One of `medseg.metrics.semantic.CLASS_METRICS`.

    Raises:
        ValueError: If the metric is unknown.
        OutputError: If the file cannot be written.
    """
    if metric not in CLASS_METRICS:
        msg = f"metric must be one of {', '.join(CLASS_METRICS)}, got {metric!r}."
        raise ValueError(msg)
    values = np.asarray(getattr(scores, metric))
    count = len(values)
    figure = new_page(760, 120 + BAR_HEIGHT * count, constrained=True)
    axes = figure.subplots()
    axes.barh(range(count), np.nan_to_num(values), color="#3573a8", height=0.72)
    for index, value in enumerate(values):
        if math.isnan(value):
            axes.text(0.01, index, "nothing to measure", va="center", color=FAINT)
        else:
            place = {"ha": "right", "va": "center"}
            axes.text(VALUE_COLUMN, index, f"{value:.3f}", color=TEXT, **place)
    mean = scores.as_json()["mean"][metric]
    if mean is not None:
        axes.axvline(mean, color="#e0703a", linestyle="--", linewidth=1.3)
    axes.set_yticks(range(count), [short(name, LONGEST_AXIS_NAME) for name in scores.names])
    literal(axes.get_yticklabels())
    axes.set_ylim(count - 0.4, -0.6)
    axes.set_xlim(0, VALUE_COLUMN)
    axes.spines.bottom.set_bounds(0, 1)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.tick_params(length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.suptitle(_bars_title(scores, metric, mean), color=TEXT, fontsize=11)
    save_page(figure, path)


def percent(share: float) -> str:
    """Return a share above 0 in percent, short enough for a cell.

    Args:
        share: 0 to 1.

    Examples:
        >>> percent(1.0), percent(0.374), percent(0.0312), percent(0.9996), percent(0.0001)
        ('100', '37', '3.1', '99.9', '<.1')
    """
    value = 100 * share
    if 99.5 <= value < 100:
        return f"{math.floor(value * 10) / 10:.1f}"  # not 100 where a pixel is wrong
    if value < 0.1:
        return "<.1"
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _centred(cell: float) -> dict[str, Any]:
    return {"ha": "center", "va": "center", "fontsize": min(11.0, max(3.5, cell / 5.2))}


def _summary(scores: SemanticScores) -> str:
    return (
        f"{scores.images} image{'' if scores.images == 1 else 's'}    "
        f"pixel accuracy {scores.pixel_accuracy:.3f}    mean IoU {scores.mean_iou:.3f}"
    )


def _bars_title(scores: SemanticScores, metric: str, mean: float | None) -> str:
    title = f"{_TITLES.get(metric, metric.capitalize())} by class"
    if mean is None:
        return title
    if metric == "boundary_f1":
        return f"{title}    mean {mean:.3f} over {scores.boundary_images} images"
    return f"{title}    mean {mean:.3f} over {scores.counted[metric]} classes"
