"""A page of images with their truth, what was predicted, and where the two differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import InputError
from medseg.io.raster import voc_colors
from medseg.report.figure import FAINT, TEXT, literal, new_page, save_page, short
from medseg.report.planes import PERCENTILES, RGB

COLUMNS = ("image", "truth", "prediction", "error")
CELL_WIDTH = 300
TALLEST_CELL = 420
SMALLEST_CELL = 60
MOST_ROWS = 40
MARGIN = 14
GAP = 8
LINE = 20
HEADER = 30
LEGEND_COLUMN = 235

IGNORED_COLOR = (255, 255, 255)
WRONG_COLOR = (214, 39, 40)
RIGHT_SHARE = 0.35
"""How much of the image shows where the prediction is right; the rest is white-grey."""
_FOG = 205.0


@dataclass(frozen=True, eq=False)
class GridRow:
    """One image of the page.

    Attributes:
        name: Written above the row; must not identify a patient.
        image: (rows, columns) grey or (rows, columns, 3) colour.
        truth: (rows, columns) class indices.
        prediction: (rows, columns) class indices.
    """

    name: str
    image: npt.NDArray[Any]
    truth: npt.NDArray[Any]
    prediction: npt.NDArray[Any]


def write_prediction_grid(
    rows: Sequence[GridRow],
    names: Sequence[str],
    path: Path,
    *,
    ignore_index: int | None = None,
    colors: npt.ArrayLike | None = None,
) -> None:
    """Write a PNG with a row an image: image, truth, prediction, error.

    Ignored pixels are white in all masks. In the error picture wrong pixels are red, the others
    show the image faintly. The legend names the classes that occur.

    Args:
        rows: The images, at most `MOST_ROWS`.
        names: Name of each class in the order of the indices.
        path: The PNG to write.
        ignore_index: Value of pixels of the truth that count for nothing; none when None.
        colors: (C, 3) red, green, blue of each class, 0 to 255; PASCAL VOC's when None.

    Raises:
        ValueError: If there are no rows or too many, or sizes or colours do not fit.
        InputError: With code `unknown-label` if a mask holds a value that is no class.
        OutputError: If the file cannot be written.
    """
    if not 0 < len(rows) <= MOST_ROWS:
        msg = f"rows must be 1 to {MOST_ROWS}, got {len(rows)}. Choose some of the images."
        raise ValueError(msg)
    for row in rows:
        _check(row, len(names), ignore_index)
    table = voc_colors(len(names)) if colors is None else np.asarray(colors, np.uint8)
    if table.shape != (len(names), 3):
        msg = f"colors must be one a class, ({len(names)}, 3), got {table.shape}."
        raise ValueError(msg)
    legend = _legend(rows, names, table, ignore_index)
    page = _Page.of(rows, len(legend))
    for column, title in enumerate(COLUMNS):
        page.text(title, page.left(column) + CELL_WIDTH / 2, HEADER / 2, 12, TEXT, ha="center")
    top = float(HEADER)
    for row, height in zip(rows, page.heights, strict=True):
        page.text(row.name, MARGIN, top + LINE / 2, 9, FAINT)
        for column, picture in enumerate(pictures_of(row, table, ignore_index)):
            smooth = "antialiased" if column == 0 else "nearest"  # between classes is no class
            page.picture(picture, page.left(column), top + LINE, height, smooth)
        top += LINE + height + GAP
    for number, (color, name) in enumerate(legend):
        line, column = divmod(number, page.legend_columns)
        page.entry(color, name, MARGIN + column * LEGEND_COLUMN, top + (line + 0.8) * LINE)
    save_page(page.figure, path)


def pictures_of(
    row: GridRow, colors: npt.NDArray[np.uint8], ignore_index: int | None
) -> tuple[RGB, RGB, RGB, RGB]:
    """Colour the four pictures of a row.

    Args:
        row: Checked.
        colors: (C, 3) of the classes.
        ignore_index: Value of ignored pixels of the truth.

    Returns:
        Image, truth, prediction and error, each (rows, columns, 3).
    """
    image = _shown(row.image)
    ignored = _ignored(row, ignore_index)
    truth, prediction = (colors[np.where(ignored, 0, mask)] for mask in (row.truth, row.prediction))
    grey = image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    error = (grey * RIGHT_SHARE + _FOG * (1 - RIGHT_SHARE)).round().astype(np.uint8)
    error[row.truth != row.prediction] = WRONG_COLOR
    for picture in (truth, prediction, error):
        picture[ignored] = IGNORED_COLOR
    return image, truth, prediction, error


def _check(row: GridRow, classes: int, ignore_index: int | None) -> None:
    size = row.truth.shape
    fits = row.image.shape in (size, (*size, 3)) and row.prediction.shape == size
    if len(size) != 2 or not fits or 0 in size:
        shapes = row.image.shape, row.truth.shape, row.prediction.shape
        msg = f"image, truth and prediction must be of one size, got {shapes} for {row.name}."
        raise ValueError(msg)
    counts = ~_ignored(row, ignore_index)
    for what, mask in (("truth", row.truth), ("prediction", row.prediction)):
        values = mask[counts]
        if mask.dtype.kind not in "ui" or (
            values.size and not 0 <= values.min() <= values.max() < classes
        ):
            found = [] if not values.size else [values.min().item(), values.max().item()]
            msg = f"{what} must hold 0 to {classes - 1}, got {mask.dtype} {found} for {row.name}."
            raise InputError(msg, code="unknown-label")


def _ignored(row: GridRow, ignore_index: int | None) -> npt.NDArray[np.bool_]:
    if ignore_index is None:
        return np.zeros(row.truth.shape, np.bool_)
    return np.asarray(row.truth == ignore_index)


def _shown(image: npt.NDArray[Any]) -> RGB:
    """Return an image as 8-bit colours: uint8 as it is, others between their percentiles."""
    if image.dtype != np.uint8:
        values = image.astype(np.float32)
        finite = values[np.isfinite(values)]
        low, high = np.percentile(finite, PERCENTILES) if finite.size else (0.0, 1.0)
        scaled = (np.nan_to_num(values, nan=low) - low) / max(high - low, 1e-6)
        image = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
    return np.asarray(image if image.ndim == 3 else image[..., None].repeat(3, axis=2))


def _legend(
    rows: Sequence[GridRow],
    names: Sequence[str],
    colors: npt.NDArray[np.uint8],
    ignore_index: int | None,
) -> list[tuple[tuple[int, ...], str]]:
    """Return colour and name of the classes that occur, and of what is white and red."""
    found: set[int] = set()
    ignored = wrong = False
    for row in rows:
        out = _ignored(row, ignore_index)
        found.update(np.unique(row.truth[~out]).tolist())
        found.update(np.unique(row.prediction[~out]).tolist())
        ignored |= bool(out.any())
        wrong |= bool((row.truth != row.prediction)[~out].any())
    entries = [(tuple(colors[index].tolist()), short(names[index])) for index in sorted(found)]
    entries += [(IGNORED_COLOR, "(ignored)")] if ignored else []
    return entries + ([(WRONG_COLOR, "(wrong)")] if wrong else [])


@dataclass(frozen=True)
class _Page:
    """A figure addressed in pixels from its top left corner."""

    figure: Any
    width: float
    height: float
    heights: tuple[float, ...]

    @classmethod
    def of(cls, rows: Sequence[GridRow], entries: int) -> "_Page":
        heights = tuple(
            float(
                np.clip(
                    CELL_WIDTH * r.truth.shape[0] / r.truth.shape[1], SMALLEST_CELL, TALLEST_CELL
                )
            )
            for r in rows
        )
        width = 2 * MARGIN + len(COLUMNS) * CELL_WIDTH + (len(COLUMNS) - 1) * GAP
        lines = -(-entries // ((width - 2 * MARGIN) // LEGEND_COLUMN))
        height = round(HEADER + sum(heights) + len(rows) * (LINE + GAP) + lines * LINE + MARGIN)
        return cls(new_page(width, height), width, height, heights)

    @property
    def legend_columns(self) -> int:
        return int((self.width - 2 * MARGIN) // LEGEND_COLUMN)

    def left(self, column: int) -> float:
        return MARGIN + column * (CELL_WIDTH + GAP)

    def text(
        self, text: str, x: float, y: float, size: float, color: str, ha: str = "left"
    ) -> None:
        at = x / self.width, 1 - y / self.height
        literal([self.figure.text(*at, text, fontsize=size, color=color, ha=ha, va="center")])

    def picture(self, picture: RGB, x: float, y: float, height: float, smooth: str) -> None:
        box = (
            x / self.width, 1 - (y + height) / self.height,
            CELL_WIDTH / self.width, height / self.height,
        )  # fmt: skip
        axes = self.figure.add_axes(box)
        axes.imshow(picture, interpolation=smooth)
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_color("#c9ced2")
            spine.set_linewidth(0.6)

    def entry(self, color: tuple[int, ...], name: str, x: float, y: float) -> None:
        from matplotlib.patches import Rectangle  # noqa: PLC0415

        corner = x / self.width, 1 - (y + 6) / self.height
        swatch = Rectangle(
            corner,
            12 / self.width,
            12 / self.height,
            transform=self.figure.transFigure,
            facecolor=[value / 255 for value in color],
            edgecolor="#8b949b",
            linewidth=0.6,
        )
        self.figure.add_artist(swatch)
        self.text(name, x + 19, y, 9.5, TEXT)
