"""PNG, JPEG, TIFF and BMP: natural images in, palette masks out."""

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image

from medseg.errors import InputError, Problem, UsageError
from medseg.io import gzip
from medseg.io.atomic import atomic_path
from medseg.io.tiff import read_tiff, read_tiff_size, write_tiff
from medseg.io.voxels import checked_finite, choose_frames
from medseg.volume import Label, Source, Volume

_TIFF_SUFFIXES = (".tif", ".tiff")
_EXIF_ORIENTATION = 0x0112
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_DEPTH_AT, _PNG_COLOR_AT = 24, 25  # of the IHDR chunk (PNG specification 11.2.2)
_ALPHA_MODES = ("LA", "PA", "RGBA", "La", "RGBa")
_DAMAGED = (ValueError, SyntaxError, RuntimeError, LookupError, struct.error)
_GREY_MODES = {"1": "L", "L": "L", "LA": "L", "La": "L", "I;16": "I;16", "I": "I", "F": "F"}

PICTURE_LEVEL = 1
"""Of zlib, for pictures to look at: 6 makes them a tenth smaller in six times the time."""

PALETTE_LEVEL = 3

MOST_IN_PNG, _MOST_NUMBERS = 65535, 2**32 - 1

# What each EXIF orientation needs: (turns by 90 degrees against the clock, then mirror columns).
_UPRIGHT = {
    1: (0, False), 2: (0, True), 3: (2, False), 4: (2, True),
    5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False),
}  # fmt: skip


@dataclass(frozen=True)
class RasterInfo:
    """What the header of a natural image says.

    Attributes:
        size: Rows and columns, upright.
        frames: Number of pages.
        affine: None: no place in a patient.
        problems: Warnings.
    """

    size: tuple[int, int]
    frames: int
    affine: None = None
    problems: tuple[Problem, ...] = ()


def read_raster_info(path: Path) -> RasterInfo:
    """Read the size of an image file, and no pixel.

    Args:
        path: The file.

    Returns:
        Its size, after the rotation that its orientation tag asks for.

    Raises:
        InputError: If it is not such a file.
    """
    with _raster_errors(path):
        if path.suffix.lower() in _TIFF_SUFFIXES:
            rows, columns, frames = read_tiff_size(path)
            return RasterInfo((rows, columns), frames)
        with Image.open(path) as image:
            columns, rows = image.size
            turns, _ = _UPRIGHT.get(image.getexif().get(_EXIF_ORIENTATION, 1), (0, False))
            frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
    return RasterInfo((columns, rows) if turns % 2 else (rows, columns), frames)


def read_raster(path: Path, *, frame: int | None = None, channels: int = 1) -> Volume:
    """Read a natural image.

    Grey images have one channel, colour images (palettes and CMYK too) three; 8 and 16 bits stay.
    The rotation that EXIF asks for is applied. An alpha channel is left out. Both are said.

    Args:
        path: `.png`, `.jpg`, `.tif` or `.bmp`.
        frame: Which page of a TIFF of several pages, from 0.
        channels: How many channels the reader of the image expects.

    Returns:
        Volume (C, rows, columns); its spacing is 1 mm and `has_spacing` is false unless ImageJ
        or OME state it.

    Raises:
        InputError: Codes `not-found`, `unreadable`, `truncated`, `too-large`, `needs-frame`,
            `frame-out-of-range`, `unsupported-data-type`, `non-finite`.
    """
    path = Path(path)
    problems: list[Problem] = []
    spacing = None
    with _raster_errors(path):
        if path.suffix.lower() in _TIFF_SUFFIXES:
            page = read_tiff(path, frame=frame, channels=channels)
            array, orientation, spacing = page.array, page.orientation, page.spacing_mm
            has_alpha = page.has_alpha
            array = array[..., :-1] if has_alpha else array
        else:
            array, orientation, has_alpha = _read_pillow(path, frame, problems)
    if has_alpha:
        problems.append(Problem("alpha-dropped", "the alpha channel is not used", "warning"))
    turns, mirrored = _UPRIGHT.get(orientation, (0, False))
    if turns or mirrored:
        array = np.rot90(array, turns)
        array = array[:, ::-1] if mirrored else array
        message = f"the image is turned upright, as its orientation tag {orientation} asks"
        problems.append(Problem("exif-rotated", message, "warning"))
        spacing = spacing[::-1] if spacing and turns % 2 else spacing
    array = np.ascontiguousarray(np.moveaxis(array, -1, 0))
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
    problems.extend(checked_finite(array, path))
    rows_mm, columns_mm = spacing or (1.0, 1.0)
    source = Source(
        format="raster", path=path, has_spacing=spacing is not None, problems=tuple(problems)
    )
    return Volume(array, np.diag([rows_mm, columns_mm, 1.0]), source)


