"""The picture of a training: loss, Dice or IoU, learning rate, time waiting for data."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

KEY_METRIC = "val_mean_dice"
"""Key metric of a validation, where a bundle has no other."""
MEAN_PREFIX = "val_mean_"
TITLES = {"dice": "Dice", "iou": "IoU", "ap50": "AP50"}
MOST_LABELS = 8
"""Labels with a curve of their own; of more only the mean is drawn."""


def draw_curves(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the rows of `metrics.csv`.

    Args:
        rows: With `iteration`, `train_loss`, `val_mean_dice` or another mean, and so on; text or
            numbers, empty where there is none.
        path: PNG to write.
    """
    # the object interface: no display, and no global state of pyplot
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(9, 7), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2, sharex=True)
    _line(axes[0][0], rows, "train_loss", "training loss")
    axes[0][0].set_title("Training loss")
    columns = sorted({name for row in rows for name in row})
    mean = next((name for name in columns if name.startswith(MEAN_PREFIX)), KEY_METRIC)
    prefix = f"val_{kind_of(mean)}_"
    labels = [name for name in columns if name.startswith(prefix)]
    for name in labels if len(labels) <= MOST_LABELS else ():
        _line(axes[0][1], rows, name, name.removeprefix(prefix), alpha=0.6)
    _line(axes[0][1], rows, mean, "mean", color="black", marker=".")
    axes[0][1].set_title(f"{TITLES.get(kind_of(mean), kind_of(mean))} of the validation cases")
    axes[0][1].set_ylim(0, 1)
    if axes[0][1].lines:
        axes[0][1].legend(loc="lower right", fontsize="small")
    _line(axes[1][0], rows, "lr", "learning rate")
    axes[1][0].set_title("Learning rate")
    _line(axes[1][1], rows, "share_waiting", "waiting", scale=100)
    axes[1][1].set_title("Time spent waiting for data, %")
    axes[1][1].set_ylim(bottom=0)
    for ax in axes[1]:
        ax.set_xlabel("iteration")
    for ax in axes.flat:
        ax.grid(visible=True, alpha=0.3)
    figure.savefig(path, format="png")


def kind_of(metric: str) -> str:
    """Return what a mean is of.

    Args:
        metric: Name of a key metric.

    Examples:
        >>> kind_of("val_mean_dice")
        'dice'
    """
    return metric.removeprefix(MEAN_PREFIX)


def _line(
    ax: Any,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    label: str,
    scale: float = 1,
    **style: Any,
) -> None:
    points = [(float(row["iteration"]), _number(row.get(name)) * scale) for row in rows]
    points = [point for point in points if not math.isnan(point[1])]
    if points:
        ax.plot(*zip(*points, strict=True), label=label, **style)


def _number(value: Any) -> float:
    return math.nan if value in (None, "") else float(value)
