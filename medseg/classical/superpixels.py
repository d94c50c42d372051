"""Superpixels: small regions of like intensity that cover the whole image."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import SimpleITK as sitk
from skimage.segmentation import quickshift as skimage_quickshift

from medseg.classical.features import checked_window, features
from medseg.classical.image import (
    check_at_least,
    check_count,
    compact,
    from_sitk,
    lengths_in_pixels,
    numbered_regions,
)
from medseg.errors import InputError, UsageError
from medseg.volume import Segmentation, Volume

_FEWER = "Ask for fewer or larger ones: --count at most 65535, or a larger --size-mm."


@dataclass(frozen=True)
class Slic:
    """SLIC: k-means in intensity and space, started from an even grid.

    The cells of the grid are as near to cubes (squares in 2D) in millimetres as whole voxels allow,
    and distances are counted in cells: thick slices get cells of fewer slices. Colour pictures are
    compared in Lab, grey images on a scale of 0 to 100 for `window`, or from the 1st to the 99th
    percentile.

    Attributes:
        count: About how many superpixels; 500 where neither this nor `size_mm` is given.
        size_mm: Instead: edge of a superpixel; mm.
        compactness: Weight of distance (in cells) against intensity; large ones make cubes.
        iterations: Steps of k-means.
        window: Intensities that become 0 and 100, what lies outside clipped (HU for CT).
        connected: Join the scattered parts of a superpixel to its neighbours.

    Raises:
        UsageError: If a number is out of range, `count` and `size_mm` are both given, or there
            would be more than 65535 (`too-many-regions`).

    Source:
        Achanta et al., SLIC superpixels compared to state-of-the-art superpixel methods, TPAMI
        2012; Lowekamp et al., Scalable simple linear iterative clustering, Insight Journal 2018.
    """

    count: int | None = None
    size_mm: float | None = None
    compactness: float = 10.0
    iterations: int = 10
    window: tuple[float, float] | None = None
    connected: bool = True

    method: ClassVar[str] = "slic"
    numbered: ClassVar[bool] = True
    default_count: ClassVar[int] = 500

    def __post_init__(self) -> None:
        if self.count is not None and self.size_mm is not None:
            msg = "count and size_mm must not be given together. Choose --count or --size-mm."
            raise UsageError(msg)
        check_at_least("count", self.count, 1)
        check_at_least("size_mm", self.size_mm, 0, above=True)
        check_at_least("compactness", self.compactness, 0, above=True)
        check_at_least("iterations", self.iterations, 1)
        object.__setattr__(self, "window", checked_window(self.window))
        if self.count is not None:
            check_count(self.count, _FEWER)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the voxels besides the image."""
        return {
            "count": self.count if self.count or self.size_mm else self.default_count,
            "size_mm": self.size_mm,
            "compactness": self.compactness,
            "iterations": self.iterations,
            "window": None if self.window is None else list(self.window),
            "connected": self.connected,
        }

    def __call__(self, volume: Volume) -> Segmentation:
        """Divide an image into superpixels.

        Args:
            volume: (C, *spatial) image.

        Returns:
            A label for each superpixel, from 1; no voxel is 0.

        Raises:
            InputError: If the image is not finite.
            UsageError: If there are more than 65535 superpixels (`too-many-regions`).
        """
        values = features(volume, self.window)
        cell = self.cell_voxels(volume)
        expected = int(np.prod([-(-n // step) for n, step in zip(volume.shape, cell, strict=True)]))
        check_count(expected, _FEWER)
        clustering = sitk.SLICImageFilter()
        clustering.SetSuperGridSize(cell)
        clustering.SetSpatialProximityWeight(self.compactness)
        clustering.SetMaximumNumberOfIterations(self.iterations)
        clustering.SetEnforceConnectivity(self.connected)
        # values.T is (K, J, I, C): SimpleITK takes the slowest axis first, channels last
        image = sitk.GetImageFromArray(np.ascontiguousarray(values.T), isVector=True)
        labels = compact(from_sitk(clustering.Execute(image)).astype(np.int64) + 1)
        check_count(int(labels.max()), _FEWER)
        problems = lengths_in_pixels(volume, self.size_mm is not None)
        return numbered_regions(volume, labels, "superpixel", problems)

    def cell_voxels(self, volume: Volume) -> tuple[int, ...]:
        """Return the cells of the grid that superpixels start from.

        Args:
            volume: The image.

        Returns:
            Voxels of a cell along each axis.
        """
        extents_mm = [n * step for n, step in zip(volume.shape, volume.spacing_mm, strict=True)]
        edge = self.size_mm
        if edge is None:
            edge = _edge_mm(extents_mm, volume.spacing_mm, self.count or self.default_count)
        return tuple(
            int(np.clip(np.floor(edge / step + 0.5), 1, n))
            for n, step in zip(volume.shape, volume.spacing_mm, strict=True)
        )


@dataclass(frozen=True)
class Quickshift:
    """Quick shift: every pixel moves to the nearest one where more of its like lie; 2D alone.

    A mode-seeking method, the fast relative of mean shift: regions are the basins of the density
    of pixels in colour and place. Regions need not hang together. Colours and intensities are
    scaled as `Slic` scales them.

    Attributes:
        kernel_pixels: Width of the Gaussian that the density is estimated with; larger makes fewer
            regions. The work grows with its square.
        distance: A move goes no further than this in colour and place together; larger makes
            fewer regions.
        ratio: Weight of colour against place, 0 to 1.
        window: Intensities that become 0 and 100, what lies outside clipped.

    Raises:
        UsageError: If a number is out of range.

    Source:
        Vedaldi and Soatto, Quick shift and kernel methods for mode seeking, ECCV 2008.
    """

    kernel_pixels: float = 5.0
    distance: float = 10.0
    ratio: float = 1.0
    window: tuple[float, float] | None = None

    method: ClassVar[str] = "quickshift"
    numbered: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_at_least("kernel_pixels", self.kernel_pixels, 1)  # scikit-image's own limit
        check_at_least("distance", self.distance, 0, above=True)
        if not 0 <= self.ratio <= 1:
            msg = f"ratio must be 0 to 1, got {self.ratio!r}."
            raise UsageError(msg)
        object.__setattr__(self, "window", checked_window(self.window))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the voxels besides the image."""
        return {
            "kernel_pixels": self.kernel_pixels,
            "distance": self.distance,
            "ratio": self.ratio,
            "window": None if self.window is None else list(self.window),
        }

    def __call__(self, volume: Volume) -> Segmentation:
        """Divide a picture into regions.

        Args:
            volume: (C, rows, columns), or (C, I, J, K) with an axis of one voxel.

        Returns:
            A label for each region, from 1; no pixel is 0.

        Raises:
            InputError: If the image is 3D (`needs-2d`) or not finite.
            UsageError: If there are more than 65535 regions (`too-many-regions`).
        """
        flat = [axis for axis, extent in enumerate(volume.shape) if extent == 1]
        if not volume.is_2d and not flat:
            msg = (
                f"image must be 2D for quickshift, got {len(volume.shape)} axes."
                " Use --method slic for volumes."
            )
            raise InputError(msg, code="needs-2d")
        values = features(volume, self.window)
        plane = values if volume.is_2d else values.squeeze(flat[0] + 1)
        labels = skimage_quickshift(
            np.ascontiguousarray(np.moveaxis(plane, 0, -1), np.float64),
            ratio=self.ratio,
            kernel_size=self.kernel_pixels,
            max_dist=self.distance,
            convert2lab=False,
        )
        check_count(int(labels.max()) + 1, "Raise --kernel-pixels or --distance.")
        labels = compact(labels.astype(np.int64) + 1).reshape(volume.shape)
        return numbered_regions(volume, labels, "superpixel")


def slic(volume: Volume, **settings: Any) -> Segmentation:
    """Divide an image into superpixels by k-means in intensity and space.

    Args:
        volume: (C, *spatial) image.
        **settings: Of `Slic`.

    Returns:
        A label for each superpixel, from 1.
    """
    return Slic(**settings)(volume)


def quickshift(volume: Volume, **settings: Any) -> Segmentation:
    """Divide a picture into regions by quick shift.

    Args:
        volume: (C, rows, columns) image.
        **settings: Of `Quickshift`.

    Returns:
        A label for each region, from 1.
    """
    return Quickshift(**settings)(volume)


def _edge_mm(extents_mm: list[float], spacing_mm: tuple[float, ...], count: int) -> float:
    """Return the edge of a cube of which `count` fill the image.

    Along an axis that is shorter than the edge a cell is as long as the axis, and where a voxel is
    longer, as long as a voxel: the others make up for it.
    """
    free = list(range(len(extents_mm)))
    cells = float(count)
    while True:
        volume = float(np.prod([extents_mm[axis] for axis in free]))
        edge = float((volume / max(cells, 1.0)) ** (1 / len(free)))
        short = [axis for axis in free if extents_mm[axis] < edge]
        coarse = [axis for axis in free if spacing_mm[axis] > edge]
        settled = short or coarse
        if not settled or len(settled) == len(free):
            return edge
        for axis in settled:
            free.remove(axis)
            if axis in coarse and axis not in short:
                cells /= extents_mm[axis] / spacing_mm[axis]
