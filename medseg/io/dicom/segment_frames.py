"""Which slice of a series a frame of a DICOM SEG lies on, and where on it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from medseg.errors import DicomError
from medseg.geometry import SAME_GRID_TOLERANCE_VOXELS
from medseg.io.dicom.segment_header import sources_of
from medseg.io.dicom.series import DicomVolume

Vector = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FrameGeometry:
    """Where a frame says it lies.

    Attributes:
        position: (3,) ImagePositionPatient; LPS, mm.
        along: (2, 3) step to the next column and to the next row; LPS, mm.
        size: Columns and rows.
        sources: SOPInstanceUID and frame, from 1, of the images it was derived from.
    """

    position: Vector
    along: Vector
    size: tuple[int, int]
    sources: tuple[tuple[str, int], ...]

    @property
    def corners(self) -> Vector:
        """(4, 2) column and row of the corner pixels."""
        columns, rows = (extent - 1 for extent in self.size)
        return np.array([(0, 0), (columns, 0), (0, rows), (columns, rows)], np.float64)


def frame_geometry(ds: Dataset, number: int) -> FrameGeometry:
    """Read where a frame lies.

    Args:
        ds: A DICOM SEG.
        number: Of the frame, from 0.

    Returns:
        Its place.

    Raises:
        KeyError: If the header does not say.
    """
    plane = macro(ds, number, "PlanePositionSequence").ImagePositionPatient
    cosines = macro(ds, number, "PlaneOrientationSequence").ImageOrientationPatient
    spacing = macro(ds, number, "PixelMeasuresSequence").PixelSpacing
    row, column = np.asarray(cosines, np.float64).reshape(2, 3)
    return FrameGeometry(
        np.asarray(plane, np.float64),
        np.stack([row * float(spacing[1]), column * float(spacing[0])]),
        (int(ds.Columns), int(ds.Rows)),
        tuple(sources_of(ds.PerFrameFunctionalGroupsSequence[number])),
    )


def macro(ds: Dataset, number: int, keyword: str) -> Dataset:
    """Return the item of a functional group, of the frame or shared by all.

    Args:
        ds: A DICOM SEG.
        number: Of the frame, from 0.
        keyword: Of the group's sequence.

    Returns:
        The item.

    Raises:
        KeyError: If there is none.
    """
    for groups in (
        *ds.get("PerFrameFunctionalGroupsSequence", ())[number : number + 1],
        *ds.get("SharedFunctionalGroupsSequence", ()),
    ):
        if groups.get(keyword):
            item: Dataset = groups[keyword].value[0]
            return item
    msg = f"{keyword} of frame {number + 1}"
    raise KeyError(msg)


@dataclass(frozen=True)
class FramePlace:
    """How a frame lies on a slice.

    Attributes:
        number: Of the slice.
        start: Column and row of the frame's first pixel.
        steps: (2, 2) whole columns and rows of the slice, for a column and for a row of the frame.
    """

    number: int
    start: tuple[int, int]
    steps: npt.NDArray[np.int64]

    def cut(self, mask: Mask, shape: tuple[int, ...]) -> tuple[Mask, tuple[slice, slice]]:
        """Turn a frame to the axes of its slice and cut off what lies outside.

        Args:
            mask: (rows, columns) of the frame.
            shape: Rows and columns of the slice.

        Returns:
            The part of the frame within the slice, and where it lies there.
        """
        turned = mask.T if self.steps[0, 0] == 0 else mask
        forward = self.steps.sum(axis=0)  # along columns and rows of the slice
        turned = turned[:: int(forward[1]), :: int(forward[0])]
        size = turned.shape[::-1]
        low = [
            first if step > 0 else first - extent + 1
            for first, step, extent in zip(self.start, forward, size, strict=True)
        ]
        parts, target = [], []
        for first, extent, limit in zip(low, size, shape[::-1], strict=True):
            begin = max(first, 0)
            end = max(begin, min(first + extent, limit))
            parts.append(slice(begin - first, end - first))
            target.append(slice(begin, end))
        return turned[parts[1], parts[0]], (target[1], target[0])


class SliceGrid:
    """The slices of a series as they were acquired.

    Args:
        volume: One 3D volume.

    Raises:
        DicomError: If the volume is no single 3D volume.
    """

    def __init__(self, volume: DicomVolume) -> None:
        frames = volume.stacks[0]
        first = frames[0]
        if volume.grid is None or len(volume.stacks) > 1 or first.orientation is None:
            msg = f"series must be one 3D volume, got {volume.volume_id}."
            raise DicomError(msg, code="not-a-volume")
        row, column = np.asarray(first.orientation, np.float64).reshape(2, 3)
        spacing = first.spacing or (1.0, 1.0)
        self.shape = (len(frames), first.rows, first.columns)
        self._positions = np.array([frame.position for frame in frames], np.float64)
        self._along = np.stack([row * spacing[1], column * spacing[0]])
        self._normal = np.cross(row, column)
        self._tolerance_mm = SAME_GRID_TOLERANCE_VOXELS * min(volume.spacing_mm)
        self._number_of = {
            (frame.instance.sop_instance_uid, frame.index + 1): k for k, frame in enumerate(frames)
        }

    def place(self, frame: FrameGeometry, where: str) -> FramePlace:
        """Find the slice that a frame lies on.

        Args:
            frame: The frame.
            where: File and frame, for messages.

        Returns:
            Where it lies.

        Raises:
            DicomError: If it does not lie on a slice, pixel on pixel, within a thousandth of a
                voxel (`off-grid`), or on another slice than the one that it says it was derived
                from (`contradictory-segmentation`).
        """
        depths = (frame.position - self._positions) @ self._normal
        number = int(np.abs(depths).argmin())
        to_pixels = np.linalg.pinv(self._along)
        start = np.rint((frame.position - self._positions[number]) @ to_pixels).astype(np.int64)
        steps = np.rint(frame.along @ to_pixels).astype(np.int64)
        stated = frame.position + frame.corners @ frame.along
        fitted = self._positions[number] + (start + frame.corners @ steps) @ self._along
        gap_mm = float(np.linalg.norm(stated - fitted, axis=1).max())
        straight = bool((np.abs(steps).sum(axis=0) == 1).all() and abs(_determinant(steps)) == 1)
        if not straight or gap_mm > self._tolerance_mm:
            voxels = gap_mm / self._tolerance_mm * SAME_GRID_TOLERANCE_VOXELS
            off = f"{voxels:.3g} voxels off" if straight else "other pixels"
            msg = (
                f"segmentation must lie on the slices of its series, got {where} {off}"
                f" (slice {number + 1}). Resample the segmentation to its series."
            )
            raise DicomError(msg, code="off-grid")
        known = {self._number_of[key] for key in frame.sources if key in self._number_of}
        if len(frame.sources) == 1 and known and known != {number}:
            msg = (
                f"frames must lie on the slice that they were derived from, got {where} on slice"
                f" {number + 1}, derived from slice {known.pop() + 1}. Correct the segmentation."
            )
            raise DicomError(msg, code="contradictory-segmentation")
        return FramePlace(number, (int(start[0]), int(start[1])), steps)


def _determinant(steps: npt.NDArray[Any]) -> int:
    return int(steps[0, 0] * steps[1, 1] - steps[0, 1] * steps[1, 0])
