"""Reading of single header elements, from their bytes and without conversion of the rest.

The value representation of every element asked for is known here, so wrong or missing VRs, private
dictionaries and invalid values of other elements do not matter.
"""

import math
import struct
from collections.abc import Iterable
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

KEYWORDS = (  # noqa: SIM905 -- sixty words are easier to read without quotes
    "SOPClassUID SOPInstanceUID StudyInstanceUID SeriesInstanceUID FrameOfReferenceUID SeriesNumber"
    " InstanceNumber Modality SeriesDescription ImageType ScanOptions Rows Columns SamplesPerPixel"
    " PhotometricInterpretation PlanarConfiguration BitsAllocated BitsStored HighBit"
    " PixelRepresentation NumberOfFrames RescaleSlope RescaleIntercept RescaleType Units"
    " ModalityLUTSequence ImagePositionPatient ImageOrientationPatient PixelSpacing"
    " ImagerPixelSpacing NominalScannedPixelSpacing SpacingBetweenSlices SliceThickness"
    " EchoTime EchoNumbers ComplexImageComponent DiffusionBValue DiffusionGradientOrientation"
    " ConvolutionKernel FlipAngle InversionTime TemporalPositionIdentifier TemporalPositionIndex"
    " NumberOfTemporalPositions TriggerTime AcquisitionNumber AcquisitionDate AcquisitionTime"
    " AcquisitionDateTime FrameReferenceTime ContentDate ContentTime"
    " SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence DetectorInformationSequence"
    " PixelPaddingValue PixelPaddingRangeLimit DirectoryRecordSequence"
    " DimensionIndexSequence Manufacturer"
).split()

_TAG = {keyword: int(tag_for_keyword(keyword) or 0) for keyword in KEYWORDS}

PRIVATE_BLOCKS = {
    "SIEMENS MR HEADER": (0x0019, (0x0A, 0x0C, 0x0E)),
    "SIEMENS CSA HEADER": (0x0029, (0x10,)),
    "GEMS_PARM_01": (0x0043, (0x2F, 0x39)),
    "Philips Imaging DD 001": (0x2001, (0x03,)),
    "UIH": (0x0065, (0x09, 0x37, 0x50, 0x51)),
}
"""Private creator: group and the element numbers that are read of its block.

UIH names its block in several ways; the manufacturer decides there.
"""

_BLOCKS = range(0x10, 0x13)
_PRIVATE_TAGS = [
    tag
    for group, elements in PRIVATE_BLOCKS.values()
    for block in _BLOCKS
    for tag in (group << 16 | block, *(group << 16 | block << 8 | e for e in elements))
]

SPECIFIC_TAGS: list[BaseTag | int] = [BaseTag(tag) for tag in (*_TAG.values(), *_PRIVATE_TAGS)]
"""Everything that a scan reads of a file."""

_BINARY = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d"}


class Header:
    """Elements of a dataset or sequence item, still as bytes."""

    __slots__ = ("_elements", "dataset")

    def __init__(self, dataset: Dataset | None = None) -> None:
        self.dataset = Dataset() if dataset is None else dataset
        self._elements: dict[int, Any] = dict(self.dataset.items())

    def __contains__(self, key: str | int) -> bool:
        return _tag_of(key) in self._elements

    def __len__(self) -> int:
        return len(self._elements)

    def get(self, key: str | int) -> Any:
        """Return the element as pydicom keeps it, None when absent."""
        return self._elements.get(_tag_of(key))


def _tag_of(key: str | int) -> int:
    if isinstance(key, int):
        return key
    known = _TAG.get(key)
    return int(tag_for_keyword(key) or 0) if known is None else known


def element(ds: Header, key: str | int) -> tuple[bytes, str, bool] | None:
    """Return value, VR ("" when implicit) and little-endianness of an element, or None.

    Args:
        ds: Header or sequence item.
        key: Keyword or tag.

    Returns:
        The raw value, its VR and whether it is little endian.
    """
    found = ds.get(key)
    if found is None:
        return None
    if isinstance(found, RawDataElement):
        return (found.value or b"", found.VR or "", found.is_little_endian)
    value = found.value  # converted by pydicom on the way
    if value is None:
        return None
    if isinstance(value, bytes):
        return value, "", True
    many = value if isinstance(value, (list, tuple)) or hasattr(value, "append") else [value]
    return "\\".join(str(item) for item in many).encode("utf-8", "replace"), "DS", True


