"""Where the frames of encapsulated (compressed) pixel data lie in a file."""

import mmap
import struct
from collections.abc import Sequence
from typing import BinaryIO

from pydicom.encaps import generate_frames

from medseg.errors import DicomError
from medseg.io.dicom.header import Instance

Fragment = tuple[int, int]
_ITEM, _END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_END_OF_IMAGE = b"\xff\xd9"
_TRAILING_BYTES = 16
"""How many bytes of padding an encoder may leave after the end-of-image marker."""


def compressed_frames(instance: Instance, indices: Sequence[int]) -> list[bytes]:
    """Read the code streams of frames.

    Args:
        instance: A file with encapsulated pixels.
        indices: Frames, from 0.

    Returns:
        One code stream a frame.

    Raises:
        DicomError: `truncated` when a frame is not there or not whole.
    """
    with instance.path.open("rb") as file:
        offsets, fragments = _fragments(file, instance)
        table = _table(offsets, fragments, instance.pixels.frames)
        if table is None:
            return _by_markers(file, instance, indices)
        return [
            b"".join(_read(file, fragment, instance) for fragment in _at(table, index, instance))
            for index in indices
        ]


def ends_properly(code_stream: bytes) -> bool:
    """Whether a JPEG code stream of any kind has its end-of-image marker.

    Args:
        code_stream: One frame.

    Returns:
        Whether the marker stands at the end, padding aside.
    """
    return _END_OF_IMAGE in code_stream.rstrip(b"\0")[-_TRAILING_BYTES:]


def truncated(instance: Instance) -> DicomError:
    """Build the error of a file whose pixels are not whole.

    Args:
        instance: The file.

    Returns:
        The error.
    """
    msg = (
        f"Pixel data must be whole, got less than the header states in {instance.name}."
        " Copy or export the file again."
    )
    return DicomError(msg, code="truncated")


def _fragments(file: BinaryIO, instance: Instance) -> tuple[list[int], list[Fragment]]:
    """Return the basic offset table and the place of each fragment."""
    position, fragments, table = instance.pixel_offset, [], b""
    first = True
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            raise truncated(instance)
        group, element, length = struct.unpack("<HHI", head)
        if (group, element) == _END:
            break
        if (group, element) != _ITEM:
            raise truncated(instance)
        if first:
            table, first = file.read(length), False
        else:
            fragments.append((position + 8, length))
        position += 8 + length
    return [
        int(value) for (value,) in struct.iter_unpack("<I", table[: len(table) // 4 * 4])
    ], fragments


def _table(
    offsets: list[int], fragments: list[Fragment], frames: int
) -> list[list[Fragment]] | None:
    """Assign fragments to frames; None when only the code streams themselves can tell."""
    if frames == 1:
        return [fragments]
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    if len(offsets) != frames or not fragments:
        return None
    start = fragments[0][0] - 8
    table: list[list[Fragment]] = [[] for _ in offsets]
    for fragment in fragments:
        at = sum(offset <= fragment[0] - 8 - start for offset in offsets) - 1
        table[at].append(fragment)
    return table


def _at(table: list[list[Fragment]], index: int, instance: Instance) -> list[Fragment]:
    if index >= len(table) or not table[index]:
        raise truncated(instance)
    return table[index]


def _read(file: BinaryIO, fragment: Fragment, instance: Instance) -> bytes:
    offset, length = fragment
    file.seek(offset)
    data = file.read(length)
    if len(data) < length:
        raise truncated(instance)
    return data


def _by_markers(file: BinaryIO, instance: Instance, indices: Sequence[int]) -> list[bytes]:
    """Find frames without an offset table by their end-of-image markers."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        data.seek(instance.pixel_offset)
        wanted = dict.fromkeys(indices, b"")
        frames = generate_frames(data.read(), number_of_frames=instance.pixels.frames)
        for index, frame in enumerate(frames):
            if index in wanted:
                wanted[index] = frame
    if not all(wanted.values()):
        raise truncated(instance)
    return [wanted[index] for index in indices]
