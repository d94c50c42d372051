"""Stored pixel values of a frame, whatever the transfer syntax."""

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.pixels.processing import apply_color_lut, convert_color_space
from pydicom.pixels.utils import pixel_array
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from medseg.errors import DicomError
from medseg.io.dicom.encapsulated import compressed_frames, ends_properly, truncated
from medseg.io.dicom.header import Instance, PixelFormat
from medseg.io.dicom.instance import NATIVE, PARSE_ERRORS

Array = npt.NDArray[Any]

RLE = "1.2.840.10008.1.2.5"
_JPEG = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70)}
_CODECS: dict[str, Callable[[bytes], Array]] = {
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.90": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.91": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.92": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.93": imagecodecs.jpeg2k_decode,
    "1.2.840.10008.1.2.4.201": imagecodecs.htj2k_decode,
    "1.2.840.10008.1.2.4.202": imagecodecs.htj2k_decode,
    "1.2.840.10008.1.2.4.203": imagecodecs.htj2k_decode,
}
_MULTIPLE_COMPONENT_J2K = {"YBR_RCT", "YBR_ICT"}

DECODABLE = frozenset(
    {*map(str, NATIVE), str(DeflatedExplicitVRLittleEndian), RLE, *_JPEG, *_CODECS}
)
"""Transfer syntaxes that can be read."""


def stored_dtype(pixels: PixelFormat) -> np.dtype[Any]:
    """Return the numpy type of stored values, in native byte order.

    Args:
        pixels: Layout of the pixels.

    Returns:
        The type.
    """
    if pixels.kind != "integer":
        return np.dtype(np.float32 if pixels.kind == "float" else np.float64)
    return np.dtype(f"{'i' if pixels.signed else 'u'}{pixels.bits_allocated // 8}")


def is_direct(instance: Instance) -> bool:
    """Whether a grey frame's bytes in the file are its values, up to byte order and masking.

    Args:
        instance: The file.

    Returns:
        Whether `read_direct` reads it.
    """
    pixels = instance.pixels
    return (
        instance.transfer_syntax in NATIVE
        and pixels.samples == 1
        and pixels.photometric != "PALETTE COLOR"
        and not (pixels.bits_allocated == 8 and instance.transfer_syntax == ExplicitVRBigEndian)
    )


def read_direct(instance: Instance, index: int, out: Array) -> None:
    """Read an uncompressed grey frame straight into an array.

    Args:
        instance: A file for which `is_direct` holds.
        index: Frame, from 0.
        out: (rows, columns) C-contiguous, of `stored_dtype`.

    Raises:
        DicomError: `truncated` when the file ends before the frame does.
    """
    wanted = instance.pixels.frame_bytes
    with instance.path.open("rb", buffering=0) as file:
        file.seek(instance.pixel_offset + index * wanted)
        if file.readinto(memoryview(out.data).cast("B")) != wanted:
            raise truncated(instance)
    if instance.transfer_syntax == ExplicitVRBigEndian:
        out.byteswap(inplace=True)
    clean_bits(out, instance.pixels)


def clean_bits(values: Array, pixels: PixelFormat) -> None:
    """Remove what other than the value stands in the allocated bits, in place.

    Overlays in high bits are cut off and the sign of signed values is extended.

    Args:
        values: Integers of `stored_dtype`.
        pixels: Layout of the pixels.
    """
    if pixels.kind != "integer":
        return
    below = pixels.high_bit + 1 - pixels.bits_stored
    above = pixels.bits_allocated - pixels.high_bit - 1
    if above < 0 or below < 0 or above + below == 0:
        return
    np.left_shift(values, above, out=values)  # arithmetic shift back extends the sign
    np.right_shift(values, above + below, out=values)


def decode_frame(instance: Instance, index: int) -> Array:
    """Return the stored values of one frame.

    Args:
        instance: The file.
        index: Frame, from 0.

    Returns:
        (rows, columns) grey values of `stored_dtype`, or (rows, columns, 3) RGB.

    Raises:
        DicomError: `truncated`, `unsupported-transfer-syntax` or `unreadable`.
    """
    if instance.fault:
        msg = f"The pixels of {instance.name} cannot be read: {instance.fault}."
        raise DicomError(msg, code=instance.fault)
    if is_direct(instance):
        pixels = instance.pixels
        out = np.empty((pixels.rows, pixels.columns), stored_dtype(pixels))
        read_direct(instance, index, out)
        return out
    if instance.transfer_syntax not in DECODABLE:
        msg = f"Transfer syntax {instance.transfer_syntax} of {instance.name} cannot be decoded."
        raise DicomError(msg, code="unsupported-transfer-syntax")
    values = None
    if instance.transfer_syntax in _CODECS or instance.transfer_syntax in _JPEG:
        values = _decode_jpeg(instance, index)
    elif instance.transfer_syntax == RLE and instance.pixels.samples == 1:
        values = _decode_rle(instance, index)
    if values is not None:
        values = _in_rgb(_checked(values, instance), instance)
    else:
        values = _checked(_decode_with_pydicom(instance, index), instance)
    return _looked_up(values, instance)


