"""TIFF files, read page by page through tifffile: 8 to 32 bits, several pages, microscopy."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import tifffile

from medseg.errors import InputError
from medseg.io import gzip
from medseg.io.voxels import choose_frames

_MM_PER_UNIT = {
    **dict.fromkeys(("micron", "microns", "um", "µm", "μm", "\\u00B5m"), 1e-3),
    "nm": 1e-6,
    "mm": 1.0,
    "cm": 10.0,
}
_MOST_PIXELS = 1 << 28
_ORIENTATION_TAG = 274
_UNASSOCIATED = (tifffile.EXTRASAMPLE.ASSOCALPHA, tifffile.EXTRASAMPLE.UNASSALPHA)


@dataclass(frozen=True)
class TiffPage:
    """One page of a TIFF file.

    Attributes:
        array: (rows, columns, samples); white is high; colours are RGB.
        orientation: Value of the orientation tag, 1 to 8.
        has_alpha: Whether the last sample is an alpha channel.
        spacing_mm: Distance between (rows, columns) where the file states it physically.
    """

    array: npt.NDArray[Any]
    orientation: int
    has_alpha: bool
    spacing_mm: tuple[float, float] | None


def read_tiff(path: Path, *, frame: int | None = None, channels: int = 1) -> TiffPage:
    """Read one page, or as many single-channel pages as channels are expected.

    Args:
        path: The file.
        frame: Which page, from 0.
        channels: How many channels the reader of the image expects.

    Returns:
        The page.

    Raises:
        InputError: Codes `needs-frame`, `frame-out-of-range`, `unsupported-data-type`,
            `too-large`, `truncated`.
        ValueError: If the file is damaged; tifffile raises others as well.
    """
    with _damaged_tags(), tifffile.TiffFile(path) as tif:
        pages = _pages(tif)
        stack = _imagej_stack(tif, pages, path)
        frames = len(pages) if stack is None else len(stack)
        first, count = choose_frames(frames, path, frame, 1 if _in_depth_or_time(tif) else channels)
        if stack is not None:
            arrays = list(stack[first : first + count])
            page = pages[0]
        else:
            page = pages[first]
            arrays = [_samples_last(page_, path) for page_ in pages[first : first + count]]
        arrays = [_as_intensities(array, page, path) for array in arrays]
        if len({array.shape for array in arrays}) > 1:
            msg = f"pages must have one size to be channels, got several in {path.name}."
            raise InputError(msg, code="needs-frame")
        extra = page.extrasamples
        return TiffPage(
            array=np.concatenate(arrays, axis=2),
            orientation=_orientation(page),
            has_alpha=bool(extra) and count == 1 and extra[-1] in _UNASSOCIATED,
            spacing_mm=_spacing(tif, page),
        )


def write_tiff(array: npt.NDArray[Any], path: Path) -> None:
    """Write numbers as a grey TIFF of one page, compressed without loss.

    Args:
        array: (rows, columns) of an integer type, which the file has as well.
        path: The file to write.
    """
    tifffile.imwrite(
        path,
        array,
        photometric="minisblack",
        compression="adobe_deflate",
        predictor=True,
        metadata=None,
    )


def read_tiff_size(path: Path) -> tuple[int, int, int]:
    """Read the size of a TIFF file from its headers.

    Args:
        path: The file.

    Returns:
        Rows, columns (upright, as the orientation tag asks), pages.
    """
    with _damaged_tags(), tifffile.TiffFile(path) as tif:
        pages = _pages(tif)
        stack = _imagej_stack(tif, pages, path, read=False)
        count = len(pages) if stack is None else len(stack)
        rows, columns = int(pages[0].imagelength), int(pages[0].imagewidth)
        lies_on_its_side = _orientation(pages[0]) >= 5
    return (columns, rows, count) if lies_on_its_side else (rows, columns, count)


@contextmanager
def _damaged_tags() -> Iterator[None]:
    """Turn what tifffile stumbles over in tags of the wrong type or size into a ValueError."""
    try:
        yield
    except (TypeError, AttributeError, ZeroDivisionError, MemoryError) as error:
        msg = f"its tags do not fit together ({error})"
        raise ValueError(msg) from error


def _orientation(page: Any) -> int:
    tag = page.tags.get(_ORIENTATION_TAG)
    return int(tag.value) if tag is not None else 1


def _pages(tif: Any) -> list[Any]:
    return [page for page in tif.pages if not page.is_reduced]


def _in_depth_or_time(tif: Any) -> bool:
    """Say whether the pages are stated to be slices or moments, and no channels."""
    if not (tif.is_imagej or tif.is_ome) or not tif.series:
        return False
    series = tif.series[0]
    return any(
        axis in "ZT" and size > 1 for axis, size in zip(series.axes, series.shape, strict=True)
    )


def _imagej_stack(
    tif: Any, pages: list[Any], path: Path, *, read: bool = True
) -> npt.NDArray[Any] | None:
    """Return (frames, rows, columns, samples) of an ImageJ file that describes one page only."""
    if not tif.is_imagej or len(pages) != 1:
        return None
    series = tif.series[0]
    page = pages[0]
    _check_size(page, path)
    shape = (-1, page.imagelength, page.imagewidth, page.samplesperpixel)
    count = math.prod(series.shape) // math.prod(shape[1:])
    if count == 1:
        return None
    if series.nbytes > path.stat().st_size:  # ImageJ stores its stacks uncompressed
        raise gzip.truncated(path)
    if not read:
        return np.empty((count, 0))
    return np.asarray(series.asarray()).reshape(shape)


def _check_size(page: Any, path: Path) -> None:
    """Refuse a page whose header promises more than the file can hold, before memory is taken."""
    if page.imagelength * page.imagewidth > _MOST_PIXELS:
        size = f"{page.imagelength} x {page.imagewidth}"
        msg = f"image must be of at most {_MOST_PIXELS} pixels, got {size} in {path.name}."
        raise InputError(msg, code="too-large")
    stored = page.compression == tifffile.COMPRESSION.NONE
    if stored and page.nbytes // 8 > path.stat().st_size:  # 8: pixels of one bit
        raise gzip.truncated(path)


def _samples_last(page: Any, path: Path) -> npt.NDArray[Any]:
    _check_size(page, path)
    array = page.asarray()
    if page.axes == "YX":
        return np.asarray(array)[..., None]
    if page.axes == "SYX":
        return np.moveaxis(array, 0, -1)
    if page.axes == "YXS":
        return np.asarray(array)
    msg = f"page must have rows, columns and samples, got axes {page.axes} in {path.name}."
    raise InputError(msg, code="unsupported-dimensions")


def _as_intensities(array: npt.NDArray[Any], page: Any, path: Path) -> npt.NDArray[Any]:
    kinds = tifffile.PHOTOMETRIC
    kind = page.photometric
    if kind == kinds.PALETTE:
        table = np.asarray(page.colormap)  # (3, entries), 16 bits
        return (table[:, array[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0)
    if page.bitspersample == 1:
        array = array.astype(np.uint8) * 255
    if kind == kinds.MINISWHITE:
        if array.dtype.kind != "u":
            msg = f"inverted pixels must be unsigned, got {array.dtype} in {path.name}."
            raise InputError(msg, code="unsupported-data-type")
        largest = 255 if page.bitspersample == 1 else (1 << page.bitspersample) - 1
        return largest - array
    rgb_inside = kind == kinds.YCBCR and page.compression in (
        tifffile.COMPRESSION.JPEG,
        tifffile.COMPRESSION.OJPEG,
    )
    if kind not in (kinds.MINISBLACK, kinds.RGB) and not rgb_inside:
        msg = f"pixels must be grey, RGB or a palette, got {kind.name} in {path.name}."
        raise InputError(msg, code="unsupported-data-type")
    return array


def _spacing(tif: Any, page: Any) -> tuple[float, float] | None:
    """Return the spacing that ImageJ or OME states; printing resolutions are no spacing."""
    if tif.is_ome and tif.ome_metadata:
        return _ome_spacing(tif.ome_metadata)
    unit = _MM_PER_UNIT.get(str((tif.imagej_metadata or {}).get("unit", "")))
    x, y = page.tags.get("XResolution"), page.tags.get("YResolution")
    if unit is None or x is None or y is None or not (x.value[0] and y.value[0]):
        return None
    return unit * y.value[1] / y.value[0], unit * x.value[1] / x.value[0]


def _ome_spacing(xml: str) -> tuple[float, float] | None:
    pixels = next(
        (node for node in ElementTree.fromstring(xml).iter() if node.tag.endswith("}Pixels")), None
    )
    if pixels is None:
        return None
    sizes = []
    for axis in "YX":
        unit = _MM_PER_UNIT.get(pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        size = float(pixels.get(f"PhysicalSize{axis}", "nan"))
        if unit is None or not (math.isfinite(size) and size > 0):
            return None
        sizes.append(size * unit)
    return sizes[0], sizes[1]
