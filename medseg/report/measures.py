"""What a researcher tabulates of each label: intensities, place, sizes, the network's certainty."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.io.label_parts import Box, label_boxes, label_mask
from medseg.report.diameters import in_plane_diameters, largest_diameters, slice_axis
from medseg.report.labels import label_statistics
from medseg.report.planes import intensity_sample, is_ct
from medseg.report.runs import Parts
from medseg.volume import Label, Segmentation, Volume

PERCENTILES = (5, 25, 50, 75, 95)

VALUES_AT_ONCE = 1 << 20
"""Intensities that are held in float64 at once."""

DECIMALS = 3
"""Of lengths in mm and of intensities of images in real numbers."""


def label_numbers(volume: Volume, segmentation: Segmentation) -> list[dict[str, Any]]:
    """Return the statistics of every label of a case, and what can be measured of it.

    Beside what `label_statistics` returns:

    * `area_mm2`, of 2D images: None where no pixel size is known.
    * `intensity`: `mean`, `sd` (of all voxels: divided by their number), `min`, `p05`, `p25`,
      `p50`, `p75`, `p95` and `max` of the image inside, HU on CT; what is not finite is left out.
      Of the second channel of an image `intensity_2`, and so on.
    * `box`: `first` and `last` voxel along each axis, counted from 0; `size_mm` along each axis.
    * `largest_diameter_mm`: largest distance between two points of one component.
    * `in_plane_diameter_mm`, `in_plane_short_mm`, `in_plane_slice`, `in_plane_axis`, of 3D images:
      the longest line within one slice of one component, the extent perpendicular to it, which
      slice it is along which voxel axis, both counted from 0, see `in_plane_diameters`. Slices are
      those of DICOM as they were acquired, else as `slice_axis` tells.
    * `confidence`: `probability` and `entropy`, see `Segmentation.confidence`.

    All but `area_mm2` are None for a label that was not found, lengths also where the size of a
    pixel is not known. Regions that others lie within are measured whole.

    Args:
        volume: The image.
        segmentation: Its labels, on the same grid.

    Returns:
        A row a label, in the order of `segmentation.labels`.

    Raises:
        InputError: As `label_statistics`.
    """
    axis = _axis_of_slices(volume)
    parts = Parts.of(segmentation.array, not_along=axis)
    rows = label_statistics(segmentation, parts)
    plain = _lengths(volume, parts, axis, [label.index for label in segmentation.labels])
    boxes = label_boxes(segmentation)
    for row, label, box in zip(rows, segmentation.labels, boxes, strict=True):
        if volume.is_2d:
            row["area_mm2"] = _area_mm2(volume, row["voxels"])
        row.update(_intensities(volume, segmentation, label, box))
        row["box"] = _box(volume, box)
        lengths = plain[label.index]
        if label.inside != (label.index,) and box is not None:
            whole = np.zeros(segmentation.array.shape, np.uint8, order="F")
            whole[box] = label_mask(segmentation, label, box)
            lengths = _lengths(volume, Parts.of(whole, not_along=axis), axis, [1])[1]
        row.update(lengths)
        row["confidence"] = segmentation.confidence.get(label.index)
    return rows


def _axis_of_slices(volume: Volume) -> int | None:
    if volume.is_2d:
        return None
    if volume.source.format == "dicom":
        return 2
    return slice_axis(volume.affine, volume.orientation)


def intensity_unit(volume: Volume) -> str:
    """Return the unit of an image's intensities.

    Args:
        volume: The image.

    Returns:
        `HU` for CT, stated or told by its values (see `is_ct`), else nothing.
    """
    sample = intensity_sample(volume)
    return "HU" if len(sample) and is_ct(volume, sample) else ""


def _area_mm2(volume: Volume, pixels: int) -> float | None:
    if not volume.source.has_spacing:
        return None
    return round(float(pixels * np.prod(volume.spacing_mm)), DECIMALS)


def _intensities(
    volume: Volume, segmentation: Segmentation, label: Label, box: Box | None
) -> dict[str, Any]:
    keys = ["intensity", *(f"intensity_{n}" for n in range(2, volume.channels + 1))]
    if box is None:
        return dict.fromkeys(keys)
    inside = label_mask(segmentation, label, box)
    return {
        key: _summary(channel[box][inside]) for key, channel in zip(keys, volume.array, strict=True)
    }


def _summary(values: npt.NDArray[Any]) -> dict[str, float] | None:
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
    if not len(values):
        return None
    percentiles = np.percentile(values, PERCENTILES, overwrite_input=True)
    mean = values.mean(dtype=np.float64)
    found = {
        "mean": mean,
        "sd": _deviation(values, mean),
        "min": values.min(),
        **{f"p{q:02d}": value for q, value in zip(PERCENTILES, percentiles, strict=True)},
        "max": values.max(),
    }
    return {key: _rounded(float(value)) for key, value in found.items()}


def _deviation(values: npt.NDArray[Any], mean: float) -> float:
    """Return the standard deviation; `np.std` would hold a copy of all values in float64."""
    starts = range(0, len(values), VALUES_AT_ONCE)
    parts = (values[n : n + VALUES_AT_ONCE].astype(np.float64) - mean for n in starts)
    return math.sqrt(sum(float(part @ part) for part in parts) / len(values))


def _rounded(value: float) -> float:
    """Round to thousandths, and what is small to six digits."""
    return round(value, DECIMALS) if abs(value) >= 100 else float(f"{value:.6g}")


def _box(volume: Volume, box: Box | None) -> dict[str, Any] | None:
    if box is None:
        return None
    extents = [part.stop - part.start for part in box]
    sizes = [round(n * mm, DECIMALS) for n, mm in zip(extents, volume.spacing_mm, strict=True)]
    return {
        "first": [part.start for part in box],
        "last": [part.stop - 1 for part in box],
        "size_mm": sizes if volume.source.has_spacing else None,
    }


def _lengths(
    volume: Volume, parts: Parts, axis: int | None, labels: Sequence[int]
) -> dict[int, dict[str, Any]]:
    """Return the diameters of each label."""
    known = volume.source.has_spacing
    largest = largest_diameters(parts, volume.affine) if known else {}
    rows: dict[int, dict[str, Any]] = {
        index: {"largest_diameter_mm": _length(largest.get(index))} for index in labels
    }
    if axis is None:
        return rows
    lines = in_plane_diameters(parts, volume.affine, axis)
    for index, row in rows.items():
        line = lines.get(index)
        row["in_plane_diameter_mm"] = _length(line.diameter_mm if line else None)
        row["in_plane_short_mm"] = _length(line.short_mm if line else None)
        row["in_plane_slice"] = line.plane if line else None
        row["in_plane_axis"] = axis if line else None
    return rows


def _length(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
