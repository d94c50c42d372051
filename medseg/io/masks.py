"""Masks read from files, checked to be masks, and brought to the grid of another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, InputError, Problem
from medseg.io.coco import read_coco_mask
from medseg.io.files import read_file
from medseg.io.labelme import read_labelme_mask
from medseg.io.locator import parse_locator
from medseg.io.read import read
from medseg.io.recode import by_colors, by_values, joined_objects
from medseg.volume import Volume, mask_dtype, size_text

LARGEST_LABEL = 65535
MOST_LABELS = 1000
"""A file with more different values than this is taken for an image, not a mask."""


def read_mask(path: Path) -> Volume:
    """Read a file of labels.

    Floats are accepted when every one of them is a whole number. The pixels of a palette PNG are
    its class indices, those of a one-bit PNG 0 and 1; three channels that are equal are one.

    Args:
        path: Any image file medseg reads, or as a path the `Locator` of a DICOM SEG or of a label
            with a `kind`.

    Returns:
        One channel of uint8 or uint16; 0 is background.

    Raises:
        InputError: With code `not-a-mask` when the file holds several channels, fractions,
            negative values, values above 65535, or more than 1000 different values; any code of
            the reader.
    """
    place = parse_locator(path)
    if place.kind == "labelme":
        return read_labelme_mask(place.path, place.codes)
    if place.kind == "coco":
        return read_coco_mask(place.path, place.entry, place.codes)
    if place.kind == "objects":
        return joined_objects(place.path)
    if place.kind == "colors":
        volume = read_file(place.path)
        return replace(volume, array=by_colors(volume.array, place.codes, place.path.name))
    if place.kind in ("values", "numbers", "voc-objects"):  # object numbers: there are many
        volume = _read_values(place.path, most=LARGEST_LABEL + 1)
        return replace(volume, array=by_values(volume.array, place.codes, place.path.name))
    return _read_values(path)


def _read_values(path: Path, most: int = MOST_LABELS) -> Volume:
    """Read a file whose values are the labels."""
    volume = _one_channel(path)
    return replace(volume, array=_labels(volume.array, path.name, most))


def read_numbers(path: Path) -> npt.NDArray[Any]:
    """Read an image file of whole numbers, of objects for example, however many there are.

    Args:
        path: Image file of 8, 16 or 32 bits; the pixels of a palette PNG are its indices.

    Returns:
        (rows, columns) numbers from 0 on, of the file's type; of int64 where that is none of
        integers.

    Raises:
        InputError: If it holds several channels, fractions or negative values (`not-a-mask`), or
            three dimensions (`unsupported-dimensions`); any code of the reader.
    """
    volume = _one_channel(path)
    if not volume.is_2d:
        msg = f"mask must be 2D to hold objects, got {size_text(volume.shape)} in {path.name}."
        raise InputError(msg, code="unsupported-dimensions")
    array = volume.array[0]
    numbers: npt.NDArray[Any] = array if array.dtype.kind in "ui" else array.astype(np.int64)
    if not np.array_equal(numbers, array) or numbers.min() < 0:
        example = float(array[(numbers != array) | (numbers < 0)].flat[0])
        msg = f"mask must hold whole numbers from 0 on, got {example:g} in {path.name}."
        raise InputError(msg, code="not-a-mask")
    return numbers


def _one_channel(path: Path) -> Volume:
    volume = read(path) if parse_locator(path).grid else read_file(path)
    indices = _palette_indices(path)
    if indices is not None:
        volume = replace(volume, array=indices[None])
    if volume.is_2d and volume.channels == 3 and (volume.array == volume.array[:1]).all():
        volume = replace(volume, array=volume.array[:1])
    if volume.channels != 1:
        colors = volume.is_2d and volume.channels == 3
        advice = (
            " Name the colours of the classes in classes.txt beside the masks." if colors else ""
        )
        msg = f"mask must have one channel, got {volume.channels} in {path.name}.{advice}"
        raise InputError(msg, code="not-a-mask")
    return volume


def _palette_indices(path: Path) -> npt.NDArray[Any] | None:
    """Return the class indices of a palette or one-bit PNG, which images show as colours."""
    if path.suffix.lower() != ".png":
        return None
    from PIL import Image  # noqa: PLC0415  (needed for this format alone)

    with Image.open(path) as image:
        return np.asarray(image, np.uint8) if image.mode in ("P", "1") else None


def _labels(array: npt.NDArray[Any], name: str, most: int) -> npt.NDArray[Any]:
    low, high = (float(value) for value in (array.min(), array.max()))
    rule = f"mask must hold whole numbers from 0 to {LARGEST_LABEL}"
    advice = "Give the mask, not the image or probabilities."
    if not (low >= 0 and high <= LARGEST_LABEL):  # also when NaN
        msg = f"{rule}, got values from {low:g} to {high:g} in {name}. {advice}"
        raise InputError(msg, code="not-a-mask")
    labels = array.astype(mask_dtype(int(high)), copy=False)
    if array.dtype.kind == "f" and not np.array_equal(labels, array):
        example = float(array[labels != array].flat[0])
        msg = f"{rule}, got {example:g} in {name}. {advice}"
        raise InputError(msg, code="not-a-mask")
    if high > most:
        different = int(np.count_nonzero(_present(labels)))
        if different > most:
            msg = (
                f"mask must hold at most {most} different values, got {different} in {name}."
                f" {advice}"
            )
            raise InputError(msg, code="not-a-mask")
    return labels


def _present(labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    present = np.zeros(np.iinfo(labels.dtype).max + 1, np.bool_)
    present[labels] = True
    return present


def labels_in(mask: Volume) -> set[int]:
    """Return the labels that occur in a mask, background left out.

    Args:
        mask: As `read_mask` returns it.

    Returns:
        Values above 0.
    """
    return set(np.flatnonzero(_present(mask.array)).tolist()) - {0}


def on_grid_of(mask: Volume, other: Volume) -> tuple[Volume, Problem]:
    """Bring a mask to the grid of another, each voxel taking the label nearest to its centre.

    Args:
        mask: The mask to resample.
        other: Gives the grid.

    Returns:
        The resampled mask, background where `mask` does not reach; and a warning that tells how
        many labelled voxels of `mask` lie outside the new grid.

    Raises:
        GeometryError: With code `grid-mismatch` when one is 2D and the other 3D, or a 2D image
            has no pixel size.
    """
    if mask.is_2d != other.is_2d or not (mask.source.has_spacing and other.source.has_spacing):
        msg = (
            f"mask must share a physical space with its label, got {size_text(mask.shape)} against"
            f" {size_text(other.shape)} without one."
        )
        raise GeometryError(msg, code="grid-mismatch")
    from scipy import ndimage  # noqa: PLC0415  (needed here alone)

    to_mask = np.linalg.inv(mask.affine) @ other.affine
    array = np.empty(other.shape, mask.array.dtype)
    ndimage.affine_transform(
        mask.array[0],
        to_mask[:-1, :-1],
        to_mask[:-1, -1],
        output=array,
        order=0,
        mode="grid-constant",  # "constant" drops the outermost half voxel
        cval=0,
    )
    outside = _labelled_outside(mask, other)
    lost = f"; {outside} labelled voxels lie outside it" if outside else ""
    problem = Problem(
        "resampled", f"the prediction was resampled to the grid of the label{lost}", "warning"
    )
    return Volume(array[None], other.affine, other.source), problem


def _labelled_outside(mask: Volume, other: Volume) -> int:
    where = np.argwhere(mask.array[0])
    to_other = np.linalg.inv(other.affine) @ mask.affine
    index = where @ to_other[:-1, :-1].T + to_other[:-1, -1]
    inside = (index >= -0.5 - 1e-6) & (index <= np.asarray(other.shape) - 0.5 + 1e-6)
    return int(np.count_nonzero(~inside.all(axis=1)))
