"""Slices that one file holds as tiles of a larger picture (Siemens, UIH)."""

import math
import struct
from typing import Any

import numpy as np

from medseg.io.dicom import tags
from medseg.io.dicom.frames import classic_fields, vector
from medseg.io.dicom.header import Frame, Instance

_SIEMENS_COUNT, _CSA_IMAGE_HEADER = 0x0A, 0x10
_UIH_COUNT, _UIH_SLICES = 0x50, 0x51
_MAX_CSA_ELEMENTS, _MAX_CSA_ITEMS = 2000, 200


def is_mosaic(ds: tags.Header) -> bool:
    """Whether the pixels of a file are tiles of several slices.

    Args:
        ds: Header.

    Returns:
        Whether a vendor says so.
    """
    if "MOSAIC" in tags.texts(ds, "ImageType"):
        return True
    return _uih_count(ds) > 1


def _uih_count(ds: tags.Header) -> int:
    tag = tags.private(ds, "UIH", _UIH_COUNT)
    return 0 if tag is None else tags.integer(ds, tag, 0, "DS")


def mosaic_frames(instance: Instance, ds: tags.Header) -> list[Frame]:
    """Return one frame a tile, each with its own position.

    A mosaic whose number of tiles or slice direction cannot be read gives one frame of the whole
    picture without geometry, of kind `mosaic`: never a slice that looks like one.

    Args:
        instance: The file.
        ds: Its header.

    Returns:
        Frames in the order of the tiles, row by row.
    """
    base = classic_fields(instance, ds)
    positions = _uih_positions(ds) if _uih_count(ds) > 1 else _siemens_positions(ds, base)
    across = math.isqrt(max(len(positions) - 1, 0)) + 1
    rows, columns = instance.pixels.rows // across, instance.pixels.columns // across
    if not positions or instance.pixels.rows % across or instance.pixels.columns % across:
        whole = base | {"position": None, "orientation": None, "kind": "mosaic"}
        return [Frame(**whole, index=0)]
    fields = base | {"rows": rows, "columns": columns}
    return [
        Frame(
            **{
                **fields,
                "index": 0,
                "position": tuple(map(float, position)),
                "tile": (number // across * rows, number % across * columns),
            }
        )
        for number, position in enumerate(positions)
    ]


def _siemens_positions(ds: tags.Header, base: dict[str, Any]) -> list[Any]:
    """Return the position of each tile; ImagePositionPatient is that of the whole picture."""
    csa = _csa_elements(ds)
    tag = tags.private(ds, "SIEMENS MR HEADER", _SIEMENS_COUNT)
    count = tags.integer(ds, tag, 0) if tag else 0
    count = count or int(next(iter(csa.get("NumberOfImagesInMosaic", [])), 0))
    normal = csa.get("SliceNormalVector", [])
    step = tags.number(ds, "SpacingBetweenSlices")
    if base["position"] is None or base["orientation"] is None or base["spacing"] is None:
        return []
    if count < 1 or len(normal) < 3 or not step:
        return []
    across = math.isqrt(count - 1) + 1
    pixels = base["instance"].pixels
    hidden_rows = (pixels.rows - pixels.rows // across) / 2
    hidden_columns = (pixels.columns - pixels.columns // across) / 2
    row, column = np.asarray(base["orientation"]).reshape(2, 3)
    first = (
        np.asarray(base["position"])
        + row * hidden_columns * base["spacing"][1]
        + column * hidden_rows * base["spacing"][0]
    )
    normal_of_planes = np.cross(row, column)
    sign = 1.0 if float(normal_of_planes @ np.asarray(normal[:3])) >= 0 else -1.0
    return [first + normal_of_planes * (sign * step * number) for number in range(count)]


def _uih_positions(ds: tags.Header) -> list[Any]:
    """Return the positions that UIH lists for its tiles, none when any is missing."""
    slices_tag = tags.private(ds, "UIH", _UIH_SLICES)
    if slices_tag is None:
        return []
    found = [
        vector(tags.numbers(item, "ImagePositionPatient"), 3) for item in tags.items(ds, slices_tag)
    ]
    return found if len(found) == _uih_count(ds) and all(found) else []


def _csa_elements(ds: tags.Header) -> dict[str, list[float]]:
    """Return the numeric elements of Siemens' CSA image header; empty when unreadable.

    Source:
        NiBabel's notes on the CSA header: https://nipy.org/nibabel/dicom/siemens_csa.html
    """
    tag = tags.private(ds, "SIEMENS CSA HEADER", _CSA_IMAGE_HEADER)
    found = tags.element(ds, tag) if tag is not None else None
    if found is None or found[0][:4] != b"SV10":
        return {}
    try:
        return _parse_csa(found[0])
    except (struct.error, ValueError):
        return {}


def _parse_csa(data: bytes) -> dict[str, list[float]]:
    (count,) = struct.unpack_from("<I", data, 8)
    offset, elements = 16, {}
    for _ in range(min(count, _MAX_CSA_ELEMENTS)):
        name, _vm, _vr, _type, items = struct.unpack_from("<64si4sii", data, offset)
        offset += 84
        values = []
        for _ in range(min(items, _MAX_CSA_ITEMS)):
            (length,) = struct.unpack_from("<4xi8x", data, offset)
            offset += 16
            values.append(data[offset : offset + length].partition(b"\0")[0].strip())
            offset += (length + 3) // 4 * 4
        elements[name.partition(b"\0")[0].decode("latin-1")] = _numeric(values)
    return elements


def _numeric(values: list[bytes]) -> list[float]:
    try:
        return [float(value) for value in values if value]
    except ValueError:
        return []
