"""Pictures without a place in the patient: radiographs, ultrasound, secondary captures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import UsageError
from medseg.io.dicom.decode import decode_frame
from medseg.io.dicom.header import Frame
from medseg.io.dicom.values import frame_values, output_dtype, rescale_into

Array = npt.NDArray[Any]


def read_flat(frames: Sequence[Frame]) -> tuple[Array, npt.NDArray[np.float64]]:
    """Read a picture, or the frames of a grey cine.

    Args:
        frames: Its frames in time.

    Returns:
        (C, rows, columns) with C colours or frames, and the (3, 3) affine from (row, column) to
        mm; pixels where the header states no spacing.

    Raises:
        UsageError: `needs-frame` for several frames in colour.
    """
    row, column = frames[0].spacing or (1.0, 1.0)
    affine = np.diag([row, column, 1.0])
    pixels = frames[0].instance.pixels
    if pixels.samples > 1 or pixels.photometric == "PALETTE COLOR":
        if len(frames) > 1:
            msg = f"frame must be given for a cine in colour, got None for {len(frames)} frames."
            raise UsageError(msg, code="needs-frame")
        picture = decode_frame(frames[0].instance, frames[0].index)
        return np.ascontiguousarray(picture[..., :3].transpose(2, 0, 1)), affine
    out = np.empty((len(frames), pixels.rows, pixels.columns), output_dtype(frames))
    for plane, frame in zip(out, frames, strict=True):
        rescale_into(plane, _upright(frame), frame)
    return out, affine


def _upright(frame: Frame) -> Array:
    """Return values that grow with brightness: MONOCHROME1 is turned round."""
    values = frame_values(frame)
    pixels = frame.instance.pixels
    if pixels.photometric != "MONOCHROME1" or pixels.kind != "integer":
        return values
    ends = -1 if pixels.signed else 2**pixels.bits_stored - 1
    return np.asarray((ends - values.astype(np.int64)).astype(values.dtype))
