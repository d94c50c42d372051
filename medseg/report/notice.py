"""A line of text under a picture that leaves the house."""

import numpy as np

from medseg.report.planes import RGB

HEIGHT = 30
"""Of the line; pixels."""

SIDE = 12
"""Free to its left; pixels."""

LETTER = 0.62
"""Width of a letter at most, as a share of the size of its type."""

DPI = 100
LARGEST_TYPE = 10.0
BACKGROUND, TEXT = "#5b1a1a", "#ffffff"


def with_notice(picture: RGB, text: str) -> RGB:
    """Return a picture with a line of text below.

    Args:
        picture: (rows, columns, 3).
        text: One line; its type is smaller where the picture is narrow.

    Returns:
        (rows + 30, columns, 3).
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    width = picture.shape[1]
    fitting = (width - 2 * SIDE) / max(1, len(text)) / LETTER * 72 / DPI
    figure = Figure(figsize=(width / DPI, HEIGHT / DPI), dpi=DPI, facecolor=BACKGROUND)
    canvas = FigureCanvasAgg(figure)
    size = min(LARGEST_TYPE, fitting)
    figure.text(SIDE / width, 0.5, text, color=TEXT, size=size, va="center", parse_math=False)
    canvas.draw()
    line = np.asarray(canvas.buffer_rgba())[:, :width, :3]
    return np.concatenate([picture, line])
