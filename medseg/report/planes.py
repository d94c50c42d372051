"""Planes of a segmented volume, turned the way radiologists look at them and painted.

Radiological convention: the patient's right is at the left of axial and coronal planes, anterior is
up in axial planes, superior is up in coronal and sagittal ones, and sagittal planes look from the
patient's left (anterior at the left). Oblique volumes are shown on their own grid, each axis taken
for the anatomical direction it is nearest to; the letters at the edges say where it really points.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.geometry import SAME_GRID_TOLERANCE_VOXELS, axis_codes, direction, spacing_mm
from medseg.report.runs import Ints
from medseg.volume import Label, Segmentation, Volume

RGB = npt.NDArray[np.uint8]

SOFT_TISSUE_HU = (-160.0, 240.0)
LUNG_HU = (-1350.0, 150.0)
PERCENTILES = (1.0, 99.0)
FILL_OPACITY = 0.35
OUTLINE_OPACITY = 0.95
SCALE_SHARE = 0.3
"""Of the width of a picture, at most as long as its scale bar."""
SECOND_LETTER = 0.25
"""A direction names a second letter when it leans more than this (about 15 degrees) that way."""

_SAMPLES = 1_000_000
_LETTERS = ("LR", "PA", "IS")
_PLANES = {  # name: world axis across (columns), world axis up (rows, reversed), axis of the slices
    "axial": (0, 1, 2),
    "coronal": (0, 2, 1),
    "sagittal": (1, 2, 0),
}


@dataclass(frozen=True, eq=False)
class Plane:
    """One plane as it is shown: row 0 is the top.

    Attributes:
        name: `axial`, `coronal`, `sagittal`, or empty in 2D.
        image: (rows, columns) or (rows, columns, 3) intensities.
        labels: (rows, columns) label of each pixel.
        pixel_mm: Distance between rows, between columns; mm.
        edges: Letters at the left, right, top and bottom; empty in 2D.
        axis: Voxel axis that the plane is perpendicular to; -1 in 2D.
        index: Number of the plane along it, from 0.
        count: Planes along it.
        crossings: Where the other planes cut this one, as fractions of its width and height.
    """

    name: str
    image: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    pixel_mm: tuple[float, float]
    edges: tuple[str, str, str, str]
    axis: int
    index: int
    count: int
    crossings: tuple[float, float] | None

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width; mm."""
        rows, columns = self.labels.shape
        return rows * self.pixel_mm[0], columns * self.pixel_mm[1]

    def rows(self, start: int, stop: int) -> "Plane":
        """Return some rows of it.

        Args:
            start: The first.
            stop: One past the last.

        Returns:
            The plane of these rows alone; a view.
        """
        return replace(self, image=self.image[start:stop], labels=self.labels[start:stop])


def refuse_other_grid(volume: Volume, segmentation: Segmentation) -> None:
    """Refuse a segmentation that does not lie on the grid of its image.

    Args:
        volume: The image.
        segmentation: Its labels.

    Raises:
        ValueError: If the shapes differ, or a corner voxel by more than 1e-3 voxel.
    """
    if volume.shape != segmentation.array.shape:
        msg = (
            "segmentation must have the shape of the volume,"
            f" got {segmentation.array.shape} for {volume.shape}."
        )
        raise ValueError(msg)
    last = np.stack(np.meshgrid(*[(0, n - 1) for n in volume.shape]), -1).reshape(
        -1, len(volume.shape)
    )
    gap = (volume.affine - segmentation.affine) @ np.c_[last, np.ones(len(last))].T
    if np.abs(gap).max() > SAME_GRID_TOLERANCE_VOXELS * min(volume.spacing_mm):
        msg = (
            "segmentation must lie on the grid of the volume, got corners up to"
            f" {np.abs(gap).max():.3g} mm apart."
        )
        raise ValueError(msg)


