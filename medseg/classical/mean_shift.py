"""Mean shift: every voxel climbs to the densest place in intensity and space near it."""

from dataclasses import dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array, csgraph

from medseg.classical.features import Floats, checked_window, features
from medseg.classical.image import (
    check_at_least,
    check_count,
    lengths_in_pixels,
    numbered_regions,
)
from medseg.volume import Segmentation, Volume

DEFAULT_RADIUS = 4
"""Reach in space where none is given; times the smallest spacing."""

STANDSTILL = 0.01
"""A voxel has arrived when a step is shorter than this share of the reach."""

_CHUNK = 1 << 17  # voxels: their scratch arrays stay in the cache

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MeanShift:
    """Mean shift with a flat kernel: steps to the mean of the voxels near in place and intensity.

    Where all have arrived, neighbours (sharing a face) whose places of arrival lie within reach of
    each other in intensity and space, or no further apart than they started, make one region;
    regions of fewer than `min_voxels` join the neighbour that is most like them. Colours and
    intensities are scaled as `Slic` scales them.

    No library at hand has it: scikit-image offers quick shift, its relative.

    Attributes:
        radius_mm: Reach in space; mm. Four times the smallest spacing where None. The work grows
            with its square, in 3D with its cube.
        intensity: Reach in intensity, on the scale of 0 to 100; larger makes fewer regions.
        iterations: Most steps of a voxel.
        min_voxels: Size of the smallest region; voxels.
        window: Intensities that become 0 and 100, what lies outside clipped (HU for CT).

    Raises:
        UsageError: If a number is out of range.

    Source:
        Comaniciu and Meer, Mean shift: a robust approach toward feature space analysis, TPAMI
        2002, sections 3.2 and 4.
    """

    radius_mm: float | None = None
    intensity: float = 5.0
    iterations: int = 10
    min_voxels: int = 20
    window: tuple[float, float] | None = None

    method: ClassVar[str] = "mean-shift"
    numbered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_at_least("radius_mm", self.radius_mm, 0, above=True)
        check_at_least("intensity", self.intensity, 0, above=True)
        check_at_least("iterations", self.iterations, 1)
        check_at_least("min_voxels", self.min_voxels, 1)
        object.__setattr__(self, "window", checked_window(self.window))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the voxels besides the image."""
        return {
            "radius_mm": self.radius_mm,
            "intensity": self.intensity,
            "iterations": self.iterations,
            "min_voxels": self.min_voxels,
            "window": None if self.window is None else list(self.window),
        }

    def __call__(self, volume: Volume) -> Segmentation:
        """Divide an image into regions.

        Args:
            volume: (C, *spatial) image.

        Returns:
            A label for each region, from 1, each face-connected; no voxel is 0.

        Raises:
            InputError: If the image is not finite.
            UsageError: If there are more than 65535 regions (`too-many-regions`).
        """
        values = features(volume, self.window)
        spacing = np.asarray(volume.spacing_mm)
        radius = self.radius_mm or DEFAULT_RADIUS * float(spacing.min())
        place, value = climb(values, spacing / radius, self.intensity, self.iterations)
        labels = _joined(place, value, spacing / radius)
        labels = _without_small(labels, values, self.min_voxels)
        check_count(int(labels.max()), "Raise --intensity, --radius-mm or --min-voxels.")
        problems = lengths_in_pixels(volume, self.radius_mm is not None)
        return numbered_regions(volume, labels, "region", problems)


def mean_shift(volume: Volume, **settings: Any) -> Segmentation:
    """Divide an image into regions by mean shift.

    Args:
        volume: (C, *spatial) image.
        **settings: Of `MeanShift`.

    Returns:
        A label for each region, from 1.
    """
    return MeanShift(**settings)(volume)


def climb(
    values: Floats, steps: npt.NDArray[np.float64], intensity: float, iterations: int
) -> tuple[Floats, Floats]:
    """Move every voxel to the mean of the voxels within reach of it, again and again.

    Args:
        values: (C, *spatial) intensities.
        steps: Distance of neighbouring voxels along each axis; reaches in space.
        intensity: Reach in intensity.
        iterations: Most steps.

    Returns:
        (*spatial, axes) place of arrival, and (*spatial, C) intensity there; both in reaches.
    """
    shape = values.shape[1:]
    scaled = np.ascontiguousarray(
        np.moveaxis(values, 0, -1).reshape(-1, len(values)) / np.float32(intensity)
    )
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    grid = grid.reshape(-1, len(shape))
    place, value = (grid * steps).astype(np.float32), scaled.copy()
    near = _offsets(steps)
    for start in range(0, len(grid), _CHUNK):
        moving = np.arange(start, min(start + _CHUNK, len(grid)))
        for _ in range(iterations):
            to_place, to_value = _means(scaled, shape, steps, near, place[moving], value[moving])
            length = np.square(to_place - place[moving]).sum(1)
            length += np.square(to_value - value[moving]).sum(1)
            place[moving], value[moving] = to_place, to_value
            moving = moving[length > STANDSTILL**2]
            if not len(moving):
                break
    return place.reshape(*shape, -1).astype(np.float32), value.reshape(*shape, -1)


def _offsets(steps: npt.NDArray[np.float64]) -> Ints:
    """Return the voxels within reach of any point of the voxel at the origin."""
    reach = [range(-int(1 / step + 0.5), int(1 / step + 0.5) + 1) for step in steps]
    every = np.array(list(product(*reach)))
    nearest = np.maximum(np.abs(every) - 0.5, 0) * steps
    return np.asarray(every[np.square(nearest).sum(1) <= 1])


def _means(
    scaled: Floats,
    shape: tuple[int, ...],
    steps: npt.NDArray[np.float64],
    near: Ints,
    place: Floats,
    value: Floats,
) -> tuple[Floats, Floats]:
    """Return the means of the voxels within reach of points, in place and in value."""
    centre = np.rint(place / steps).astype(np.int64)
    count = np.zeros(len(place), np.float32)
    to_place, to_value = np.zeros_like(place), np.zeros_like(value)
    for offset in near:
        at = centre + offset
        inside = ((at >= 0) & (at < shape)).all(axis=1)
        there = (at * steps).astype(np.float32)
        colour = scaled[np.ravel_multi_index(tuple(at.T), shape, mode="clip")]
        inside &= np.square(there - place).sum(1) <= 1
        inside &= np.square(colour - value).sum(1) <= 1
        weight = inside.astype(np.float32)
        count += weight
        to_place += weight[:, None] * there
        to_value += weight[:, None] * colour
    alone = count == 0  # a mean that lies within reach of no voxel: it stays
    count = np.where(alone, 1, count)[:, None]
    return (
        np.where(alone[:, None], place, to_place / count),
        np.where(alone[:, None], value, to_value / count),
    )


def _joined(place: Floats, value: Floats, steps: npt.NDArray[np.float64]) -> Ints:
    """Number the regions of neighbours that arrived within reach of each other, from 1."""
    shape = place.shape[:-1]
    flat = np.concatenate([place, value], axis=-1).reshape(int(np.prod(shape)), -1)
    axes = len(shape)
    first, second, along = _neighbours(shape)
    apart = np.square(flat[first] - flat[second])
    furthest = np.square(np.maximum(1.0, 1.0001 * steps))[along]  # a step, but for rounding
    same = (apart[:, :axes].sum(1) <= furthest) & (apart[:, axes:].sum(1) <= 1)
    return _components(first[same], second[same], len(flat)).reshape(shape) + 1


def _without_small(labels: Ints, values: Floats, least: int) -> Ints:
    """Let regions of fewer than `least` voxels join the neighbour most like them."""
    features_of = values.reshape(len(values), -1)
    first, second, _ = _neighbours(labels.shape)
    while True:
        regions = labels.ravel() - 1
        sizes = np.bincount(regions)
        small = sizes < least
        if not small.any() or len(sizes) == 1:
            return labels
        means = np.stack([np.bincount(regions, channel) / sizes for channel in features_of], -1)
        pairs = np.stack([regions[first], regions[second]], -1)
        pairs = pairs[pairs[:, 0] != pairs[:, 1]]
        pairs = np.unique(np.concatenate([pairs, pairs[:, ::-1]]), axis=0)
        pairs = pairs[small[pairs[:, 0]]]
        unlike = np.square(means[pairs[:, 0]] - means[pairs[:, 1]]).sum(1)
        order = np.lexsort((unlike, pairs[:, 0]))  # of each small region the nearest comes first
        _, nearest = np.unique(pairs[order, 0], return_index=True)
        joined = pairs[order][nearest]
        labels = _components(joined[:, 0], joined[:, 1], len(sizes))[regions] + 1
        labels = labels.reshape(values.shape[1:])


def _neighbours(shape: tuple[int, ...]) -> tuple[Ints, Ints, Ints]:
    """Return every pair of voxels that share a face, as flat indices, and the axis of each."""
    index = np.arange(int(np.prod(shape))).reshape(shape)
    ends = [
        (index.take(range(n - 1), axis).ravel(), index.take(range(1, n), axis).ravel())
        for axis, n in enumerate(shape)
    ]
    first, second = zip(*ends, strict=True)
    along = np.repeat(np.arange(len(shape)), [len(pairs) for pairs in first])
    return np.concatenate(first), np.concatenate(second), along


def _components(first: Ints, second: Ints, count: int) -> Ints:
    """Number the connected components of a graph, from 0."""
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(count, count))
    return np.asarray(csgraph.connected_components(graph, directed=False)[1], np.int64)
