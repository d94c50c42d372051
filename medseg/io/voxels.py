"""Voxels between a byte stream and an array, a piece at a time."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from medseg.errors import InputError, Problem
from medseg.io.gzip import read_into

_PIECE = 1 << 18  # voxels: a piece and its float64 scratch stay in the cache
_SLAB_BYTES = 1 << 23


def read_voxels(
    stream: BinaryIO,
    shape: tuple[int, ...],
    stored: np.dtype[Any],
    *,
    slope: float = 1.0,
    inter: float = 0.0,
) -> npt.NDArray[Any]:
    """Read voxels whose first axis runs fastest, and rescale them.

    Integers keep their type while slope is 1 and intercept is 0, become the smallest fitting
    integer type where slope and intercept are whole numbers, and float32 otherwise. Floats become
    float32, without a float64 copy of the whole.

    Args:
        stream: At the first voxel.
        shape: Voxels along each axis.
        stored: Type on disk, with its byte order; integer or float of at most 8 bytes.
        slope: Factor.
        inter: Intercept.

    Returns:
        Array of that shape, in Fortran order and native byte order.

    Raises:
        EOFError: If the stream ends too early.
    """
    if stored.kind == "f":
        return _read_floats(stream, shape, stored, slope, inter)
    array = np.empty(shape[::-1], stored)
    read_into(stream, array)
    native = stored.newbyteorder("=")
    if stored != native:
        array = array.byteswap(inplace=True).view(native)
    if (slope, inter) != (1.0, 0.0):
        array = _rescaled(array, slope, inter)
    return array.T


def count_non_finite(array: npt.NDArray[Any]) -> int:
    """Count NaN and infinite voxels.

    Args:
        array: Any shape; contiguous in any order of its axes, or it is copied.

    Returns:
        How many voxels are not finite.
    """
    if array.dtype.kind != "f":
        return 0
    flat = array.ravel(order="K")
    pieces = [flat[start : start + _PIECE] for start in range(0, flat.size, _PIECE)]
    return sum(piece.size - int(np.count_nonzero(np.isfinite(piece))) for piece in pieces)


def checked_finite(
    array: npt.NDArray[Any], path: Path, *, allow: bool = False
) -> tuple[Problem, ...]:
    """Refuse voxels that are NaN or infinite, or list them.

    Args:
        array: Any shape.
        path: The file they come from; its name stands in the message.
        allow: List them as a warning instead.

    Returns:
        The warning, if there is one.

    Raises:
        InputError: Code `non-finite`.
    """
    bad = count_non_finite(array)
    if not bad:
        return ()
    message = f"{bad} of {array.size} voxels are NaN or infinite (as float32)"
    if allow:
        return (Problem("non-finite", message, "warning"),)
    msg = f"voxels must be finite, got {path.name} where {message}. Replace them first."
    raise InputError(msg, code="non-finite")


def choose_frames(frames: int, path: Path, frame: int | None, channels: int) -> tuple[int, int]:
    """Decide which 3D images of a file are read, never by guessing.

    Args:
        frames: How many the file holds.
        path: The file; its name stands in the message.
        frame: The one that was asked for, from 0.
        channels: How many channels are expected: all are read when there are as many frames.

    Returns:
        The first one and their number.

    Raises:
        InputError: Codes `needs-frame` and `frame-out-of-range`.
    """
    if frame is not None:
        if not 0 <= frame < frames:
            msg = f"frame must be 0 to {frames - 1}, got {frame} for {path.name}."
            raise InputError(msg, code="frame-out-of-range")
        return frame, 1
    if frames in (1, channels):
        return 0, frames
    msg = (
        f"frame must be given for a file of several, got {frames} frames in {path.name}"
        f" where {channels} channel(s) are expected. Choose one from 0 to {frames - 1}."
    )
    raise InputError(msg, code="needs-frame")


def write_voxels(stream: Any, array: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Write voxels with the first axis running fastest, without a copy of the whole.

    Args:
        stream: Open for writing.
        array: Any shape and memory layout.
        dtype: Type on disk; the caller knows that the values fit.
    """
    last_first = array.T
    entry_bytes = int(np.prod(last_first.shape[1:])) * dtype.itemsize
    if last_first.ndim > 2 and entry_bytes > _SLAB_BYTES:
        for entry in last_first:
            write_voxels(stream, entry.T, dtype)
        return
    step = max(1, _SLAB_BYTES // max(1, entry_bytes))
    for start in range(0, len(last_first), step):
        slab = np.ascontiguousarray(last_first[start : start + step], dtype)
        stream.write(slab.reshape(-1).view(np.uint8).data)


def _read_floats(
    stream: BinaryIO, shape: tuple[int, ...], stored: np.dtype[Any], slope: float, inter: float
) -> npt.NDArray[np.float32]:
    array = np.empty(shape[::-1], np.float32)
    flat = array.reshape(-1)
    if stored == np.float32 and (slope, inter) == (1.0, 0.0):
        read_into(stream, flat)
        return array.T
    scratch = np.empty(min(_PIECE, flat.size), stored)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        values = scratch[: piece.size]
        read_into(stream, values)
        with np.errstate(over="ignore", invalid="ignore"):  # counted by count_non_finite
            piece[:] = values * np.float64(slope) + inter
    return array.T


def _rescaled(array: npt.NDArray[Any], slope: float, inter: float) -> npt.NDArray[Any]:
    target = _fitting_type(array, slope, inter)
    same_size = target.itemsize == array.dtype.itemsize
    result = array.view(target) if same_size else np.empty(array.shape, target)
    flat, given = result.reshape(-1), array.reshape(-1)
    wide = np.float64 if target.kind == "f" else np.int64
    factor, offset = wide(slope), wide(inter)
    for start in range(0, flat.size, _PIECE):
        piece = slice(start, start + _PIECE)
        flat[piece] = given[piece].astype(wide) * factor + offset
    return result


def _fitting_type(array: npt.NDArray[Any], slope: float, inter: float) -> np.dtype[Any]:
    if not (slope.is_integer() and inter.is_integer()):
        return np.dtype(np.float32)
    ends = [int(value) * int(slope) + int(inter) for value in (array.min(), array.max())]
    for candidate in (array.dtype, np.dtype(np.int16), np.dtype(np.int32)):
        limits = np.iinfo(candidate)
        if limits.min <= min(ends) and max(ends) <= limits.max:
            return candidate
    return np.dtype(np.float32)
