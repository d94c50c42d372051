"""One file's header: is it DICOM, is it an image, and what are its frames."""

import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from medseg.io.dicom import tags
from medseg.io.dicom.enhanced import functional_group_frames
from medseg.io.dicom.frames import classic_frames
from medseg.io.dicom.header import Frame, Instance, PixelFormat, PixelKind
from medseg.io.dicom.mosaic import is_mosaic, mosaic_frames

PARSE_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    struct.error,
    zlib.error,
    InvalidDicomError,
    BytesLengthException,
)
"""All that pydicom was seen to raise on files that are damaged or no DICOM at all."""

NATIVE = {
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
}
"""Transfer syntaxes whose pixels lie uncompressed in the file."""

NOT_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.66": "raw data",
    "1.2.840.10008.5.1.4.1.1.66.4": "a segmentation",
    "1.2.840.10008.5.1.4.1.1.66.5": "a surface segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "a label map",
    "1.2.840.10008.5.1.4.1.1.4.2": "spectroscopy",
    "1.2.840.10008.5.1.4.1.1.481.2": "a dose grid",
    "1.2.840.10008.5.1.4.1.1.481.3": "a structure set",
    "1.2.840.10008.1.3.10": "a DICOMDIR",
}
_MODALITY_OF_CLASS = {
    "1.2.840.10008.5.1.4.1.1.2": "CT",
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.4": "MR",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.128": "PT",
}
"""Modality of files that state none."""
_NOT_IMAGE_MODALITIES = {
    "SEG": "a segmentation",
    "RTSTRUCT": "a structure set",
    "RTDOSE": "a dose grid",
    "RTPLAN": "a treatment plan",
    "SR": "a structured report",
    "PR": "a presentation state",
    "KO": "a key object selection",
    "DOC": "a document",
    "REG": "a registration",
    "ECG": "a waveform",
}
_PIXEL_TAGS: dict[tuple[int, int], PixelKind] = {
    (0x7FE0, 0x0010): "integer",
    (0x7FE0, 0x0008): "float",
    (0x7FE0, 0x0009): "double",
}
UNDEFINED_LENGTH = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that is no image of any volume.

    Attributes:
        path: The file.
        code: `not-dicom`, `not-an-image`, `truncated`, `unreadable`, `empty-file` or
            `missing-file`.
        message: One sentence for a person.
    """

    path: Path
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Content:
    """What a file holds: frames of an image, or the reason why not, or an index.

    Attributes:
        instance: The file's record, None when it is no image.
        frames: Its slices.
        rejected: Why it is no image.
        directory: Whether it is a DICOMDIR.
    """

    instance: Instance | None = None
    frames: tuple[Frame, ...] = ()
    rejected: Rejected | None = None
    directory: bool = False


def read_content(path: Path, name: str) -> Content:
    """Read a file's header and say what it holds.

    Args:
        path: The file.
        name: Its path relative to the input; stands in messages.

    Returns:
        What the file holds; damaged files come back as rejected, nothing is raised for them.
    """
    try:
        return _read_content(path, name)
    except InvalidDicomError:
        return _reject(path, "not-dicom", "The file is not DICOM, nor of another format read here.")
    except OSError as error:
        return _reject(
            path, "unreadable", f"The file cannot be read: {error.strerror or 'failed'}."
        )
    except PARSE_ERRORS as error:
        return _reject(
            path, "unreadable", f"The DICOM header is damaged ({type(error).__name__} on reading)."
        )


def _reject(path: Path, code: str, message: str) -> Content:
    return Content(rejected=Rejected(path, code, message))


def _read_content(path: Path, name: str) -> Content:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if size == 0:
            return _reject(path, "empty-file", "The file is empty.")
        force = _is_bare_dataset(file, size)
        dataset = dcmread(
            file, stop_before_pixels=True, force=force, specific_tags=tags.SPECIFIC_TAGS
        )
        syntax = _transfer_syntax(dataset)
        offset, length, kind, fault = _find_pixels(file, size, dataset, syntax)
    ds = tags.Header(dataset)
    sop_class = tags.text(ds, "SOPClassUID") or str(
        dataset.file_meta.get("MediaStorageSOPClassUID") or ""
    )
    if sop_class == "1.2.840.10008.1.3.10" or "DirectoryRecordSequence" in ds:
        return Content(directory=True)
    why = _why_not_an_image(ds, sop_class, offset)
    of_image = UID(sop_class).name.endswith("Image Storage") or not len(dataset)
    if why and offset < 0 and of_image:
        return _reject(path, "truncated", "The file ends before the image that it should hold.")
    if why:
        return _reject(path, "not-an-image", why)
    instance = _instance(path, name, ds, (sop_class, syntax, offset, length, kind))
    if instance.pixels.frames > size:  # no encoding holds a frame in less than a byte
        fault = "truncated"
        instance = replace(instance, pixels=replace(instance.pixels, frames=1))
    described = len(tags.items(ds, "PerFrameFunctionalGroupsSequence"))
    if described not in (0, instance.pixels.frames):
        fault = fault or "missing-frames"
    instance = replace(instance, fault=fault or _pixel_fault(instance, size))
    return Content(instance, tuple(_frames(instance, ds)))


def _is_bare_dataset(file: BinaryIO, size: int) -> bool:
    """Whether the file is a dataset without preamble, judged by its first element.

    Raises InvalidDicomError for what is neither that nor part 10.
    """
    head = file.read(132)
    file.seek(0)
    if head[128:132] == b"DICM":
        return False
    if len(head) >= 8:
        for order in "<>":
            group, element, length = struct.unpack_from(f"{order}HHI", head)
            if group not in (0x0002, 0x0008) or element > 0x0100:
                continue
            if head[4:6] in _FIRST_VRS or (order == "<" and length < min(size, 1024)):
                return True
    raise InvalidDicomError


_FIRST_VRS = {b"UL", b"OB", b"CS", b"UI", b"DA", b"SH", b"LO", b"TM", b"SQ", b"DT"}
"""VRs of the elements that a dataset or its file meta information can begin with."""


def _transfer_syntax(ds: FileDataset) -> str:
    stated = str(ds.file_meta.get("TransferSyntaxUID") or "")
    if stated:
        return stated
    implicit, little = ds.original_encoding
    if implicit:
        return str(ImplicitVRLittleEndian)
    return str(ExplicitVRLittleEndian if little else ExplicitVRBigEndian)


def _find_pixels(
    file: BinaryIO, size: int, ds: FileDataset, syntax: str
) -> tuple[int, int, PixelKind, str]:
    """Return offset and length of the pixel value, its kind, and a fault found on the way.

    Offset -1 means that there is none; length -1 that it is encapsulated or deflated.
    """
    if syntax == DeflatedExplicitVRLittleEndian:
        return 0, -1, "integer", ""
    implicit, little = ds.original_encoding
    order = "<" if little else ">"
    start = file.tell()
    head = file.read(12)
    if len(head) < 8:
        return -1, 0, "integer", ""
    kind = _PIXEL_TAGS.get(struct.unpack_from(f"{order}HH", head))
    if kind is None:
        return -1, 0, "integer", ""
    if implicit:
        offset, length = start + 8, struct.unpack_from(f"{order}I", head, 4)[0]
    elif len(head) < 12:
        return -1, 0, kind, ""
    else:
        offset, length = start + 12, struct.unpack_from(f"{order}I", head, 8)[0]
    if length == UNDEFINED_LENGTH:
        return offset, -1, kind, "" if _items_are_whole(file, offset, size) else "truncated"
    return (offset, length, kind, "") if length else (-1, 0, kind, "")


def _items_are_whole(file: BinaryIO, offset: int, size: int) -> bool:
    """Whether the items of an encapsulated value end within the file."""
    while True:
        file.seek(offset)
        head = file.read(8)
        if len(head) < 8:
            return False
        group, element, length = struct.unpack("<HHI", head)
        if (group, element) == (0xFFFE, 0xE0DD):
            return True
        if (group, element) != (0xFFFE, 0xE000) or offset + 8 + length > size:
            return False
        offset += 8 + length


def _why_not_an_image(ds: tags.Header, sop_class: str, offset: int) -> str:
    modality = tags.text(ds, "Modality").upper()
    what = NOT_IMAGES.get(sop_class) or _NOT_IMAGE_MODALITIES.get(modality)
    if what:
        return f"The DICOM object is {what}, not an image."
    if tags.integer(ds, "Rows", 0) and tags.integer(ds, "Columns", 0):
        return ""
    if offset < 0:
        return "The DICOM object holds no image."
    return "The DICOM object has pixel data but no Rows and Columns."


def _instance(
    path: Path, name: str, ds: tags.Header, found: tuple[str, str, int, int, PixelKind]
) -> Instance:
    sop_class, syntax, offset, length, kind = found
    instance_number = tags.number(ds, "InstanceNumber", "IS")
    allocated = tags.integer(ds, "BitsAllocated", 16)
    stored = tags.integer(ds, "BitsStored", allocated)
    pixels = PixelFormat(
        rows=tags.integer(ds, "Rows", 0),
        columns=tags.integer(ds, "Columns", 0),
        samples=tags.integer(ds, "SamplesPerPixel", 1),
        photometric=tags.text(ds, "PhotometricInterpretation").upper(),
        planar=tags.integer(ds, "PlanarConfiguration", 0) == 1,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=tags.integer(ds, "HighBit", stored - 1),
        signed=tags.integer(ds, "PixelRepresentation", 0) == 1,
        kind=kind,
        frames=max(1, tags.integer(ds, "NumberOfFrames", 1, "IS")),
        has_modality_lut=bool(tags.items(ds, "ModalityLUTSequence")),
    )
    return Instance(
        path=path,
        name=name,
        folder=name.rpartition("/")[0],
        transfer_syntax=syntax,
        sop_class_uid=sop_class,
        sop_instance_uid=tags.text(ds, "SOPInstanceUID"),
        study_instance_uid=tags.text(ds, "StudyInstanceUID"),
        series_instance_uid=tags.text(ds, "SeriesInstanceUID"),
        series_number=tags.integer(ds, "SeriesNumber", 0, "IS"),
        instance_number=None if instance_number is None else int(instance_number),
        modality=tags.text(ds, "Modality").upper() or _MODALITY_OF_CLASS.get(sop_class, ""),
        description=str(ds.dataset.get("SeriesDescription") or ""),
        frame_of_reference_uid=tags.text(ds, "FrameOfReferenceUID"),
        temporal_positions=tags.integer(ds, "NumberOfTemporalPositions", 1, "IS"),
        pixels=pixels,
        pixel_offset=offset,
        pixel_bytes=length,
    )


def _pixel_fault(instance: Instance, size: int) -> str:
    """Return the code of what the header alone shows to be wrong with the pixels."""
    pixels = instance.pixels
    if instance.pixel_offset < 0:
        return "no-pixel-data"
    if not _is_known_layout(pixels):
        return "unsupported-pixels"
    if instance.pixel_bytes < 0:
        return ""
    if instance.transfer_syntax not in NATIVE:
        return "unsupported-transfer-syntax"
    needed = pixels.frame_bytes * pixels.frames
    if pixels.photometric == "YBR_FULL_422":
        needed = needed * 2 // 3
    is_whole = needed <= instance.pixel_bytes <= size - instance.pixel_offset
    return "" if is_whole else "truncated"


def _is_known_layout(pixels: PixelFormat) -> bool:
    widths = {"integer": (8, 16, 32), "float": (32,), "double": (64,)}[pixels.kind]
    fits = pixels.kind != "integer" or 0 < pixels.bits_stored <= pixels.bits_allocated
    return pixels.bits_allocated in widths and fits and pixels.samples in (1, 3, 4)


def _frames(instance: Instance, ds: tags.Header) -> list[Frame]:
    if is_mosaic(ds):
        return mosaic_frames(instance, ds)
    if tags.items(ds, "PerFrameFunctionalGroupsSequence"):
        return functional_group_frames(instance, ds)
    return classic_frames(instance, ds)