def write_palette_png(array: npt.NDArray[Any], labels: Sequence[Label], path: Path) -> None:
    """Write a 2D mask as PNG whose pixel values are the class indices, atomically.

    Up to index 255 it is an 8-bit palette image that viewers show in the labels' colours; beyond,
    a 16-bit grey one.

    Args:
        array: (rows, columns) class indices; uint8 or uint16.
        labels: Give the colours; other indices get those of PASCAL VOC.
        path: The file to write.

    Raises:
        OutputError: If writing fails.
        UsageError: If the mask is not a 2D one of uint8 or uint16.
    """
    if array.ndim != 2 or array.dtype not in (np.uint8, np.uint16):
        msg = f"array must be (rows, columns) of uint8 or uint16, got {array.dtype} {array.shape}."
        raise UsageError(msg)
    largest = max([int(array.max()), *(label.index for label in labels)])
    if largest > 255:
        image = Image.fromarray(np.ascontiguousarray(array, np.uint16))
    else:
        image = Image.fromarray(np.ascontiguousarray(array, np.uint8)).convert("L")
        image = Image.frombytes("P", image.size, image.tobytes())
        palette = voc_colors(256)
        for label in labels:
            palette[label.index] = label.color
        image.putpalette(palette.tobytes())
    with atomic_path(path) as part:
        image.save(part, format="PNG", compress_level=PALETTE_LEVEL)


def write_png(array: npt.NDArray[Any], path: Path) -> None:
    """Write a picture as PNG, atomically.

    Args:
        array: (rows, columns, 3) RGB or (rows, columns) grey; uint8.
        path: The file to write.

    Raises:
        OutputError: If writing fails.
        UsageError: If the array is something else.
    """
    if array.dtype != np.uint8 or array.shape[2:] not in ((), (3,)) or array.ndim < 2:
        msg = f"array must be uint8 RGB or grey, got {array.dtype} {array.shape}."
        raise UsageError(msg)
    # as small as Pillow's with the same filter, in half of its time
    data = imagecodecs.png_encode(
        np.ascontiguousarray(array), level=PICTURE_LEVEL, filter=imagecodecs.PNG.FILTER.PAETH
    )
    with atomic_path(path) as part:
        part.write_bytes(data)


def write_label_map(labels: npt.NDArray[Any], path: Path) -> Path:
    """Write a map with a number for each object, atomically: PNG of 16 bits, or TIFF.

    Args:
        labels: (rows, columns) numbers of objects, 0 is background; integers.
        path: The file to write. Without a suffix it gets `.png`, or `.tif` where there are more
            than 65535 objects.

    Returns:
        The file. A TIFF has 16 bits, or 32 where a number needs them.

    Raises:
        OutputError: If writing fails.
        UsageError: If it is no such map, the suffix is another one, or a number is above 65535
            for PNG.
    """
    low, high = (int(labels.min()), int(labels.max())) if labels.size else (-1, 0)
    if labels.ndim != 2 or labels.dtype.kind not in "ui" or low < 0 or high > _MOST_NUMBERS:
        got = f"{labels.dtype} {labels.shape} from {low} to {high}"
        msg = f"labels must be (rows, columns) of integers from 0 to {_MOST_NUMBERS}, got {got}."
        raise UsageError(msg)
    wide = high > MOST_IN_PNG
    if not path.suffix:
        path = path.with_name(path.name + (".tif" if wide else ".png"))
    suffix = path.suffix.lower()
    if suffix not in (".png", *_TIFF_SUFFIXES) or (suffix == ".png" and wide):
        msg = (
            f"path must end in .tif, or in .png for numbers up to {MOST_IN_PNG}, got {path.name}"
            f" for {high}."
        )
        raise UsageError(msg)
    array = np.ascontiguousarray(labels, np.uint32 if wide else np.uint16)
    with atomic_path(path) as part:
        if suffix == ".png":
            Image.fromarray(array).save(part, format="PNG", compress_level=PALETTE_LEVEL)
        else:
            write_tiff(array, part)
    return path


