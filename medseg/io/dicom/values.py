"""From stored values to rescaled ones: types, in-place arithmetic, checks of meaning."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.pixels.processing import apply_modality_lut

from medseg.errors import DicomError, Problem
from medseg.io.dicom.decode import decode_frame, stored_dtype
from medseg.io.dicom.header import Frame
from medseg.io.dicom.problems import problem
from medseg.io.hounsfield import why_not_hounsfield

Array = npt.NDArray[Any]
HU_UNITS = {"", "HU", "HU_MOD"}
"""RescaleTypes under which CT values count as Hounsfield units."""

_ALWAYS_FLOAT = {"PT", "NM"}


class RangeError(ArithmeticError):
    """Values do not fit the integer type chosen from the header."""


def output_dtype(frames: Sequence[Frame]) -> np.dtype[Any]:
    """Choose the smallest type that holds the rescaled values.

    CT with whole-numbered rescaling is int16 whatever the header allows: `rescale_into` checks.

    Args:
        frames: All frames of a volume.

    Returns:
        uint8, int16, uint16, int32 or float32.
    """
    pixels = frames[0].instance.pixels
    modality = frames[0].instance.modality
    scales = {frame.rescale for frame in frames}
    whole = all(slope.is_integer() and intercept.is_integer() for slope, intercept in scales)
    if pixels.kind != "integer" or modality in _ALWAYS_FLOAT or not whole:
        return np.dtype(np.float32)
    if any(frame.instance.pixels.has_modality_lut for frame in frames):
        return np.dtype(np.int32)
    if modality == "CT" and pixels.samples == 1:
        return np.dtype(np.int16)
    formats = {frame.instance.pixels for frame in frames}
    lows, highs = zip(
        *(
            _range(bits, signed, scale)
            for bits, signed in {(p.bits_stored, p.signed) for p in formats}
            for scale in scales
        ),
        strict=True,
    )
    for dtype in (np.uint8, np.int16, np.uint16, np.int32):
        info = np.iinfo(dtype)
        if info.min <= min(lows) and max(highs) <= info.max:
            return np.dtype(dtype)
    return np.dtype(np.float32)


def _range(bits: int, signed: bool, scale: tuple[float, float]) -> tuple[float, float]:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    ends = [low * scale[0] + scale[1], high * scale[0] + scale[1]]
    return min(ends), max(ends)


def rescale_in_place(out: Array, frame: Frame) -> None:
    """Rescale stored values that lie in the output array, with whole-numbered slope 1.

    Args:
        out: Integers of the output type, whose bits are stored values of the same width.
        frame: The frame.

    Raises:
        RangeError: If a value does not fit.
    """
    stored = out.view(stored_dtype(frame.instance.pixels))
    intercept = int(frame.rescale[1])
    info = np.iinfo(out.dtype)
    pixels = frame.instance.pixels
    low, high = _range(pixels.bits_stored, pixels.signed, frame.rescale)
    if (high > info.max and int(stored.max()) + intercept > info.max) or (
        low < info.min and int(stored.min()) + intercept < info.min
    ):
        raise RangeError
    if intercept:
        # modulo 2**bits: right, as the result was found to fit
        np.add(out, np.array(intercept).astype(out.dtype), out=out)


def rescale_into(out: Array, stored: Array, frame: Frame) -> None:
    """Write rescaled values into the output array.

    Args:
        out: (rows, columns) of the output type.
        stored: (rows, columns) stored values.
        frame: The frame.

    Raises:
        RangeError: If a value does not fit an integer type.
    """
    slope, intercept = frame.rescale
    if out.dtype.kind == "f":
        np.multiply(stored, out.dtype.type(slope), out=out, casting="unsafe")
        if intercept:
            out += out.dtype.type(intercept)
        return
    wide = stored.astype(np.int64) if stored.dtype.itemsize > 2 else stored.astype(np.int32)
    wide *= int(slope)
    wide += int(intercept)
    info = np.iinfo(out.dtype)
    if int(wide.max()) > info.max or int(wide.min()) < info.min:
        raise RangeError
    out[...] = wide


def frame_values(frame: Frame) -> Array:
    """Decode one grey slice and look its values up where the header has a Modality LUT.

    Args:
        frame: The slice.

    Returns:
        (rows, columns) stored values, or those of the look-up table.
    """
    values = decode_frame(frame.instance, frame.index)
    if frame.instance.pixels.has_modality_lut:
        header = dcmread(frame.instance.path, stop_before_pixels=True, force=True)
        values = np.asarray(apply_modality_lut(values, header))
    return crop(values, frame)


def crop(values: Array, frame: Frame) -> Array:
    """Cut a slice out of the picture that holds it.

    Args:
        values: (rows, columns) of a stored frame.
        frame: The slice.

    Returns:
        Its part of the picture.
    """
    if frame.tile is None:
        return values
    row, column = frame.tile
    return values[row : row + frame.rows, column : column + frame.columns]


def same_pixels(first: Frame, second: Frame) -> bool:
    """Whether two slices hold equal values.

    Args:
        first: A slice.
        second: Another one.

    Returns:
        Whether all values and their rescaling are equal; False when either cannot be read.
    """
    if first.rescale != second.rescale:
        return False
    try:
        return np.array_equal(frame_values(first), frame_values(second))
    except (DicomError, OSError):
        return False


def check_units(frames: Sequence[Frame]) -> list[Problem]:
    """Check that the values of a volume mean one thing throughout.

    Args:
        frames: All frames of a volume.

    Returns:
        Problems `mixed-units` and `bad-rescale`.
    """
    is_ct = frames[0].instance.modality == "CT"
    units = {"HU" if is_ct and frame.units in HU_UNITS else frame.units for frame in frames}
    problems = []
    stated = {frame.slope is None for frame in frames}
    if len(units) > 1:
        names = ", ".join(sorted(repr(unit) for unit in units))
        problems.append(problem("mixed-units", f"Slices have values of different units: {names}."))
    elif len(stated) > 1:
        message = "Some slices state a rescale slope and intercept, others none."
        problems.append(problem("mixed-units", message))
    if any(frame.slope == 0 for frame in frames):
        problems.append(problem("bad-rescale", "The rescale slope of a slice is 0."))
    return problems


def check_hounsfield(frames: Sequence[Frame]) -> list[Problem]:
    """Check that CT values are Hounsfield units, by the header and at most three slices.

    Args:
        frames: Slices of one time point, in order; their pixels are readable.

    Returns:
        Problem `not-hu-like`, or that of a slice that turns out unreadable.
    """
    units = sorted({frame.units for frame in frames} - HU_UNITS)
    if units:
        return [_not_hu(f"the header gives their unit as {units[0]!r}")]
    if any(frame.instance.pixels.has_modality_lut for frame in frames):
        return [_not_hu("they come out of a look-up table, not a slope and intercept")]
    reasons = []
    for frame in (frames[len(frames) // 2], frames[0], frames[-1]):
        try:
            reason = _implausible(frame)
        except DicomError as error:
            return [problem(error.code, str(error))]
        if not reason:
            return []
        reasons.append(reason)
    return [_not_hu(reasons[0])]


def _implausible(frame: Frame) -> str:
    """Say why the values of a slice cannot be HU, or return ""."""
    slope, intercept = frame.rescale
    values = frame_values(frame)
    low, median, high = (
        float(value) * slope + intercept
        for value in (values.min(), np.median(values), values.max())
    )
    return why_not_hounsfield(low, median, high)


def _not_hu(reason: str) -> Problem:
    return problem("not-hu-like", f"CT values are not Hounsfield units: {reason}.")
