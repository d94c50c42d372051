"""A picture of a 2D case at full resolution: the image under its labels in colour."""

from pathlib import Path

import numpy as np

from medseg.io.raster import write_png
from medseg.report.objects import shown_labels
from medseg.report.planes import display_window, flat_plane, paint
from medseg.volume import Segmentation, Volume

ROWS_AT_ONCE = 256
"""Rows that are painted together: as floating point numbers a picture takes much memory."""


def write_overlay(volume: Volume, segmentation: Segmentation, path: Path) -> None:
    """Write the image with translucent labels and their outlines as PNG, pixel for pixel.

    Objects that are told apart have an outline each, see `shown_labels`.

    Args:
        volume: (C, rows, columns); three channels are shown as colour, else channel 0 as grey.
        segmentation: Its labels, on the same grid.
        path: The PNG to write.

    Raises:
        ValueError: If the volume is 3D, or the segmentation of another size.
        OutputError: If the file cannot be written.
    """
    if not volume.is_2d or volume.shape != segmentation.array.shape:
        msg = (
            "volume must be a 2D image of the size of its segmentation,"
            f" got {volume.shape} and {segmentation.array.shape}."
        )
        raise ValueError(msg)
    numbers, labels = shown_labels(segmentation)
    whole = flat_plane(volume, numbers)
    window = display_window(volume)
    rows, columns = volume.shape
    picture = np.empty((rows, columns, 3), np.uint8)
    for start in range(0, rows, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, rows)
        # a row more on either side: outlines depend on the neighbours
        low, high = max(start - 1, 0), min(stop + 1, rows)
        part = whole.rows(low, high)
        painted = paint(part, (high - low, columns), window, labels)
        picture[start:stop] = painted[start - low : stop - low]
    write_png(picture, path)
