"""One picture of a case: three planes with coloured labels, and what was found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg.report.labels import label_statistics
from medseg.report.objects import object_counts, shown_labels
from medseg.report.planes import (
    RGB,
    Plane,
    busiest_planes,
    display_window,
    flat_plane,
    oblique_angle,
    orthogonal_planes,
    paint,
    refuse_other_grid,
    scale_bar,
)
from medseg.report.runs import find_runs, label_profiles
from medseg.volume import Label, Segmentation, Volume

DPI = 100
MARGIN = 26
LARGEST_WIDTH = 1500
LARGEST_HEIGHT = 720
ENLARGED_SIDE = 480
"""Pictures with a longest side below this are enlarged to it, others shown at most as they are."""
SMALLEST_SIDE = 24
LEGEND_ENTRIES = 24
LEGEND_COLUMN = 290
LEGEND_LINE = 19
SMALL_LETTER = 7
"""Width of a letter of the smallest text, at most; pixels."""
LONGEST_NAME = 28
BACKGROUND = "#101418"
BACKGROUND_COLOR = (16, 20, 24)
TEXT = "#e8ecef"
SCALE_COLOR = (232, 236, 239)
FAINT = "#9aa5ae"
LETTERS = "#ffd166"
NOTHING = "nothing found"


@dataclass(frozen=True)
class _Row:
    label: Label
    voxels: int
    volume_ml: float | None
    objects: int | None


def write_preview(
    volume: Volume,
    segmentation: Segmentation,
    path: Path,
    *,
    statistics: Sequence[dict[str, Any]] | None = None,
) -> None:
    """Write a PNG that shows what was segmented, see `draw_preview`.

    Args:
        volume: The image.
        segmentation: Its labels, on the same grid.
        path: The PNG to write.
        statistics: What `label_statistics(segmentation)` returned, to save computing it again.

    Raises:
        ValueError: If image and segmentation do not lie on the same grid.
        OutputError: If the file cannot be written.
    """
    from medseg.io.raster import write_png  # noqa: PLC0415  (light commands come by here)

    write_png(draw_preview(volume, segmentation, statistics=statistics), path)


def draw_preview(
    volume: Volume,
    segmentation: Segmentation,
    *,
    statistics: Sequence[dict[str, Any]] | None = None,
) -> RGB:
    """Draw what was segmented.

    Three planes in radiological convention at their physical proportions, each where the labels
    show best; yellow letters say where the edges point in the patient, ticks where the other planes
    lie, a bar how long some mm are (pixels where their size is not known). 2D images are shown as
    they are stored. Nothing in the picture identifies the patient.

    Args:
        volume: The image; channel 0 is shown (three channels of a 2D image as colour).
        segmentation: Its labels, on the same grid.
        statistics: What `label_statistics(segmentation)` returned, to save computing it again.

    Returns:
        (rows, columns, 3) in RGB, uint8.

    Raises:
        ValueError: If image and segmentation do not lie on the same grid.
    """
    refuse_other_grid(volume, segmentation)
    rows = _rows(segmentation, statistics)
    numbers, labels = shown_labels(segmentation)
    if volume.is_2d:
        planes: tuple[Plane, ...] = (flat_plane(volume, numbers),)
    else:
        largest = max((label.index for label in segmentation.labels), default=0)
        profiles = label_profiles(find_runs(segmentation.array), largest)
        planes = orthogonal_planes(volume, numbers, busiest_planes(profiles))
    inside = None  # of a picture it decides nothing
    if not volume.is_2d:
        inside = np.concatenate([p.image[p.labels > 0].ravel() for p in planes])
    window = display_window(volume, inside)
    sizes = _picture_sizes(planes)
    pictures = [
        paint(plane, size, window, labels) for plane, size in zip(planes, sizes, strict=True)
    ]
    unit = "mm" if volume.source.has_spacing else "px"
    return _compose(planes, pictures, rows, _caption(volume, window), unit)


def _rows(segmentation: Segmentation, statistics: Sequence[dict[str, Any]] | None) -> list[_Row]:
    found = statistics if statistics is not None else label_statistics(segmentation)
    counts = object_counts(segmentation)
    return [
        _Row(label, row["voxels"], row["volume_ml"], counts.get(label.index))
        for label, row in zip(segmentation.labels, found, strict=True)
    ]


def _picture_sizes(planes: Sequence[Plane]) -> list[tuple[int, int]]:
    """Return rows and columns of each picture, all at one scale."""
    heights, widths = zip(*(plane.size_mm for plane in planes), strict=True)
    scale = min(LARGEST_WIDTH / sum(widths), LARGEST_HEIGHT / max(heights))  # pixels a mm
    if all(plane.axis < 0 for plane in planes):  # a picture: no larger than it needs to be
        finest = min(min(plane.pixel_mm) for plane in planes)
        scale = min(scale, max(1 / finest, ENLARGED_SIDE / max(*heights, *widths)))
    return [
        (max(SMALLEST_SIDE, round(height * scale)), max(SMALLEST_SIDE, round(width * scale)))
        for height, width in zip(heights, widths, strict=True)
    ]


def _caption(volume: Volume, window: tuple[float, float]) -> str:
    low, high = window
    unit = " HU" if volume.source.modality == "CT" else ""
    angle = 0.0 if volume.is_2d else oblique_angle(volume.affine)
    turned = f"    grid turned {angle:.0f} degrees from the patient's axes" if angle >= 1 else ""
    return f"black {low:g}, white {high:g}{unit}{turned}"


def _compose(
    planes: Sequence[Plane],
    pictures: Sequence[RGB],
    rows: Sequence[_Row],
    caption: str,
    unit: str,
) -> RGB:
    """Put pictures, letters, scale bars and legend on one page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    entries = _legend_entries(rows)
    wide = sum(p.shape[1] + 2 * MARGIN for p in pictures)
    width = max(wide, 2 * MARGIN + 2 * LEGEND_COLUMN)
    columns = max(1, (width - 2 * MARGIN) // LEGEND_COLUMN)
    lines = -(-len(entries) // columns)
    tall = max(p.shape[0] for p in pictures) + 3 * MARGIN + LEGEND_LINE
    height = tall + (lines + 2) * LEGEND_LINE + MARGIN // 2
    page = _Page(Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor=BACKGROUND), height)
    canvas = FigureCanvasAgg(page.figure)
    left = MARGIN + (width - wide) // 2
    for plane, picture in zip(planes, pictures, strict=True):
        page.plane(plane, picture, left, 2 * MARGIN)
        page.scale(plane, picture, left, 2 * MARGIN, unit)
        left += picture.shape[1] + 2 * MARGIN
    for number, (color, text) in enumerate(entries):
        column, line = divmod(number, lines)
        page.entry(color, text, MARGIN + column * LEGEND_COLUMN, tall + line * LEGEND_LINE)
    below = tall + lines * LEGEND_LINE + LEGEND_LINE // 2
    page.text(_not_found(rows, width - 2 * MARGIN), MARGIN, below, TEXT, 8.5)
    page.text(caption, MARGIN, below + LEGEND_LINE, FAINT, 8.5)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    for left, top, part in page.pictures:  # pixel for pixel, and faster than matplotlib's images
        drawn[top : top + part.shape[0], left : left + part.shape[1]] = part
    return drawn


def _legend_entries(rows: Sequence[_Row]) -> list[tuple[tuple[int, int, int] | None, str]]:
    """List what was found: by index, or the largest first when there are too many."""
    found = [row for row in rows if row.voxels]
    if not found:
        return [(None, NOTHING)]
    shown = found
    if len(found) > LEGEND_ENTRIES:
        shown = sorted(found, key=lambda row: -row.voxels)[: LEGEND_ENTRIES - 1]
    entries: list[tuple[tuple[int, int, int] | None, str]] = [
        (_swatch(row, len(rows)), f"{_short(row.label.name)}  {_amount(row)}") for row in shown
    ]
    if len(shown) < len(found):
        entries.append((None, f"and {len(found) - len(shown)} smaller labels"))
    return entries


def _swatch(row: _Row, labels: int) -> tuple[int, int, int] | None:
    """Return the colour of a label; None where each of its objects has its own."""
    return None if row.objects is not None and labels == 1 else row.label.color


def _amount(row: _Row) -> str:
    size = f"{row.voxels} pixels"
    if row.volume_ml is not None:
        size = f"{row.volume_ml:.0f} ml" if row.volume_ml >= 100 else f"{row.volume_ml:.3g} ml"
    if row.objects is None:
        return size
    return f"{row.objects} object{'' if row.objects == 1 else 's'}, {size}"


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."


def _not_found(rows: Sequence[_Row], width: int) -> str:
    """Name the absent labels, as many as fit on one line of `width` pixels."""
    absent = [_short(row.label.name) for row in rows if not row.voxels]
    text = ""
    for number, name in enumerate(absent):
        more = f" and {len(absent) - number} more"
        if len(f"not found: {text}, {name}{more}") * SMALL_LETTER > width:
            return f"not found: {text}{more}" if text else f"not found: {len(absent)} labels"
        text = f"{text}, {name}" if text else name
    return f"not found: {text}" if text else ""


@dataclass(frozen=True)
class _Page:
    """A figure addressed in pixels from its top left corner."""

    figure: Any
    height: int
    pictures: list[tuple[int, int, RGB]] = field(default_factory=list)

    def text(self, text: str, x: float, y: float, color: str, size: float, **where: str) -> None:
        """Write one line; y is its middle unless `va` says otherwise."""
        width = self.figure.get_figwidth() * DPI
        alignment = {"ha": "left", "va": "center"} | where
        self.figure.text(
            x / width,
            1 - y / self.height,
            text,
            color=color,
            size=size,
            parse_math=False,
            **alignment,
        )

    def plane(self, plane: Plane, picture: RGB, x: int, y: int) -> None:
        """Place one plane with its title, letters and ticks."""
        rows, columns = picture.shape[:2]
        middle_x, middle_y = x + columns / 2, y + rows / 2
        self.pictures.append((x, y, _with_ticks(picture, plane.crossings)))
        west, east, north, south = plane.edges
        for letter, at_x, at_y in (
            (west, x - 12, middle_y),
            (east, x + columns + 12, middle_y),
            (north, middle_x, y - 11),
            (south, middle_x, y + rows + 12),
        ):
            self.text(letter, at_x, at_y, LETTERS, 10, ha="center", weight="bold")
        if plane.name:
            title = f"{plane.name}  {plane.index + 1} / {plane.count}"
            self.text(title, x, y - 30, TEXT, 10)

    def scale(self, plane: Plane, picture: RGB, x: int, y: int, unit: str) -> None:
        """Draw a scale bar below the right end of a plane."""
        rows, columns = picture.shape[:2]
        width = plane.size_mm[1]
        length, text = scale_bar(width, unit)
        right, top = x + columns, y + rows + 4
        bar = np.empty((5, max(1, round(columns * length / width)), 3), np.uint8)
        bar[:] = SCALE_COLOR
        bar[:-2, 1:-1] = BACKGROUND_COLOR  # its ends are upright
        self.pictures.append((right - bar.shape[1], top, bar))
        self.text(text, right, top + 13, TEXT, 8, ha="right")

    def entry(self, color: tuple[int, int, int] | None, text: str, x: int, y: int) -> None:
        """Write one line of the legend."""
        if color is not None:
            swatch = np.empty((11, 11, 3), np.uint8)
            swatch[:] = color
            self.pictures.append((x, y - 5, swatch))
        if text == NOTHING:
            self.text(text, x, y, LETTERS, 13, weight="bold")
        else:
            self.text(text, x + (18 if color is not None else 0), y, TEXT, 9.5)


def _with_ticks(picture: RGB, crossings: tuple[float, float] | None) -> RGB:
    """Mark at the edges where the other planes cut this one."""
    if crossings is None:
        return picture
    marked = picture.copy()
    rows, columns = picture.shape[:2]
    across, down = int(crossings[0] * columns), int(crossings[1] * rows)
    tick = max(3, min(rows, columns) // 40)
    for part in (
        np.s_[:tick, across], np.s_[-tick:, across], np.s_[down, :tick], np.s_[down, -tick:]
    ):  # fmt: skip
        marked[part] = (255, 209, 102)
    return marked
