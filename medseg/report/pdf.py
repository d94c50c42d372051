"""A case on paper: the picture, a table of what was found, warnings, and what made it."""

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from medseg.report.planes import RGB
from medseg.volume import Label

WIDTH, HEIGHT = 8.27, 11.69
"""Of a page, A4 upright; inches."""

SIDE, TOP, BOTTOM = 0.6, 0.6, 0.7
"""Free at the edges; inches."""

LINE = 0.19
"""Height of a line; inches."""

PICTURE_HEIGHT = 4.2
"""At most; inches."""

LETTERS = 105
"""Of a line of small type."""

TEXT, FAINT, ALARM = "#14181c", "#5b656d", "#8a1c1c"
SMALL, LARGE = 8.0, 15.0

MOST_ROWS = 400
"""Of the table; of more labels the largest are listed."""

NAMED = 44
"""Letters of the name of a label."""


def draw_pdf(
    picture: RGB,
    labels: Sequence[Label],
    statistics: Sequence[Mapping[str, Any]],
    context: Mapping[str, Any],
    *,
    notice: str,
) -> bytes:
    """Draw a report of a case as PDF.

    The first page has the picture and what made the segmentation; the table of the labels that were
    found goes on over as many pages as it takes, then follow those that were not, and warnings.
    Neither the pages nor the document's properties hold a name, a date or a path.

    Args:
        picture: (rows, columns, 3), see `draw_preview`.
        labels: Of the segmentation.
        statistics: Of each label, in their order, see `label_statistics`; where they have them also
            `intensity` (`mean`, `sd`) and `largest_diameter_mm`.
        context: `bundle` (name, version, weights hash) or `method`, `warnings`, and
            `intensity_unit` where it is known; all safe to write.
        notice: What stands at the foot of each page.

    Returns:
        The document.
    """
    from matplotlib.backends.backend_pdf import PdfPages  # noqa: PLC0415

    stream = io.BytesIO()
    properties = {"Title": "Segmentation report", "Creator": "medseg", "CreationDate": None}
    with PdfPages(stream, metadata=properties) as pages:
        paper = _Paper(pages, notice)
        paper.line("Segmentation report", size=LARGE)
        paper.skip()
        for text in _made_by(context):
            paper.line(text)
        paper.skip()
        paper.picture(picture)
        _table(paper, labels, statistics, context)
        _remarks(paper, statistics, context)
        paper.end()
    return stream.getvalue()


class _Paper:
    """Pages that are written on from top to bottom."""

    def __init__(self, pages: Any, notice: str) -> None:
        self._pages, self._notice, self._number = pages, notice, 0
        self._figure: Any = None
        self._y = 0.0

    def _begin(self) -> None:
        from matplotlib.figure import Figure  # noqa: PLC0415

        self._number += 1
        self._figure = Figure(figsize=(WIDTH, HEIGHT))
        self._y = HEIGHT - TOP
        self._text(SIDE, BOTTOM - 2 * LINE, self._notice, ALARM, SMALL)
        self._text(WIDTH - SIDE, BOTTOM - 2 * LINE, f"page {self._number}", FAINT, SMALL, "right")

    def _text(
        self, x: float, y: float, text: str, color: str, size: float, side: str = "left"
    ) -> None:
        self._figure.text(
            x / WIDTH, y / HEIGHT, text, color=color, size=size, ha=side, parse_math=False
        )

    def has_room(self, height: float) -> bool:
        """Say whether something of a height, in inches, still fits on the page."""
        return self._figure is not None and self._y - height >= BOTTOM

    def row(
        self,
        cells: Sequence[tuple[float, str, str]],
        *,
        color: str = TEXT,
        size: float = SMALL,
        swatch: tuple[int, int, int] | None = None,
    ) -> None:
        """Write texts at places across the page, in inches, flush `left` or `right`."""
        if not self.has_room(LINE):
            self.end()
            self._begin()
        self._y -= LINE * max(1.0, size / SMALL * 0.8)
        if swatch is not None:
            from matplotlib.patches import Rectangle  # noqa: PLC0415

            corner = (SIDE / WIDTH, self._y / HEIGHT)
            shade = tuple(part / 255 for part in swatch)
            self._figure.add_artist(
                Rectangle(corner, 0.1 / WIDTH, 0.1 / HEIGHT, facecolor=shade, edgecolor="none")
            )
        for x, text, side in cells:
            self._text(x, self._y, text, color, size, side)

    def line(self, text: str, *, color: str = TEXT, size: float = SMALL) -> None:
        """Write one line."""
        self.row([(SIDE, text, "left")], color=color, size=size)

    def skip(self) -> None:
        """Leave half a line free."""
        self._y -= LINE / 2

    def picture(self, picture: RGB) -> None:
        """Place a picture, as wide as the page or as high as may be."""
        rows, columns = picture.shape[:2]
        width = min(WIDTH - 2 * SIDE, PICTURE_HEIGHT * columns / rows)
        height = width * rows / columns
        self._y -= height
        place = (SIDE / WIDTH, self._y / HEIGHT, width / WIDTH, height / HEIGHT)
        axes = self._figure.add_axes(place)
        axes.imshow(picture, aspect="auto", interpolation="none")  # as it is, at any zoom
        axes.set_axis_off()
        self.skip()

    def end(self) -> None:
        """Put the page with those before it."""
        if self._figure is not None:
            self._pages.savefig(self._figure)
        self._figure = None


