"""Labels whose values or colours stand for classes by a table."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import InputError
from medseg.io.files import is_image_file, read_file
from medseg.io.locator import Codes
from medseg.volume import Volume, mask_dtype, size_text

_MOST_LISTED = 10


def by_values(labels: npt.NDArray[Any], codes: Codes, name: str) -> npt.NDArray[Any]:
    """Give the values of a mask other ones.

    Args:
        labels: Mask of any shape; uint8 or uint16.
        codes: Range of values (`3`, or `1-65535`) and the value that it becomes.
        name: Of the file, for a message.

    Returns:
        Mask of the same shape; uint8 or uint16.

    Raises:
        InputError: If a value is in no range (`unknown-label`).

    Examples:
        >>> by_values(np.array([0, 7, 255], np.uint8), (("0", 0), ("1-65535", 1)), "m.png").tolist()
        [0, 1, 1]
    """
    present = np.unique(labels)
    ranges = ranges_of(codes)
    table = np.zeros(int(present[-1]) + 1, mask_dtype(max(value for *_, value in ranges)))
    unknown = []
    for value in present.tolist():
        new = next((new for low, high, new in ranges if low <= value <= high), None)
        if new is None:
            unknown.append(value)
        else:
            table[value] = new
    if unknown:
        listed = ", ".join(map(str, unknown[:_MOST_LISTED]))
        known = ", ".join(code for code, _ in codes)
        msg = f"label must hold only {known}, got {listed} in {name}. Declare or correct the value."
        raise InputError(msg, code="unknown-label")
    found: npt.NDArray[Any] = table[labels]
    return found


def ranges_of(codes: Codes) -> list[tuple[int, int, int]]:
    """Return the ranges of values that codes stand for.

    Args:
        codes: `3` or `1-65535`, and the value that each becomes.

    Returns:
        First, last, and new value of each.

    Examples:
        >>> ranges_of((("0", 0), ("1-65535", 1)))
        [(0, 0, 0), (1, 65535, 1)]
    """
    found = []
    for code, value in codes:
        low, mark, high = code.partition("-")
        found.append((int(low), int(high if mark else low), value))
    return found


def by_colors(pixels: npt.NDArray[Any], codes: Codes, name: str) -> npt.NDArray[Any]:
    """Turn the colours of a picture into the values that they stand for.

    Args:
        pixels: (3, rows, columns) red, green, blue; uint8.
        codes: Colour as six hexadecimal digits, and its value.
        name: Of the file, for a message.

    Returns:
        (1, rows, columns) values; uint8 or uint16.

    Raises:
        InputError: If it is no 8-bit colour image (`not-a-mask`), or has another colour
            (`unknown-color`); the message names one and where it is.
    """
    if pixels.shape[0] != 3 or pixels.dtype != np.uint8:
        msg = f"label must be an 8-bit colour image, got {_form(pixels)} in {name}."
        raise InputError(msg, code="not-a-mask")
    red, green, blue = pixels.astype(np.int32)
    packed = (red << 16) | (green << 8) | blue
    colors, places = np.unique(packed, return_inverse=True)
    value_of = {int(code, 16): value for code, value in codes}
    unknown = [color for color in colors.tolist() if color not in value_of]
    if unknown:
        row, column = np.argwhere(packed == unknown[0])[0].tolist()
        more = f", and {len(unknown) - 1} colours more" if len(unknown) > 1 else ""
        msg = (
            f"label must hold only the {len(codes)} declared colours, got"
            f" {_rgb(unknown[0])} at row {row}, column {column} of {name}{more}. Declare the"
            " colour or correct the label; JPEG is no format for labels."
        )
        raise InputError(msg, code="unknown-color")
    values = np.array([value_of[color] for color in colors.tolist()])
    found: npt.NDArray[Any] = values.astype(mask_dtype(int(values.max())))[places]
    return found.reshape(1, *packed.shape)


def _form(pixels: npt.NDArray[Any]) -> str:
    return f"{pixels.shape[0]} channels of {pixels.dtype}"


def _rgb(packed: int) -> str:
    return f"R {packed >> 16}, G {(packed >> 8) & 255}, B {packed & 255}"


def joined_objects(folder: Path) -> Volume:
    """Read a folder that holds a mask of each object as one mask of all.

    Args:
        folder: With image files of one size; what is not 0 is the object.

    Returns:
        (1, rows, columns) of 0 and 1; uint8.

    Raises:
        InputError: If there is no mask (`not-found`), a mask is of another size
            (`grid-mismatch`) or in colours (`not-a-mask`).
    """
    files = mask_files(folder)
    if not files:
        msg = f"{folder} must hold a mask of each object, got none."
        raise InputError(msg, code="not-found")
    first = read_file(files[0])
    found = np.zeros((1, *first.shape), np.uint8)
    for file in files:
        mask = first if file == files[0] else read_file(file)
        if mask.shape != first.shape:
            sizes = f"{size_text(mask.shape)} for {size_text(first.shape)}"
            msg = f"masks of one image must have one size, got {sizes} in {file.name}."
            raise InputError(msg, code="grid-mismatch")
        if (mask.array != mask.array[:1]).any():
            msg = f"mask must be grey, got a colour image in {file.name}."
            raise InputError(msg, code="not-a-mask")
        found |= mask.array[:1] != 0
    return Volume(found, first.affine, first.source)


def mask_files(folder: Path) -> Sequence[Path]:
    """Return the masks in a folder that holds one of each object.

    Args:
        folder: May be missing.

    Returns:
        Image files by name.
    """
    if not folder.is_dir():
        return ()
    return sorted(path for path in folder.iterdir() if path.is_file() and is_image_file(path))
