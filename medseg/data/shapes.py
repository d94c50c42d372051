"""Signed distances of simple solids: what a phantom's anatomy is made of.

Each shape knows a ball around itself, so that a renderer evaluates it on a few voxels only.
Distances are negative inside, in mm, exact near the surface and approximate far from it.
"""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]
Point: TypeAlias = tuple[float, float, float]


class Shape(Protocol):
    """A solid in the body frame."""

    def distance(self, points: FloatArray) -> FloatArray:
        """Return the signed distance of points.

        Args:
            points: (3, ...) in the body frame; mm.

        Returns:
            (...) distance, negative inside; mm.
        """
        ...

    def ball(self) -> tuple[Point, float]:
        """Return centre and radius of a ball that holds the solid; mm."""
        ...


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid along the body's axes.

    Attributes:
        centre: In the body frame; mm.
        radii: Semi-axes; mm.
    """

    centre: Point
    radii: Point

    def distance(self, points: FloatArray) -> FloatArray:
        """Return the first-order signed distance of points: exact on the surface."""
        value = np.zeros(points.shape[1:], np.float32)
        slope = np.full(points.shape[1:], 1e-12, np.float32)
        for axis in range(3):
            scaled = (points[axis] - np.float32(self.centre[axis])) / np.float32(self.radii[axis])
            value += scaled * scaled
            slope += (scaled / np.float32(self.radii[axis])) ** 2
        value = np.sqrt(value)
        return np.asarray(value * (value - 1) / np.sqrt(slope), np.float32)

    def ball(self) -> tuple[Point, float]:
        """Return centre and radius of a ball that holds the solid; mm."""
        return self.centre, max(self.radii)


@dataclass(frozen=True)
class Capsule:
    """A tube with round ends, as a piece of vessel or bowel.

    Attributes:
        start: Centre of one end, in the body frame; mm.
        end: Centre of the other end; mm.
        radius_mm: Radius at the start; mm.
        end_radius_mm: Radius at the end; mm.
    """

    start: Point
    end: Point
    radius_mm: float
    end_radius_mm: float

    def distance(self, points: FloatArray) -> FloatArray:
        """Return the signed distance of points to the tapered tube."""
        axis = np.subtract(self.end, self.start).astype(np.float32)
        shape = (3,) + (1,) * (points.ndim - 1)
        offset = points - np.asarray(self.start, np.float32).reshape(shape)
        along = np.tensordot(axis, offset, 1) / max(float(axis @ axis), 1e-6)
        along = np.clip(along, 0, 1).astype(np.float32)
        offset -= along * axis.reshape(shape)
        radius = self.radius_mm + (self.end_radius_mm - self.radius_mm) * along
        return np.asarray(np.sqrt((offset * offset).sum(0)) - radius, np.float32)

    def ball(self) -> tuple[Point, float]:
        """Return centre and radius of a ball that holds the solid; mm."""
        start, end = np.asarray(self.start), np.asarray(self.end)
        x, y, z = (float(value) for value in (start + end) / 2)
        half = float(np.linalg.norm(end - start)) / 2
        return (x, y, z), half + max(self.radius_mm, self.end_radius_mm)


def smooth_union(first: FloatArray, second: FloatArray, width_mm: float) -> FloatArray:
    """Return the union of two solids with a rounded seam.

    Args:
        first: (...) signed distance; mm.
        second: (...) signed distance of the same points; mm.
        width_mm: How far from the seam the rounding reaches; mm.

    Returns:
        (...) signed distance; mm.
    """
    share = np.clip(0.5 + 0.5 * (second - first) / width_mm, 0, 1)
    mixed = second + (first - second) * share - width_mm * share * (1 - share)
    return np.asarray(mixed, np.float32)
