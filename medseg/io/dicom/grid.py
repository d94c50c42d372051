"""The even grid that a stack of slices lies on, or the reason why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medseg.errors import GeometryError, Problem
from medseg.geometry import LPS_TO_RAS, Affine, affine_from_dicom
from medseg.io.dicom.header import Frame, Triple
from medseg.io.dicom.problems import problem

GAP_FACTOR = 1.5
"""A gap of at least this many median gaps means that a slice is missing."""
JITTER_WARNING = 0.01
JITTER_ERROR = 0.1
"""Largest distance of a slice from the fitted even grid, as a fraction of the slice spacing."""
SHEAR_DRIFT_PIXELS = 0.1
"""In-plane drift over the whole stack below which slices count as stacked along the normal: what
rounded header fields produce."""
_GAPS_NAMED = 5
_OFFSET_DECIMALS = 6
_TINY = 1e-12

Vector = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """Regular grid of a volume, and how its slices lie on it.

    Attributes:
        affine_lps: (4, 4) from (column, row, slice) to LPS mm.
        size: Columns, rows and slices of the regular grid.
        offsets: (K, 2) column and row of the grid at which each slice begins; pixels.
        depths: (K,) place of each slice along the last axis of the grid; slice steps.
        sheared: Whether slices have to be shifted in plane.
        uneven: Whether slices have to be interpolated along the normal.
    """

    affine_lps: Affine
    size: tuple[int, int, int]
    offsets: Vector
    depths: Vector
    sheared: bool = False
    uneven: bool = False

    @property
    def affine(self) -> Affine:
        """(4, 4) from (i, j, k) to RAS mm."""
        return np.asarray(LPS_TO_RAS @ self.affine_lps)


def normal_of(frame: Frame) -> Vector:
    """Return row x column of a frame that has an orientation.

    Args:
        frame: A frame with geometry.

    Returns:
        (3,) unit normal; LPS.
    """
    row, column = np.asarray(frame.orientation, np.float64).reshape(2, 3)
    normal = np.cross(row, column)
    return np.asarray(normal / max(float(np.linalg.norm(normal)), _TINY))


def positions_of(frames: Sequence[Frame]) -> Vector:
    """Return the positions of frames that have one.

    Args:
        frames: K frames.

    Returns:
        (K, 3) positions; LPS, mm.
    """
    return np.asarray([frame.position for frame in frames], np.float64).reshape(-1, 3)


def fit_grid(frames: Sequence[Frame]) -> tuple[Grid | None, list[Problem]]:
    """Fit an even grid to slices in the order of their position along the normal.

    Args:
        frames: K >= 2 slices of one orientation and spacing.

    Returns:
        The grid, None when the header cannot place the slices, and the problems found. With
        errors among them the grid is the nominal one, at the median spacing.
    """
    first = frames[0]
    if first.position is None or first.orientation is None or first.spacing is None:
        return None, [
            problem("no-geometry", "The header does not place the slices in the patient.")
        ]
    positions = positions_of(frames)
    normal = normal_of(first)
    depths = positions @ normal
    gaps = np.diff(depths)
    median = float(np.median(gaps))
    problems = _missing(frames, gaps, median)
    step, origin = np.linalg.lstsq(
        np.stack([np.arange(len(depths)), np.ones(len(depths))], 1), positions, rcond=None
    )[0]
    if not problems:
        residuals = positions - (origin + np.arange(len(depths))[:, None] * step)
        problems = _uneven(frames, residuals, float(step @ normal))
    uneven = any(found.is_error for found in problems)
    if uneven:
        step = (positions[-1] - positions[0]) / (depths[-1] - depths[0]) * median
        origin = positions[0]
    try:
        affine = affine_from_dicom(origin, first.orientation, first.spacing, float(step @ normal))
        affine = _squared(affine, (*first.spacing[::-1], float(step @ normal)))
    except GeometryError:
        message = "ImageOrientationPatient does not hold two perpendicular directions."
        return None, [problem("no-geometry", message)]
    places = (depths - depths[0]) / median if uneven else np.arange(len(depths), dtype=np.float64)
    return _place(frames, affine, step, places, problems)


def _squared(affine: Affine, spacing: Triple) -> Affine:
    """Undo the rounding of direction cosines: perpendicular axes of exactly the stated spacing."""
    u, _, vt = np.linalg.svd(affine[:3, :3] / spacing)
    result = affine.copy()
    result[:3, :3] = (u @ vt) * spacing
    return result


def _missing(frames: Sequence[Frame], gaps: Vector, median: float) -> list[Problem]:
    wide = np.flatnonzero(gaps >= GAP_FACTOR * median)
    if not wide.size:
        return []
    named = [
        f"{gaps[place]:.2f} mm between instance {_number(frames[place])} and"
        f" {_number(frames[place + 1])}"
        for place in wide[:_GAPS_NAMED]
    ]
    more = f" and {wide.size - _GAPS_NAMED} more" if wide.size > _GAPS_NAMED else ""
    message = f"Slices are missing: {', '.join(named)}{more}, where {median:.2f} mm is usual."
    return [problem("missing-slices", message)]


def _number(frame: Frame) -> str:
    number = frame.instance.instance_number
    name = "?" if number is None else str(number)
    return f"{name} frame {frame.index + 1}" if frame.instance.pixels.frames > 1 else name


def _uneven(frames: Sequence[Frame], residuals: Vector, spacing: float) -> list[Problem]:
    distances = np.linalg.norm(residuals, axis=1)
    worst = int(distances.argmax())
    share = float(distances[worst]) / spacing
    if share <= JITTER_WARNING:
        return []
    where = (
        f"instance {_number(frames[worst])} lies {distances[worst]:.3f} mm off the even grid of"
        f" {spacing:.3f} mm ({share:.0%})"
    )
    if share > JITTER_ERROR:
        return [problem("irregular-spacing", f"Slices are not evenly spaced: {where}.")]
    return [problem("slice-jitter", f"Slice positions jitter: {where}; the even grid is used.")]


def _place(
    frames: Sequence[Frame], affine: Affine, step: Vector, places: Vector, problems: list[Problem]
) -> tuple[Grid, list[Problem]]:
    """Turn affine and slice step into a grid, extended in plane when the stack is sheared."""
    uneven = any(found.is_error for found in problems)
    slices = round(float(places[-1])) + 1 if uneven else len(frames)
    columns, rows = frames[0].columns, frames[0].rows
    in_plane = affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0) ** 2
    drift = np.asarray(step @ in_plane)  # pixels (column, row) from one slice to the next
    drift[np.abs(drift * places[-1]) < SHEAR_DRIFT_PIXELS] = 0
    if not drift.any():
        grid = Grid(affine, (columns, rows, slices), np.zeros((len(frames), 2)), places)
        return _with(grid, sheared=False, uneven=uneven), problems
    offsets = drift * places[:, None]
    offsets = np.round(offsets, _OFFSET_DECIMALS)
    low, high = np.floor(offsets.min(0)), np.ceil(offsets.max(0))
    moved = affine.copy()
    moved[:3, 3] += affine[:3, :2] @ low
    size = (columns + int(high[0] - low[0]), rows + int(high[1] - low[1]), slices)
    shift_mm = affine[:3, :2] @ drift
    angle = np.degrees(np.arctan2(np.linalg.norm(shift_mm), np.linalg.norm(affine[:3, 2])))
    message = (
        f"Slices are sheared along the stack by {angle:.2f} degrees (gantry tilt): the volume is"
        f" resampled to a rectangular grid of {size[0]} x {size[1]} x {size[2]} voxels."
    )
    grid = Grid(moved, size, offsets - low, places)
    return _with(grid, sheared=True, uneven=uneven), [*problems, problem("gantry-tilt", message)]


def _with(grid: Grid, *, sheared: bool, uneven: bool) -> Grid:
    return Grid(grid.affine_lps, grid.size, grid.offsets, grid.depths, sheared, uneven)