def direction_letters(cosine: npt.ArrayLike) -> str:
    """Name a direction in the patient, main letter first.

    Args:
        cosine: (3,) unit vector; RAS.

    Returns:
        One letter, or two or three where the direction is oblique.

    Examples:
        >>> direction_letters((1, 0, 0)), direction_letters((0, -0.9, 0.43))
        ('R', 'PS')
    """
    vector = np.asarray(cosine, np.float64)
    order = np.argsort(-np.abs(vector), kind="stable")
    return "".join(
        _LETTERS[axis][int(vector[axis] > 0)]
        for rank, axis in enumerate(order)
        if rank == 0 or abs(vector[axis]) > SECOND_LETTER
    )


def oblique_angle(affine: npt.ArrayLike) -> float:
    """Return by how much a grid is turned away from the anatomical axes.

    Args:
        affine: (4, 4) voxel-to-world affine; RAS, mm.

    Returns:
        Largest angle between a voxel axis and the anatomical axis it is nearest to; degrees.

    Examples:
        >>> oblique_angle(np.diag([-1.0, 2.0, 3.0, 1.0]))
        0.0
    """
    nearest = np.abs(direction(affine)).max(axis=0).clip(0, 1)
    return float(np.degrees(np.arccos(nearest)).max())


def busiest_planes(profiles: Sequence[Ints]) -> tuple[int, ...]:
    """Choose, along each axis, the plane in which the labels show best.

    Each label counts by its area in the plane over its largest area in any plane, weighted by its
    size (cube root of its voxels), so a lesion is not lost beside the organ that holds it.

    Args:
        profiles: For each axis, (labels + 1, planes) voxels of each label in each plane.

    Returns:
        A plane an axis; the middle one where there is no label at all.
    """
    chosen = []
    for profile in profiles:
        largest = profile.max(axis=1, keepdims=True)
        weight = np.cbrt(profile.sum(axis=1, keepdims=True))
        share = np.where(largest > 0, profile / np.maximum(largest, 1), 0) * weight
        score = share[1:].sum(axis=0)
        best = np.flatnonzero(score >= score.max(initial=0) * (1 - 1e-9))
        chosen.append(int(best[len(best) // 2]))
    return tuple(chosen)


@dataclass(frozen=True)
class Layout:
    """How one anatomical plane of a 3D grid lies on the screen: row 0 is the top.

    Attributes:
        name: `axial`, `coronal` or `sagittal`.
        axis: Voxel axis that the plane is perpendicular to.
        axes: Voxel axes that run down its rows, and along its columns.
        flips: Whether the first row, and the first column, is the last voxel of its axis.
        edges: Letters at the left, right, top and bottom.
    """

    name: str
    axis: int
    axes: tuple[int, int]
    flips: tuple[bool, bool]
    edges: tuple[str, str, str, str]


def plane_layouts(affine: npt.ArrayLike, shape: Sequence[int]) -> tuple[Layout, ...]:
    """Say how the anatomical planes of a 3D grid are shown in radiological convention.

    A plane that would be a single line of voxels is left out, unless all are.

    Args:
        affine: (4, 4) voxel-to-world affine; RAS, mm.
        shape: Voxels along each axis.

    Returns:
        Of the axial, coronal and sagittal plane, as far as the grid has them.

    Examples:
        >>> [layout.edges for layout in plane_layouts(np.eye(4), (9, 9, 1))]
        [('R', 'L', 'A', 'P')]
    """
    codes = axis_codes(affine)
    axis_of = [next(a for a in range(3) if codes[a] in pair) for pair in _LETTERS]
    rising = [codes[axis] == pair[1] for axis, pair in zip(axis_of, _LETTERS, strict=True)]
    cosines = direction(affine)
    towards = [  # the direction in which each world axis really runs on this grid; RAS
        cosines[:, axis] * (1 if up else -1) for axis, up in zip(axis_of, rising, strict=True)
    ]
    layouts = []
    for name, (across, upward, through) in _PLANES.items():
        row_axis, column_axis, axis = axis_of[upward], axis_of[across], axis_of[through]
        edges = [
            direction_letters(sign * towards[world])
            for world in (across, upward)
            for sign in (1, -1)
        ]
        layouts.append(
            Layout(
                name=name,
                axis=axis,
                axes=(row_axis, column_axis),
                # both screen axes run against the world axis: right, front and top come first
                flips=(rising[upward], rising[across]),
                edges=(edges[0], edges[1], edges[2], edges[3]),
            )
        )
    wide = [layout for layout in layouts if min(shape[axis] for axis in layout.axes) > 1]
    return tuple(wide or layouts)


def orthogonal_planes(
    volume: Volume, labels: npt.NDArray[Any], at: Sequence[int]
) -> tuple[Plane, ...]:
    """Cut the three anatomical planes of a 3D volume.

    A plane that would be a single line of voxels is left out, unless all are.

    Args:
        volume: The image; channel 0 is shown.
        labels: (I, J, K) mask on the same grid.
        at: Plane along each voxel axis.

    Returns:
        Axial, coronal and sagittal plane, as far as the volume has them.
    """
    spacing = spacing_mm(volume.affine)
    planes = []
    for layout in plane_layouts(volume.affine, volume.shape):
        row, column = (
            _fraction(at[axis], volume.shape[axis], flip)
            for axis, flip in zip(layout.axes, layout.flips, strict=True)
        )
        planes.append(
            Plane(
                name=layout.name,
                image=plane_of(volume.array[0], layout, at[layout.axis]),
                labels=plane_of(labels, layout, at[layout.axis]),
                pixel_mm=(float(spacing[layout.axes[0]]), float(spacing[layout.axes[1]])),
                edges=layout.edges,
                axis=layout.axis,
                index=at[layout.axis],
                count=volume.shape[layout.axis],
                crossings=(column, row),
            )
        )
    return tuple(planes)


def _fraction(index: int, count: int, flip: bool) -> float:
    fraction = (index + 0.5) / count
    return 1 - fraction if flip else fraction


def plane_of(array: npt.NDArray[Any], layout: Layout, index: int) -> npt.NDArray[Any]:
    """Take one plane of an array as it is shown.

    Args:
        array: (I, J, K).
        layout: How it is turned.
        index: Number of the plane along `layout.axis`.

    Returns:
        (rows, columns); a view.
    """
    plane = array[(slice(None),) * layout.axis + (index,)]  # np.take copies the whole volume
    if layout.axes[0] > layout.axes[1]:
        plane = plane.T
    return plane[:: -1 if layout.flips[0] else 1, :: -1 if layout.flips[1] else 1]


def flat_plane(volume: Volume, labels: npt.NDArray[Any]) -> Plane:
    """Return a 2D image as it is stored, in colour where it has three channels.

    Args:
        volume: (C, rows, columns).
        labels: (rows, columns) mask.

    Returns:
        The image as a plane.
    """
    image = np.moveaxis(volume.array[:3], 0, -1) if volume.channels == 3 else volume.array[0]
    row_mm, column_mm = volume.spacing_mm if volume.source.has_spacing else (1.0, 1.0)
    return Plane("", image, labels, (row_mm, column_mm), ("", "", "", ""), -1, 0, 1, None)


def display_window(volume: Volume, inside: npt.NDArray[Any] | None = None) -> tuple[float, float]:
    """Choose the intensities shown as black and white.

    CT, or what looks like it (no modality, integers from air to bone), is shown in the soft tissue
    window, or the lung window when most of what was segmented is lung; anything else between
    percentiles of what is not 0.

    Args:
        volume: The image.
        inside: Intensities of segmented voxels, as far as known.

    Returns:
        The value shown black and the value shown white.
    """
    sample = intensity_sample(volume)
    if not sample.size:
        return 0.0, 1.0
    if is_ct(volume, sample):
        lung = inside is not None and inside.size and np.median(inside) < -500
        return LUNG_HU if lung else SOFT_TISSUE_HU
    if volume.is_2d and volume.array.dtype == np.uint8:
        return 0.0, 255.0
    shown = sample[sample != 0]
    low, high = (float(v) for v in np.percentile(shown if shown.size else sample, PERCENTILES))
    return low, max(high, low + (1e-6 * max(abs(low), abs(high)) or 1.0))


def intensity_sample(volume: Volume) -> npt.NDArray[Any]:
    """Return up to about a million intensities of channel 0, spread evenly.

    Args:
        volume: The image.

    Returns:
        (N,) those that are finite.
    """
    step = max(1, round((volume.array[0].size / _SAMPLES) ** (1 / len(volume.shape))))
    sample = volume.array[0][(slice(None, None, step),) * len(volume.shape)]
    return np.asarray(sample[np.isfinite(sample)])


def is_ct(volume: Volume, sample: npt.NDArray[Any]) -> bool:
    """Say whether intensities are those of CT: stated, or no modality and from air to bone.

    Args:
        volume: The image.
        sample: Some of its intensities, at least one.
    """
    if volume.source.modality or volume.is_2d:
        return volume.source.modality == "CT" and not volume.is_2d
    return bool(sample.min() < -500 and sample.max() > 200)


def scale_bar(width: float, unit: str) -> tuple[float, str]:
    """Choose the length of a scale bar: 1, 2 or 5 times a power of ten, at most 0.3 of the width.

    Args:
        width: Of the picture, in the unit.
        unit: `mm` or `px`.

    Returns:
        The length, and what is written beside it; lengths below 0.1 mm in micrometres.

    Examples:
        >>> scale_bar(350.0, "mm"), scale_bar(0.2, "mm")
        ((100.0, '100 mm'), (0.05, '50 µm'))
    """
    most = SCALE_SHARE * width
    power = 10.0 ** np.floor(np.log10(most))
    length = float(max(factor * power for factor in (1, 2, 5) if factor * power <= most * 1.0001))
    if unit == "mm" and length < 0.1:
        return length, f"{length * 1000:.3g} µm"
    return length, f"{length:.3g} {unit}" if length < 1000 else f"{length:.0f} {unit}"


def paint(
    plane: Plane, size: tuple[int, int], window: tuple[float, float], labels: Sequence[Label]
) -> RGB:
    """Draw a plane with translucent labels and their outlines.

    Args:
        plane: What to draw.
        size: Rows and columns of the picture.
        window: Intensities shown black and white.
        labels: Colours by index.

    Returns:
        (rows, columns, 3) picture.
    """
    low, high = window
    grey = _stretch(plane.image, size)
    grey -= low
    grey *= 255 / (high - low)
    np.clip(grey, 0, 255, out=grey)
    picture = grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * count / n, count - 1).astype(np.intp)
        for n, count in zip(size, plane.labels.shape, strict=True)
    )
    shown = plane.labels[np.ix_(rows, columns)]
    largest = max([int(shown.max(initial=0)), *(x.index for x in labels)])
    colors = np.zeros((largest + 1, 3), np.float32)
    colors[1:] = 255
    for label in labels:
        colors[label.index] = label.color
    opacity = np.where(_outline(shown), np.float32(OUTLINE_OPACITY), np.float32(FILL_OPACITY))
    opacity[shown == 0] = 0
    color = colors[shown]
    color -= picture
    color *= opacity[..., None]
    picture += color
    return np.asarray(np.rint(picture, out=picture).astype(np.uint8))


def _outline(shown: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Mark the pixels that have another label above, below, left or right of them."""
    edge = np.zeros(shown.shape, np.bool_)
    down = shown[1:] != shown[:-1]
    across = shown[:, 1:] != shown[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    return edge


def _stretch(image: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Resample a plane linearly to `size`; what is not finite becomes the smallest value."""
    values = image  # floating point from where it has the size wanted: a picture may be huge
    for axis, n in enumerate(size):
        count = values.shape[axis]
        if count == n:
            continue
        where = np.clip((np.arange(n) + 0.5) * count / n - 0.5, 0, count - 1)
        before = np.minimum(where.astype(np.intp), max(count - 2, 0))
        after = np.minimum(before + 1, count - 1)
        part = (where - before).astype(np.float32)
        part = part.reshape([-1 if a == axis else 1 for a in range(values.ndim)])
        low, high = (_finite(values.take(index, axis)) for index in (before, after))
        values = low * (1 - part) + high * part
    return _finite(values)


def _finite(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return a copy as float32, the smallest value in place of what is not finite."""
    result: npt.NDArray[np.float32] = values.astype(np.float32)
    if values.dtype.kind == "f" and not (finite := np.isfinite(result)).all():
        result[~finite] = result[finite].min() if finite.any() else 0
    return result
