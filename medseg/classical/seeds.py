"""Seeds: voxels that a user points at, by their index or by their place in the patient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medseg.errors import InputError, UsageError
from medseg.geometry import apply_affine, corners
from medseg.volume import Volume, size_text

Point = tuple[float, ...]
Voxel = tuple[int, ...]


@dataclass(frozen=True)
class Seeds:
    """Where to start.

    Attributes:
        voxel: (i, j, k) indices from 0, in the order of the image's axes; (row, column) in 2D.
        mm: (x, y, z) points; RAS, mm. In 2D (down, right) from the centre of the first pixel; mm.

    Raises:
        UsageError: If a coordinate is no number, an index no whole number from 0 on, or a seed has
            neither two nor three coordinates.
    """

    voxel: tuple[Voxel, ...] = ()
    mm: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxel", tuple(_index(seed) for seed in self.voxel))
        object.__setattr__(self, "mm", tuple(_point(seed) for seed in self.mm))

    def __len__(self) -> int:
        """Count the seeds."""
        return len(self.voxel) + len(self.mm)

    def require(self) -> None:
        """Refuse to have no seed.

        Raises:
            UsageError: Code `no-seeds`.
        """
        if not len(self):
            msg = (
                "seeds must hold at least one, got none."
                " Name a voxel with --seed-voxel I,J,K or a point with --seed-mm X,Y,Z."
            )
            raise UsageError(msg, code="no-seeds")

    def on(self, volume: Volume) -> tuple[Voxel, ...]:
        """Return the voxels that the seeds mean in an image.

        Args:
            volume: The image.

        Returns:
            (i, j, k) or (row, column) of each: first `voxel`, then `mm`, each point standing for
            the voxel it lies in.

        Raises:
            InputError: Codes `seed-outside`, `seed-dimensions`, `no-pixel-size`.
        """
        self.require()
        dims = len(volume.shape)
        for seed in (*self.voxel, *self.mm):
            if len(seed) != dims:
                msg = f"seed must have {dims} numbers for this image, got {_text(seed)}."
                raise InputError(msg, code="seed-dimensions")
        for seed in self.voxel:
            if any(at >= extent for at, extent in zip(seed, volume.shape, strict=True)):
                last = _text([extent - 1 for extent in volume.shape])
                msg = (
                    f"seed must lie inside the image of {size_text(volume.shape)} voxels, got"
                    f" voxel {_text(seed)}. The last voxel is {last}."
                )
                raise InputError(msg, code="seed-outside")
        return (*self.voxel, *(_voxel_at(volume, point) for point in self.mm))

    @property
    def settings(self) -> dict[str, Any]:
        """The seeds, fit for JSON."""
        return {"voxel": [list(seed) for seed in self.voxel], "mm": [list(s) for s in self.mm]}


def _voxel_at(volume: Volume, point: Point) -> Voxel:
    if not volume.source.has_spacing:
        msg = (
            f"seed in mm must be in an image with a pixel size, got {_text(point)} mm in a picture"
            " that states none. Use --seed-voxel ROW,COLUMN."
        )
        raise InputError(msg, code="no-pixel-size")
    index = apply_affine(np.linalg.inv(volume.affine), point)
    nearest = np.floor(index + 0.5).astype(np.int64)
    if (nearest < 0).any() or (nearest >= volume.shape).any():
        ends = apply_affine(volume.affine, corners(volume.shape))
        spans = ", ".join(
            f"{low:.1f} to {high:.1f}"
            for low, high in zip(ends.min(axis=0), ends.max(axis=0), strict=True)
        )
        frame = "" if volume.is_2d else " RAS"
        msg = (
            f"seed must lie inside the image, got {_text(point)} mm{frame}, which is voxel"
            f" {_text(nearest.tolist())} of {size_text(volume.shape)}."
            f" The image spans {spans} mm."
        )
        raise InputError(msg, code="seed-outside")
    return tuple(int(at) for at in nearest)


def _index(seed: Sequence[float]) -> Voxel:
    point = _point(seed)
    if any(value < 0 or value != int(value) for value in point):
        msg = f"seed voxel must be whole numbers from 0 on, got {_text(point)}."
        raise UsageError(msg)
    return tuple(int(value) for value in point)


def _point(seed: Sequence[float]) -> Point:
    values = tuple(float(value) for value in seed)
    if len(values) not in (2, 3) or not all(math.isfinite(value) for value in values):
        msg = f"seed must be two or three numbers, got {_text(values)}."
        raise UsageError(msg)
    return values


def _text(seed: Sequence[float]) -> str:
    return f"({', '.join(f'{value:g}' for value in seed)})"