def text(ds: Header, key: str | int) -> str:
    """Return an element as text without padding, "" when absent.

    Args:
        ds: Header or sequence item.
        key: Keyword or tag.

    Returns:
        The text.
    """
    found = element(ds, key)
    return "" if found is None else found[0].decode("latin-1").strip(" \0\r\n\t")


def texts(ds: Header, key: str | int) -> tuple[str, ...]:
    """Return a backslash-separated element as upper-case words.

    Args:
        ds: Header or sequence item.
        key: Keyword or tag.

    Returns:
        The words, empty when absent.
    """
    joined = text(ds, key)
    return tuple(word.strip().upper() for word in joined.split("\\")) if joined else ()


def _from_text(value: bytes) -> list[float]:
    numbers = []
    for word in value.decode("latin-1").strip(" \0").split("\\"):
        try:
            numbers.append(float(word.strip(" \0")))
        except ValueError:
            return []
    return numbers


def numbers(ds: Header, key: str | int, vr: str = "DS") -> list[float]:
    """Return an element as finite numbers; empty when absent or not numeric.

    Args:
        ds: Header or sequence item.
        key: Keyword or tag.
        vr: The VR that the element has by the standard, used when the file states none.

    Returns:
        The numbers.
    """
    found = element(ds, key)
    if found is None or not found[0]:
        return []
    value, stated, little = found
    code = _BINARY.get(vr if stated in ("", "UN") else stated)
    if code is None:
        result = _from_text(value)
    else:
        size = struct.calcsize(code)
        count = len(value) // size
        result = list(
            map(
                float,
                struct.unpack(f"{'<' if little else '>'}{count}{code}", value[: count * size]),
            )
        )
    return result if all(map(math.isfinite, result)) else []


def number(ds: Header, key: str | int, vr: str = "DS") -> float | None:
    """Return the first number of an element, or None.

    Args:
        ds: Header or sequence item.
        key: Keyword or tag.
        vr: As in `numbers`.

    Returns:
        The number.
    """
    found = numbers(ds, key, vr)
    return found[0] if found else None


def integer(ds: Header, key: str | int, default: int, vr: str = "US") -> int:
    """Return an element as an integer.

    Args:
        ds: Header or sequence item.
        key: Keyword or tag.
        default: When absent or not numeric.
        vr: As in `numbers`.

    Returns:
        The integer.
    """
    found = number(ds, key, vr)
    return default if found is None else int(found)


def items(ds: Header, key: str | int) -> list[Header]:
    """Return the items of a sequence, empty when absent.

    Args:
        ds: Header or sequence item.
        key: Keyword or tag.

    Returns:
        The items.
    """
    if key not in ds:
        return []
    value: Any = ds.dataset[_tag_of(key)].value
    if not isinstance(value, Iterable) or isinstance(value, (bytes, str)):
        return []
    return [Header(item) for item in value]


def private(ds: Header, creator: str, number_in_block: int) -> int | None:
    """Return the tag of a private element, found through its creator.

    Args:
        ds: Header.
        creator: A key of `PRIVATE_BLOCKS`.
        number_in_block: Last byte of the tag.

    Returns:
        The tag, or None when the dataset has no such block or element.
    """
    group = PRIVATE_BLOCKS[creator][0]
    for block in _BLOCKS:
        name = text(ds, group << 16 | block)
        ours = group != 0x0065 or text(ds, "Manufacturer").upper().startswith(("UIH", "UNITED"))
        if name and ours and (name.upper() == creator.upper() or group == 0x0065):
            tag = group << 16 | block << 8 | number_in_block
            return tag if tag in ds else None
    return None


def seconds(date: str, time: str) -> float | None:
    """Return a DICOM date and time as seconds, for ordering and telling apart only.

    Args:
        date: DA, or "".
        time: TM.

    Returns:
        Seconds, or None when there is no time.
    """
    clock = time.replace(":", "")
    try:
        days = int(date.replace(".", "")) if date else 0
        whole = clock[:6].ljust(6, "0")
        hours, minutes, rest = int(whole[:2]), int(whole[2:4]), int(whole[4:])
        fraction = float("0" + clock[6:]) if clock[6:] else 0.0
    except ValueError:
        return None
    if not clock:
        return None
    return days * 86400.0 + hours * 3600 + minutes * 60 + rest + fraction