def voc_colors(count: int) -> npt.NDArray[np.uint8]:
    """Return the colours of PASCAL VOC's palette.

    Args:
        count: How many, at most 256.

    Returns:
        (count, 3) red, green, blue; index 0 is black.

    Source:
        The VOC2012 development kit: three bits of the index go to the three colours' high bits,
        the next three to the bits below, and so on.

    Examples:
        >>> voc_colors(4).tolist()
        [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    """
    index = np.arange(count)
    colors = np.zeros((count, 3), np.uint8)
    for step in range(3):
        for channel in range(3):
            bit = (index >> (3 * step + channel)) & 1
            colors[:, channel] |= (bit << (7 - step)).astype(np.uint8)
    return colors


def _read_pillow(
    path: Path, frame: int | None, problems: list[Problem]
) -> tuple[npt.NDArray[Any], int, bool]:
    """Return (rows, columns, samples) without alpha, EXIF orientation, whether it had alpha."""
    with Image.open(path) as image:
        frames = int(getattr(image, "n_frames", 1))
        if image.format == "MPO" and frame is None:
            if frames > 1:
                message = f"the first of {frames} pictures is used; the others are previews"
                problems.append(Problem("previews-ignored", message, "warning"))
            first = 0
        else:
            first, _ = choose_frames(frames, path, frame, 1)
        image.seek(first)
        orientation = int(image.getexif().get(_EXIF_ORIENTATION, 1))
        has_alpha = image.mode in _ALPHA_MODES or "transparency" in image.info
        if image.format == "PNG" and _is_deep_colour_png(path):
            array = np.asarray(imagecodecs.png_decode(path.read_bytes()))
            array = array if array.ndim == 3 else array[..., None]
            deep_alpha = array.shape[2] in (2, 4)
            return (array[..., :-1] if deep_alpha else array), orientation, deep_alpha
        mode = "I;16" if image.mode.startswith("I;16") else image.mode
        pixels = np.asarray(image.convert(_GREY_MODES.get(mode, "RGB")))
    return (pixels if pixels.ndim == 3 else pixels[..., None]), orientation, has_alpha


def _is_deep_colour_png(path: Path) -> bool:
    """Tell whether a PNG has 16 bits and more than grey: Pillow would cut it down to 8."""
    with path.open("rb") as stream:
        start = stream.read(_PNG_COLOR_AT + 1)
    return start.startswith(_PNG_MAGIC) and start[_PNG_DEPTH_AT] == 16 and start[_PNG_COLOR_AT] != 0


@contextmanager
def _raster_errors(path: Path) -> Iterator[None]:
    try:
        with gzip.input_errors(path), warnings.catch_warnings():
            # Large slides are meant to be read; beyond twice that size Pillow refuses.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if path.stat().st_size == 0:
                raise EOFError
            yield
    except Image.DecompressionBombError as error:
        msg = f"image must be of at most {2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels: {path.name}."
        raise InputError(msg, code="too-large") from error
    except InputError as error:
        if error.code == "unreadable" and "truncat" in str(error.__cause__).lower():
            raise gzip.truncated(path) from error
        raise
    except _DAMAGED as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        msg = f"path must be a readable image, got {path.name}: {reason}. Get it again."
        raise InputError(msg) from error
