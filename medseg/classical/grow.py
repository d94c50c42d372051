"""Region growing: what hangs together with a seed and is of an intensity like it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from medseg.classical.image import (
    check_at_least,
    check_range,
    exact_float,
    from_sitk,
    grey,
    segmentation_of,
    to_sitk,
)
from medseg.classical.seeds import Seeds, Voxel
from medseg.errors import InputError, UsageError
from medseg.volume import Segmentation, Volume


@dataclass(frozen=True)
class ConnectedThreshold:
    """Grow from seeds through all voxels whose intensity lies within limits.

    Attributes:
        seeds: Where to start; all seeds make one region.
        lower: Smallest intensity of the region (HU for CT), itself included; None for no limit.
        upper: Largest intensity, itself included; None for no limit.
        channel: Channel of an image that has several, from 0.
        corners: Voxels that share an edge or a corner hang together too, not only those that share
            a face.
        label: Name of the region.

    Raises:
        UsageError: If there is no seed (`no-seeds`), no limit, or they are in the wrong order.
    """

    seeds: Seeds
    lower: float | None = None
    upper: float | None = None
    channel: int | None = None
    corners: bool = False
    label: str = "region"

    method: ClassVar[str] = "connected-threshold"
    numbered: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.seeds.require()
        check_range(self.lower, self.upper)
        if self.lower is None and self.upper is None:
            msg = "lower or upper must be given, got neither. Set --lower, --upper or both."
            raise UsageError(msg)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the voxels besides the image."""
        return {
            "seeds": self.seeds.settings,
            "lower": self.lower,
            "upper": self.upper,
            "channel": self.channel,
            "corners": self.corners,
            "label": self.label,
        }

    def __call__(self, volume: Volume) -> Segmentation:
        """Grow the region.

        Args:
            volume: (1, *spatial) image, or several channels and `channel` set.

        Returns:
            Label 1 on the image's grid.

        Raises:
            InputError: If a seed lies outside the image (`seed-outside`) or the limits
                (`seed-outside-limits`), or the image is not grey or not finite.
        """
        array = grey(volume, self.channel)
        seeds = self.seeds.on(volume)
        self._check_intensities(array, seeds)
        if array.dtype in (np.int64, np.uint64):  # SimpleITK takes limits as float64
            array = exact_float(array)
        lower, upper = _limits_of_type(array.dtype, self.lower, self.upper)
        grown = sitk.ConnectedThreshold(
            to_sitk(array),
            seedList=seeds,
            lower=lower,
            upper=upper,
            replaceValue=1,
            connectivity=(
                sitk.ConnectedThresholdImageFilter.FullConnectivity
                if self.corners
                else sitk.ConnectedThresholdImageFilter.FaceConnectivity
            ),
        )
        return segmentation_of(volume, from_sitk(grown), {1: self.label})

    def _check_intensities(self, array: npt.NDArray[Any], seeds: tuple[Voxel, ...]) -> None:
        """Refuse a seed that the region could not hold: it would be left out without a word."""
        low = -np.inf if self.lower is None else self.lower
        high = np.inf if self.upper is None else self.upper
        for seed in seeds:
            value = float(array[seed])
            if not low <= value <= high:
                msg = (
                    f"seed must lie within the limits {low:g} to {high:g}, got intensity"
                    f" {value:g} at voxel {seed}. Move the seed or the limits."
                )
                raise InputError(msg, code="seed-outside-limits")


@dataclass(frozen=True)
class ConfidenceConnected:
    """Grow from seeds through intensities near the region's own mean, again and again.

    The first limits are the mean of the seeds' surroundings plus and minus `multiplier` standard
    deviations, and wide enough for the seeds; then those of the region found, as often as
    `iterations` says. Voxels that share a face hang together.

    Attributes:
        seeds: Where to start; all seeds make one region.
        multiplier: Width of the limits; standard deviations.
        iterations: How often mean and deviation are taken of the region anew; 0 keeps the first.
        radius_voxels: The surroundings of a seed reach so far along each axis.
        channel: Channel of an image that has several, from 0.
        label: Name of the region.

    Raises:
        UsageError: If there is no seed (`no-seeds`), or a number is out of range.

    Source:
        ITK's ConfidenceConnectedImageFilter (ITK Software Guide, section 4.1.3).
    """

    seeds: Seeds
    multiplier: float = 2.5
    iterations: int = 4
    radius_voxels: int = 1
    channel: int | None = None
    label: str = "region"

    method: ClassVar[str] = "confidence-connected"
    numbered: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self.seeds.require()
        check_at_least("multiplier", self.multiplier, 0, above=True)
        check_at_least("iterations", self.iterations, 0)
        check_at_least("radius_voxels", self.radius_voxels, 0)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the voxels besides the image."""
        return {
            "seeds": self.seeds.settings,
            "multiplier": self.multiplier,
            "iterations": self.iterations,
            "radius_voxels": self.radius_voxels,
            "channel": self.channel,
            "label": self.label,
        }

    def __call__(self, volume: Volume) -> Segmentation:
        """Grow the region.

        Args:
            volume: (1, *spatial) image, or several channels and `channel` set.

        Returns:
            Label 1 on the image's grid.

        Raises:
            InputError: If a seed lies outside the image (`seed-outside`), or the image is not grey
                or not finite.
        """
        array = grey(volume, self.channel)
        seeds = self.seeds.on(volume)
        # of integers ITK would cut the limits to integers, towards zero
        grown = sitk.ConfidenceConnected(
            to_sitk(exact_float(array)),
            seedList=seeds,
            numberOfIterations=self.iterations,
            multiplier=self.multiplier,
            initialNeighborhoodRadius=self.radius_voxels,
            replaceValue=1,
        )
        return segmentation_of(volume, from_sitk(grown), {1: self.label})


def connected_threshold(volume: Volume, seeds: Seeds, **settings: Any) -> Segmentation:
    """Grow from seeds through all voxels whose intensity lies within limits.

    Args:
        volume: As `ConnectedThreshold` is called with.
        seeds: Where to start.
        **settings: Of `ConnectedThreshold`.

    Returns:
        Label 1 on the image's grid.
    """
    return ConnectedThreshold(seeds, **settings)(volume)


def confidence_connected(volume: Volume, seeds: Seeds, **settings: Any) -> Segmentation:
    """Grow from seeds through intensities near the region's own mean.

    Args:
        volume: As `ConfidenceConnected` is called with.
        seeds: Where to start.
        **settings: Of `ConfidenceConnected`.

    Returns:
        Label 1 on the image's grid.
    """
    return ConfidenceConnected(seeds, **settings)(volume)


def _limits_of_type(
    dtype: np.dtype[Any], lower: float | None, upper: float | None
) -> tuple[float, float]:
    """Return the limits as the pixel type can hold them: ITK casts what it is given to it.

    A limit of 0.5 would become 0 and one of -2000 wrap around in an unsigned image.
    """
    if dtype.kind == "f":
        info = np.finfo(np.float32 if dtype == np.float16 else dtype)
        low, high = float(info.min), float(info.max)
        return max(low, low if lower is None else lower), min(
            high, high if upper is None else upper
        )
    kind = np.dtype(np.uint8) if dtype == np.bool_ else dtype
    limits = np.iinfo(kind)
    least, most = int(limits.min), int(limits.max)
    first = least if lower is None or lower <= least else int(np.ceil(lower))
    last = most if upper is None or upper >= most else int(np.floor(upper))
    return first, last