def _made_by(context: Mapping[str, Any]) -> Iterator[str]:
    made_by = context.get("bundle") or context.get("method") or {}
    yield f"{made_by.get('name', 'medseg')}, version {made_by.get('version', 'unknown')}"
    if made_by.get("weights_sha256"):
        yield f"weights {made_by['weights_sha256']}"


def _table(
    paper: _Paper,
    labels: Sequence[Label],
    statistics: Sequence[Mapping[str, Any]],
    context: Mapping[str, Any],
) -> None:
    """Write a line a label that was found, with the heads of the columns on each page."""
    found = [(label, row) for label, row in zip(labels, statistics, strict=True) if row["voxels"]]
    in_all = len(found)
    if in_all > MOST_ROWS:
        found = sorted(found, key=lambda pair: -pair[1]["voxels"])[:MOST_ROWS]
    if not found:
        paper.line("Nothing was found.", size=12)
        return
    columns = _columns([row for _, row in found], str(context.get("intensity_unit") or ""))
    places = [WIDTH - SIDE - 1.05 * n for n in reversed(range(len(columns)))]
    for number, (label, row) in enumerate(found):
        if number == 0 or not paper.has_room(LINE):
            if not paper.has_room(2 * LINE):  # no heads without a row
                paper.end()
            heads = [(x, head, "right") for x, head in zip(places, columns, strict=True)]
            paper.row([(SIDE + 0.2, "label", "left"), *heads], color=FAINT)
        name = textwrap.shorten(label.name, NAMED, placeholder="...") or label.name[:NAMED]
        cells = [
            (x, _cell(row, key), "right") for x, key in zip(places, columns.values(), strict=True)
        ]
        paper.row([(SIDE + 0.2, name, "left"), *cells], swatch=label.color)
    if len(found) < in_all:
        paper.line(f"and {in_all - len(found)} smaller ones")
    paper.skip()


def _columns(rows: Sequence[Mapping[str, Any]], unit: str) -> dict[str, str]:
    """Return head and key of each column that has a value."""
    heads = {
        "volume (ml)": "volume_ml",
        "parts": "components",
        f"mean, SD{f' ({unit})' if unit else ''}": "intensity",
        "diameter (mm)": "largest_diameter_mm",
    }
    if rows[0]["volume_ml"] is None:
        heads = {"pixels": "voxels"} | heads
    return {
        head: key for head, key in heads.items() if any(row.get(key) is not None for row in rows)
    }


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if value is None:
        return "-"
    if key == "intensity":
        numbers = [value.get(name) for name in ("mean", "sd")]
        return ", ".join("-" if number is None else f"{number:.4g}" for number in numbers)
    if isinstance(value, int):
        return str(value)
    return f"{value:.1f}" if value >= 100 else f"{value:.3g}"


def _remarks(
    paper: _Paper, statistics: Sequence[Mapping[str, Any]], context: Mapping[str, Any]
) -> None:
    """Write what was not found, what the image cuts off, and warnings."""
    absent = [str(row["name"]) for row in statistics if not row["voxels"]]
    cut = [str(row["name"]) for row in statistics if row["voxels"] and row["touches_border"]]
    remarks = [
        *([f"Not found: {', '.join(absent)}."] if absent else []),
        *([f"At the edge of the image, and perhaps cut by it: {', '.join(cut)}."] if cut else []),
        *(f"Warning: {warning['message']}" for warning in context.get("warnings", ())),
    ]
    for remark in remarks:
        for text in textwrap.wrap(remark, LETTERS):
            paper.line(text, color=ALARM if remark.startswith("Warning") else TEXT)