def _decode_jpeg(instance: Instance, index: int) -> Array | None:
    """Decode with imagecodecs, None when it cannot."""
    (data,) = compressed_frames(instance, [index])
    if not ends_properly(data):
        raise truncated(instance)
    try:
        if instance.transfer_syntax in _JPEG:
            return _jpeg(data, instance.pixels)
        return np.asarray(_CODECS[instance.transfer_syntax](data))
    except (RuntimeError, ValueError, TypeError):
        return None


def _jpeg(data: bytes, pixels: PixelFormat) -> Array:
    coded, wanted = None, None
    stated = b"JFIF\0" in data[:64] or b"Adobe\0" in data[:256]
    if pixels.samples == 3 and not stated:
        coded = "YCBCR" if pixels.photometric.startswith("YBR") else "RGB"
        wanted = "RGB"
    try:
        return np.asarray(imagecodecs.jpeg8_decode(data, colorspace=coded, outcolorspace=wanted))
    except RuntimeError:
        return np.asarray(imagecodecs.jpegsof3_decode(data))


def _decode_rle(instance: Instance, index: int) -> Array:
    (data,) = compressed_frames(instance, [index])
    dtype = stored_dtype(instance.pixels)
    try:
        raw = imagecodecs.dicomrle_decode(data, dtype.newbyteorder("<").str)
    except (RuntimeError, ValueError):
        raise truncated(instance) from None
    if len(raw) < instance.pixels.frame_bytes:
        raise truncated(instance)
    values = np.frombuffer(raw, dtype, instance.pixels.rows * instance.pixels.columns)
    return values.reshape(instance.pixels.rows, instance.pixels.columns).copy()


def _decode_with_pydicom(instance: Instance, index: int) -> Array:
    try:
        dataset = dcmread(instance.path, force=True)
        return np.asarray(pixel_array(dataset, index=index, raw=instance.pixels.samples == 1))
    except PARSE_ERRORS as error:
        msg = f"The pixels of {instance.name} cannot be decoded ({type(error).__name__})."
        raise DicomError(msg, code="unreadable") from None
    except RuntimeError:
        msg = f"The pixels of {instance.name} cannot be decoded. Is the file damaged?"
        raise DicomError(msg, code="unreadable") from None


def _checked(values: Array, instance: Instance) -> Array:
    """Give decoded values the stored type, after checking that they are the frame."""
    pixels = instance.pixels
    shape = (pixels.rows, pixels.columns, *((pixels.samples,) if pixels.samples > 1 else ()))
    if values.shape != shape:
        msg = (
            f"The frame must be {shape} as its header says, got {values.shape} in {instance.name}."
        )
        raise DicomError(msg, code="unreadable")
    dtype = stored_dtype(pixels)
    values = np.array(values, dtype, order="C")  # two's complement kept where signs differ
    clean_bits(values, pixels)
    return values


def _in_rgb(values: Array, instance: Instance) -> Array:
    """Convert colours that the code stream keeps as luminance and chrominance."""
    photometric = instance.pixels.photometric
    converted = instance.transfer_syntax in _JPEG or photometric in _MULTIPLE_COMPONENT_J2K
    if instance.pixels.samples != 3 or converted or not photometric.startswith("YBR"):
        return values
    return np.asarray(convert_color_space(values, photometric, "RGB"))


def _looked_up(values: Array, instance: Instance) -> Array:
    """Look palette indices up; other values come back as they are."""
    if instance.pixels.photometric != "PALETTE COLOR":
        return values
    dataset = dcmread(instance.path, stop_before_pixels=True, force=True)
    colours = np.asarray(apply_color_lut(values, dataset))[..., :3]
    # 16-bit tables hold 8-bit colours in their high byte
    return colours if colours.dtype == np.uint8 else (colours >> 8).astype(np.uint8)
