"""What the classical methods ask of an image, and its way to SimpleITK and back."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from medseg.errors import InputError, Problem, UsageError
from medseg.volume import Segmentation, Volume, make_labels, mask_dtype, size_text

MOST_REGIONS = 65535
"""Labels that a mask of uint16 can tell apart."""


class Method(Protocol):
    """A classical method with its settings.

    Attributes:
        method: Its name.
        numbered: Whether its labels are numbered regions rather than structures with a name.
    """

    method: ClassVar[str]
    numbered: ClassVar[bool]

    def __call__(self, volume: Volume) -> Segmentation:
        """Segment an image; it stays as it is."""

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the voxels of the mask besides the image, fit for JSON."""


def grey(volume: Volume, channel: int | None) -> npt.NDArray[Any]:
    """Return the one channel that a method works on.

    Args:
        volume: The image.
        channel: Number of the channel from 0; None where the image has one.

    Returns:
        (I, J, K) or (rows, columns) view of the intensities.

    Raises:
        InputError: Codes `not-grey`, `no-such-channel`, `non-finite`.
    """
    count = volume.channels
    if channel is None and count > 1:
        msg = (
            f"image must be grey, got {count} channels. Choose one: --channel 0 to {count - 1}"
            " (0 is red in a colour picture)."
        )
        raise InputError(msg, code="not-grey")
    if not 0 <= (channel or 0) < count:
        msg = f"channel must be 0 to {count - 1}, got {channel}."
        raise InputError(msg, code="no-such-channel")
    array = np.asarray(volume.array[channel or 0])
    check_finite(array)
    return array


def check_finite(array: npt.NDArray[Any]) -> None:
    """Refuse NaN and infinite voxels.

    Args:
        array: Any shape.

    Raises:
        InputError: Code `non-finite`.
    """
    if array.size == 0:
        msg = f"image must have at least one voxel, got size {size_text(array.shape)}."
        raise InputError(msg, code="empty-image")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.count_nonzero(np.isfinite(array)))
        msg = f"voxels must be finite, got {bad} of {array.size} NaN or infinite. Replace them."
        raise InputError(msg, code="non-finite")


def check_range(
    lower: float | None, upper: float | None, names: tuple[str, str] = ("lower", "upper")
) -> None:
    """Refuse limits in the wrong order, and NaN.

    Args:
        lower: Smallest intensity; None for no limit.
        upper: Largest intensity; None for no limit.
        names: What the limits are called.

    Raises:
        UsageError: If `lower` is above `upper`, or either is NaN.
    """
    for name, value in zip(names, (lower, upper), strict=True):
        if value is not None and math.isnan(value):
            msg = f"{name} must be a number, got nan."
            raise UsageError(msg)
    if lower is not None and upper is not None and lower > upper:
        msg = f"{names[0]} must be at most {names[1]}, got {lower:g} and {upper:g}. Swap them."
        raise UsageError(msg)


def check_at_least(name: str, value: float | None, least: float, *, above: bool = False) -> None:
    """Refuse a number that is too small or not finite.

    Args:
        name: What it is called.
        value: The number; None is let through.
        least: Smallest number allowed.
        above: `least` itself is not allowed.

    Raises:
        UsageError: If it is.
    """
    if value is None:
        return
    fits = value > least if above else value >= least
    if not (math.isfinite(value) and fits):
        rule = f"above {least:g}" if above else f"{least:g} or more"
        msg = f"{name} must be {rule}, got {value!r}."
        raise UsageError(msg)


def exact_float(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return intensities as floats that hold every one of them exactly.

    Args:
        array: Any shape and type.

    Returns:
        float32, or float64 where integers of more than 16 bits or doubles need it.
    """
    small = array.dtype.itemsize <= 2 or array.dtype == np.float32
    return array.astype(np.float32 if small else np.float64, copy=False)


def to_sitk(array: npt.NDArray[Any]) -> sitk.Image:
    """Hand an array to SimpleITK with its axes in order: `image[i, j, k]` is `array[i, j, k]`.

    Args:
        array: (I, J, K) or (rows, columns); SimpleITK has no bool and no float16, which become
            uint8 and float32.

    Returns:
        The image, spacing 1.
    """
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    # SimpleITK takes the slowest axis first
    return sitk.GetImageFromArray(np.ascontiguousarray(array.T), isVector=False)


def from_sitk(image: sitk.Image) -> npt.NDArray[Any]:
    """Return the voxels of an image in the order of `to_sitk`.

    Args:
        image: (I, J, K) or (rows, columns) scalars.

    Returns:
        Array of that shape, in Fortran order.
    """
    return np.asarray(sitk.GetArrayFromImage(image)).T


def compact(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Number the values of a label map from 1 without gaps, in their order; 0 stays 0.

    Args:
        labels: Integers from 0.

    Returns:
        Same shape, int64.
    """
    present = np.bincount(labels.ravel(order="K")) > 0
    present[0] = False
    numbers = np.cumsum(present) * present
    return np.asarray(numbers[labels])


def check_count(count: int, advice: str) -> None:
    """Refuse more regions than a mask can tell apart.

    Args:
        count: How many there are, or will be.
        advice: What makes them fewer.

    Raises:
        UsageError: Code `too-many-regions`.
    """
    if count > MOST_REGIONS:
        msg = f"regions must be at most {MOST_REGIONS}, got {count}. {advice}"
        raise UsageError(msg, code="too-many-regions")


def numbered_regions(
    volume: Volume, labels: npt.NDArray[Any], name: str, problems: Sequence[Problem] = ()
) -> Segmentation:
    """Return a label map as a segmentation, its labels `name 1`, `name 2` ...

    Args:
        volume: The image.
        labels: (I, J, K) or (rows, columns) numbers from 1 on; 0 is background.
        name: What a region is called.
        problems: Warnings.

    Returns:
        The segmentation; a label for each number that occurs.
    """
    present = np.flatnonzero(np.bincount(labels.ravel(order="K")))
    table = {int(index): f"{name} {index}" for index in present if index}
    return segmentation_of(volume, labels, table, problems)


def segmentation_of(
    volume: Volume,
    labels: npt.NDArray[Any],
    names: dict[int, str],
    problems: Sequence[Problem] = (),
) -> Segmentation:
    """Return a label map as a segmentation on the grid of its image.

    Args:
        volume: The image.
        labels: (I, J, K) or (rows, columns) numbers; 0 is background.
        names: Name of each number.
        problems: Warnings, which join those of reading.

    Returns:
        The segmentation.
    """
    source = replace(volume.source, problems=(*volume.source.problems, *problems))
    array = labels.astype(mask_dtype(max(names, default=0)), order="K")
    return Segmentation(array, volume.affine, make_labels(names), source)


def lengths_in_pixels(volume: Volume, given: bool) -> tuple[Problem, ...]:
    """Say that a length in mm counts pixels where a picture states no pixel size.

    Args:
        volume: The image.
        given: Whether the user gave a length.

    Returns:
        The warning, if there is one.
    """
    if not given or volume.source.has_spacing:
        return ()
    text = "the picture states no pixel size: lengths in mm are taken for pixels"
    return (Problem("no-pixel-size", text, "warning"),)
