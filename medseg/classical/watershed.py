"""Watershed: an image as a landscape, flooded from its lowest points or from markers."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage
from skimage.segmentation import watershed as skimage_watershed

from medseg.classical.image import (
    check_at_least,
    check_count,
    check_range,
    from_sitk,
    grey,
    lengths_in_pixels,
    numbered_regions,
    to_sitk,
)
from medseg.classical.seeds import Seeds
from medseg.errors import GeometryError, InputError, UsageError
from medseg.volume import Segmentation, Volume, grid_difference

RELIEFS = ("gradient", "bright", "dark", "distance")

DEFAULT_DEPTH = 0.05
"""Share of the relief's range that a basin must be deep, where no depth is given."""

PERCENTILES = (1.0, 99.0)

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Watershed:
    """Divide an image along the ridges of a landscape made of it.

    Reliefs: `gradient`, the steepness of the intensity, so that edges are ridges; `bright`, where
    bright objects are basins; `dark`, where dark ones are; `distance`, the distance to what lies
    outside the limits, which parts touching round objects of one intensity.

    Voxels outside `lower` and `upper` stay background, and no flood crosses them.

    Attributes:
        markers: A seed, or a label of a mask on the image's grid, for each region; None takes the
            basins of the relief, one region each.
        relief: One of `RELIEFS`.
        smooth_mm: Width of a Gaussian that smooths the image first; mm.
        depth: Basins less deep join their neighbour: intensity a mm for `gradient`, intensity for
            `bright` and `dark`, mm for `distance`. None: a twentieth of the relief's range, for
            `distance` at least the smallest spacing, for the steps of voxels are no basins.
        lower: Smallest intensity that is divided (HU for CT); None for no limit.
        upper: Largest intensity that is divided; None for no limit.
        channel: Channel of an image that has several, from 0.
        label: Name of a region, before its number.

    Raises:
        UsageError: If a number is out of range, a depth is given with markers, or no limit for
            `distance`.

    Source:
        Vincent and Soille, Watersheds in digital spaces, TPAMI 1991; Soille, Morphological image
        analysis, 2003, chapter 9 (depth of basins).
    """

    markers: Seeds | Volume | None = None
    relief: str = "gradient"
    smooth_mm: float = 0.0
    depth: float | None = None
    lower: float | None = None
    upper: float | None = None
    channel: int | None = None
    label: str = "region"

    method: ClassVar[str] = "watershed"
    numbered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.markers, Seeds):
            self.markers.require()
        if self.relief not in RELIEFS:
            msg = f"relief must be among {', '.join(RELIEFS)}, got {self.relief!r}."
            raise UsageError(msg)
        check_at_least("smooth_mm", self.smooth_mm, 0)
        check_at_least("depth", self.depth, 0)
        check_range(self.lower, self.upper)
        if self.markers is not None and self.depth is not None:
            msg = "depth must not be given with markers: each marker is one region."
            raise UsageError(msg)
        if self.relief == "distance" and self.lower is None and self.upper is None:
            msg = (
                "lower or upper must be given for relief distance, got neither."
                " Say with --lower or --upper which intensities the objects have."
            )
            raise UsageError(msg)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the voxels besides the image and a mask of markers."""
        kind = {Seeds: "seeds", Volume: "mask", type(None): "basins"}[type(self.markers)]
        return {
            "start": kind,
            "seeds": self.markers.settings if isinstance(self.markers, Seeds) else None,
            "relief": self.relief,
            "smooth_mm": self.smooth_mm,
            "depth": self.depth,
            "lower": self.lower,
            "upper": self.upper,
            "channel": self.channel,
            "label": self.label,
        }

    def __call__(self, volume: Volume) -> Segmentation:
        """Divide an image.

        Args:
            volume: (1, *spatial) image, or several channels and `channel` set.

        Returns:
            A label for each marker (its number in the mask, or the seeds' order from 1) or each
            basin; 0 outside the limits, and where no marker lies in what they enclose.

        Raises:
            InputError: If the image is not grey or not finite, a seed lies outside it
                (`seed-outside`), or a marker outside the limits (`marker-outside`).
            GeometryError: If the mask of markers lies on another grid (`grid-mismatch`).
            UsageError: If there are more than 65535 basins (`too-many-regions`).
        """
        array = grey(volume, self.channel)
        inside = np.ones(array.shape, np.bool_)
        if self.lower is not None:
            inside &= array >= self.lower
        if self.upper is not None:
            inside &= array <= self.upper
        markers = self._markers(volume)
        if markers is not None:
            _check_inside(markers, inside)
        problems = lengths_in_pixels(volume, self.smooth_mm > 0 or self.relief == "distance")
        if not inside.any():
            empty = np.zeros(array.shape, np.uint8)
            return numbered_regions(volume, empty, self.label, problems)
        relief = self._relief(array, inside, volume.spacing_mm)
        if markers is None:
            markers = _basins(relief, inside, self._depth(relief[inside], volume.spacing_mm))
            check_count(int(markers.max()), "Raise --depth or --smooth-mm.")
        labels = skimage_watershed(relief, markers.astype(np.int32), mask=inside)
        return numbered_regions(volume, labels, self.label, problems)

    def _markers(self, volume: Volume) -> npt.NDArray[Any] | None:
        if self.markers is None:
            return None
        if isinstance(self.markers, Volume):
            difference = grid_difference(volume, self.markers)
            if difference:
                msg = f"markers must lie on the grid of the image, got {difference}."
                raise GeometryError(msg, code="grid-mismatch")
            if not self.markers.array.any():
                msg = "markers must hold at least one label, got a mask of background alone."
                raise InputError(msg, code="no-seeds")
            return np.asarray(self.markers.array[0])
        seeds = self.markers.on(volume)
        if len(set(seeds)) < len(seeds):
            double = next(seed for seed in seeds if seeds.count(seed) > 1)
            msg = f"seeds must lie in different voxels, got {double} twice. Each is a region."
            raise InputError(msg, code="same-seed")
        markers = np.zeros(volume.shape, np.int32)
        for number, seed in enumerate(seeds, start=1):
            markers[seed] = number
        return markers

    def _relief(
        self, array: npt.NDArray[Any], inside: Mask, spacing_mm: tuple[float, ...]
    ) -> Floats:
        if self.relief == "distance":
            distance = ndimage.distance_transform_edt(inside, sampling=spacing_mm)
            return np.asarray(-distance, np.float32)
        values = array.astype(np.float32)
        if self.smooth_mm:
            sigma = [self.smooth_mm / step for step in spacing_mm]
            values = ndimage.gaussian_filter(values, sigma, mode="nearest")
        if self.relief == "bright":
            return -values
        return values if self.relief == "dark" else _steepness(values, spacing_mm)

    def _depth(self, relief: Floats, spacing_mm: tuple[float, ...]) -> float:
        if self.depth is not None:
            return self.depth
        low, high = np.percentile(relief, PERCENTILES)
        least = min(spacing_mm) if self.relief == "distance" else 0.0
        return max(least, DEFAULT_DEPTH * float(high - low))


def watershed(volume: Volume, **settings: Any) -> Segmentation:
    """Divide an image along the ridges of a landscape made of it.

    Args:
        volume: As `Watershed` is called with.
        **settings: Of `Watershed`.

    Returns:
        A label for each region, from 1.
    """
    return Watershed(**settings)(volume)


def _steepness(values: Floats, spacing_mm: tuple[float, ...]) -> Floats:
    """Return the length of the gradient; intensity a mm."""
    squares = np.zeros(values.shape, np.float32)
    for axis, step in enumerate(spacing_mm):
        if values.shape[axis] > 1:
            squares += np.square(np.gradient(values, np.float32(step), axis=axis))
    return np.sqrt(squares)


def _basins(relief: Floats, inside: Mask, depth: float) -> npt.NDArray[Any]:
    """Number the lowest points of all basins that are deep enough.

    What lies outside is a wall above everything, so that each part of the inside keeps its lowest
    point, however flat it is.
    """
    wall = float(relief.max()) + 2 * depth + 1
    image = to_sitk(np.where(inside, relief, np.float32(wall)))
    if depth > 0:
        image = sitk.HMinima(image, height=depth, fullyConnected=False)
    lowest = sitk.RegionalMinima(
        image, backgroundValue=0, foregroundValue=1, fullyConnected=False, flatIsMinima=True
    )
    return from_sitk(sitk.ConnectedComponent(lowest, False)) * inside


def _check_inside(markers: npt.NDArray[Any], inside: Mask) -> None:
    """Refuse a marker of which nothing lies within the limits: it would vanish without a word."""
    counts = np.bincount(markers.ravel().astype(np.int64))
    left = np.bincount(markers[inside].astype(np.int64), minlength=len(counts))
    lost = [int(index) for index in np.flatnonzero(counts) if index and not left[index]]
    if lost:
        listed = ", ".join(str(index) for index in lost[:10])
        msg = (
            f"markers must lie within the limits lower and upper, got {len(lost)} outside"
            f" (marker {listed}). Move them or the limits."
        )
        raise InputError(msg, code="marker-outside")
