"""Segmentations for 3D Slicer: `.seg.nrrd`, written through SimpleITK."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from medseg.errors import UsageError
from medseg.geometry import LPS_TO_RAS, Affine, spacing_mm
from medseg.io.atomic import atomic_path
from medseg.io.label_parts import Box, box_around, label_boxes
from medseg.volume import Label, Segmentation

SUFFIX = ".seg.nrrd"

_REPRESENTATION = "Binary labelmap"
_NO_EXTENT = "0 -1 0 -1 0 -1"
_GZIP_LEVEL = 1
_SLAB_PLANES = 32
_GZIP_LENGTH_BYTES = 4  # RFC 1952: a gzip file ends in its uncompressed length
_FULL_DISK_BYTES = 1 << 20  # less free space than the buffers that were to be written


def write_seg_nrrd(segmentation: Segmentation, path: Path) -> None:
    """Write a segmentation as 3D Slicer stores its own: gzip NRRD with a segment a label.

    The space is left-posterior-superior, as Slicer writes it. Labels that do not overlap share
    one layer, the mask as it is. A region that others lie within overlaps them, so that it has a
    further layer: then the file has a first axis of layers. Labels without voxels are segments too.

    `Segment{n}_Extent` is the box of all segments of a layer: Slicer holds a layer as one image
    and cuts it to the extent of its first segment, which would take the others away.

    Args:
        segmentation: Mask (I, J, K).
        path: Ends in `.seg.nrrd`.

    Raises:
        OutputError: If writing fails; nothing is left behind.
        UsageError: If the mask is of a 2D image, or the path has another suffix.

    Source:
        3D Slicer developer guide, "Segmentations"; vtkMRMLSegmentationStorageNode of Slicer 5.
    """
    path = Path(path)
    if segmentation.array.ndim != 3:
        msg = f"segmentation must be of a 3D volume, got {segmentation.array.ndim} axes."
        raise UsageError(msg)
    if not path.name.endswith(SUFFIX):
        msg = f"path must end in {SUFFIX}, got {path.name!r}."
        raise UsageError(msg)
    layers = _layers(segmentation.labels)
    image = _image(segmentation, layers)
    for key, value in _fields(segmentation, layers):
        image.SetMetaData(key, value)
    with atomic_path(path) as part:
        _write(image, part)


def _write(image: Any, part: Path) -> None:
    """Write an image with what the system says went wrong; ITK does not say which error it met."""
    try:
        sitk.WriteImage(image, str(part), useCompression=True, compressionLevel=_GZIP_LEVEL)
    except RuntimeError as error:
        is_full = shutil.disk_usage(part.parent).free < _FULL_DISK_BYTES
        reason = str(error).strip().splitlines()[-1]
        raise OSError(errno.ENOSPC if is_full else errno.EIO, reason) from error
    voxels = image.GetNumberOfPixels() * image.GetNumberOfComponentsPerPixel()
    expected = voxels * image.GetSizeOfPixelComponent()
    with part.open("rb") as stream:  # the last bytes may be missing without a word of ITK
        stream.seek(-_GZIP_LENGTH_BYTES, os.SEEK_END)
        stored = int.from_bytes(stream.read(), "little")
    if stored != expected % (1 << 8 * _GZIP_LENGTH_BYTES):
        raise OSError(errno.ENOSPC, "the file ends too early")


def _layers(labels: Sequence[Label]) -> list[list[Label]]:
    """Share the labels out so that none of a layer overlap."""
    layers: list[list[Label]] = [[]]
    values: list[set[int]] = [set()]
    for label in labels:
        inside = set(label.inside)
        free = next((n for n, held in enumerate(values) if not held & inside), len(layers))
        if free == len(layers):
            layers.append([])
            values.append(set())
        layers[free].append(label)
        values[free] |= inside
    return layers


def _image(segmentation: Segmentation, layers: Sequence[Sequence[Label]]) -> Any:
    array = segmentation.array
    if all(label.inside == (label.index,) for label in segmentation.labels):
        image = sitk.GetImageFromArray(_turned(array))
    else:
        arrays = [_turned(_painted(array, layer)) for layer in layers]
        several = len(arrays) > 1
        image = sitk.GetImageFromArray(
            np.stack(arrays, axis=-1) if several else arrays[0], isVector=several
        )
    affine_lps: Affine = LPS_TO_RAS @ segmentation.affine
    spacing = spacing_mm(affine_lps)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine_lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine_lps[:3, 3].tolist())
    return image


def _turned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return (K, J, I) in the order of the memory; many times faster than a copy at one go."""
    if array.flags.f_contiguous:
        return array.T
    turned = np.empty(array.shape[::-1], array.dtype)
    for first in range(0, len(turned), _SLAB_PLANES):
        slab = slice(first, first + _SLAB_PLANES)
        turned[slab] = array[..., slab].T
    return turned


def _painted(array: npt.NDArray[Any], layer: Sequence[Label]) -> npt.NDArray[Any]:
    """Return a layer: each of its labels with all the values inside it as its own."""
    table = np.zeros(int(np.iinfo(array.dtype).max) + 1, array.dtype)
    for label in layer:
        table[[value for value in label.inside if value < len(table)]] = label.index
    return np.asarray(table[array])


def _fields(
    segmentation: Segmentation, layers: Sequence[Sequence[Label]]
) -> Iterator[tuple[str, str]]:
    """Yield Slicer's own keys and what they hold; segments in the order of the labels."""
    yield "Segmentation_ContainedRepresentationNames", f"{_REPRESENTATION}|"
    yield "Segmentation_MasterRepresentation", _REPRESENTATION
    yield "Segmentation_ReferenceImageExtentOffset", "0 0 0"
    yield "Segmentation_ConversionParameters", _reference_geometry(segmentation)
    boxes = dict(zip(segmentation.labels, label_boxes(segmentation), strict=True))
    layer_of = {label: number for number, layer in enumerate(layers) for label in layer}
    extents = [_extent([boxes[label] for label in layer]) for layer in layers]
    for number, label in enumerate(segmentation.labels):
        layer = layer_of[label]
        segment = {
            "ID": f"Segment_{label.index}",
            "Name": " ".join(label.name.split()) or f"label {label.index}",
            "NameAutoGenerated": "0",
            "Color": " ".join(f"{part / 255:.6g}" for part in label.color),
            "ColorAutoGenerated": "0",
            "LabelValue": str(label.index),
            "Layer": str(layer),
            "Extent": extents[layer],
            "Tags": "",
        }
        yield from ((f"Segment{number}_{key}", value) for key, value in segment.items())


def _extent(boxes: Sequence[Box | None]) -> str:
    box = box_around(boxes)
    return _NO_EXTENT if box is None else " ".join(f"{p.start} {p.stop - 1}" for p in box)


def _reference_geometry(segmentation: Segmentation) -> str:
    """Return the whole grid (RAS, mm), on which Slicer lets one edit what lies in a smaller box."""
    matrix = [repr(float(value)) for value in segmentation.affine.ravel()]
    extent = [str(end) for count in segmentation.array.shape for end in (0, count - 1)]
    geometry = "".join(f"{value};" for value in (*matrix, *extent))
    return f"Reference image geometry|{geometry}|Grid of the image that was segmented.&"
