"""Pages drawn without a display and without the global state of pyplot."""

from pathlib import Path
from typing import Any

from medseg.io.atomic import atomic_path

DPI = 100
MARGIN_INCHES = 0.12
TEXT = "#1d2429"
FAINT = "#66717a"
ABSENT = "#e3e6e8"
"""Shown where there is nothing to measure."""
LONGEST_NAME = 28
"""Letters of a name in a legend."""


def new_page(width: float, height: float, *, constrained: bool = False) -> Any:
    """Return an empty white figure.

    Args:
        width: In pixels.
        height: In pixels.
        constrained: Let matplotlib find room for titles and names, with a margin.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    if constrained:
        figure.set_layout_engine("constrained", w_pad=MARGIN_INCHES, h_pad=MARGIN_INCHES)
    return figure


def save_page(figure: Any, path: Path) -> None:
    """Write a figure as PNG, complete or not at all.

    Args:
        figure: From `new_page`.
        path: The PNG to write.

    Raises:
        OutputError: If the file cannot be written.
    """
    with atomic_path(path) as part:
        figure.savefig(part, format="png")


def short(name: str, longest: int = LONGEST_NAME) -> str:
    """Cut a name that is too long for a legend or an axis, and keep its end.

    Args:
        name: Of a class.
        longest: Letters that fit.

    Examples:
        >>> short("car"), short("a very long name of a class, number 12")
        ('car', 'a very long nam...number 12')
    """
    if len(name) <= longest:
        return name
    end = longest // 3 + 1
    return f"{name[: longest - 3 - end].rstrip()}...{name[-end:].lstrip()}"


def literal(texts: Any) -> None:
    """Show texts as they are: a name may hold a dollar sign, which starts mathematics.

    Args:
        texts: matplotlib's text objects.
    """
    for text in texts:
        text.set_parse_math(False)
