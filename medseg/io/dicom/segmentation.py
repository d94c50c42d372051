"""The voxels of a DICOM SEG on the grid of its series."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from medseg.errors import DicomError, Problem
from medseg.io.dicom.grid import Grid
from medseg.io.dicom.instance import PARSE_ERRORS
from medseg.io.dicom.resample import regularise
from medseg.io.dicom.segment_frames import FrameGeometry, SliceGrid, frame_geometry, macro
from medseg.io.dicom.segment_header import SegmentationHeader, header_of, read_dataset
from medseg.io.dicom.series import DicomVolume
from medseg.volume import Source, Volume, mask_dtype

Structures = Mapping[str, tuple[int, ...]]
"""Values of a label that belong to each structure, by its name."""
Combination = frozenset[str]
"""Names of the structures that cover a voxel."""
Mask = npt.NDArray[np.bool_]

_POSITION_DECIMALS = 2


def read_segmentation(path: Path, volume: DicomVolume, structures: Structures) -> Volume:
    """Read a DICOM SEG as a label on the grid of the series that it was made on.

    A voxel gets the value that belongs to exactly those structures whose segments cover it; where
    there is no frame it is background. Fractions count from one half, which is reported.

    Args:
        path: The SEG.
        volume: The series, as `find_series` found it.
        structures: Values by the name of a structure; values that structures share are for voxels
            that belong to both.

    Returns:
        (1, I, J, K) uint8 or uint16 with the affine of the volume.

    Raises:
        DicomError: If a segment has a name that is not in `structures` (`unknown-label`), segments
            overlap that share no value (`overlapping-segments`), a frame does not lie on a slice
            (`off-grid`, `other-frame-of-reference`) or lies on another than it says
            (`contradictory-segmentation`), or the series is not one 3D volume (`not-a-volume`).
    """
    ds = read_dataset(path)
    header = header_of(ds, path)
    _require_same_space(header, volume)
    slices = SliceGrid(volume)
    unknown = sorted(set(header.names) - set(structures))
    if unknown:
        msg = (
            f"segments must be among {', '.join(structures)}, got {', '.join(unknown)} in"
            f" {path.name}. Declare them, or name segments alike in every file."
        )
        raise DicomError(msg, code="unknown-label")
    problems: list[Problem] = []
    overlay = _Overlay(slices.shape)
    for frame, name, mask, where in _masks(ds, header, problems):
        place = slices.place(frame, where)
        plane = overlay.ids[place.number]
        inside, target = place.cut(mask, plane.shape)
        lost = int(np.count_nonzero(mask)) - int(np.count_nonzero(inside))
        if lost:
            msg = f"segments must lie within their series, got {lost} voxels outside in {where}."
            raise DicomError(msg, code="off-grid")
        overlay.add(name, inside, plane[target])
    planes = overlay.values(structures, path.name)
    return _on_grid(planes, volume, path, tuple(problems))


def read_combinations(path: Path) -> frozenset[Combination]:
    """Find out which structures of a DICOM SEG share voxels.

    Args:
        path: The SEG.

    Returns:
        Each combination of structures that occurs in a voxel, that of none left out.

    Raises:
        DicomError: If the file is no SEG, or damaged.
    """
    ds = read_dataset(path)
    header = header_of(ds, path)
    planes: dict[tuple[float, ...], _Overlay] = {}
    for frame, name, mask, _ in _masks(ds, header, []):
        place = tuple(np.round(frame.position, _POSITION_DECIMALS).tolist())
        overlay = planes.setdefault(place, _Overlay(mask.shape))
        overlay.add(name, mask, overlay.ids)
    found = frozenset(names for overlay in planes.values() for names in overlay.present())
    return found - {frozenset()}


class _Overlay:
    """Which structures cover each voxel: the number of a combination a voxel."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.ids = np.zeros(shape, np.uint16)
        self._known: list[Combination] = [frozenset()]

    def add(self, name: str, mask: Mask, part: npt.NDArray[Any]) -> None:
        """Add a structure to the voxels of a part of `ids` where the mask is true."""
        covered = part[mask]
        table = np.zeros(len(self._known), np.uint16)
        for number in np.unique(covered):
            combination = self._known[number] | {name}
            if combination not in self._known:
                self._known.append(combination)
            table[number] = self._known.index(combination)
        part[mask] = table[covered]

    def present(self) -> frozenset[Combination]:
        """Return the combinations that occur."""
        return frozenset(self._known[number] for number in np.unique(self.ids))

    def values(self, structures: Structures, file: str) -> npt.NDArray[Any]:
        """Return the value of each voxel; refuse combinations that have none."""
        every = dict.fromkeys(value for values in structures.values() for value in values)
        value_of: dict[Combination, int] = {frozenset(): 0}
        for value in every:
            names = frozenset(name for name, values in structures.items() if value in values)
            value_of.setdefault(names, value)
        counts = np.bincount(self.ids.ravel(), minlength=len(self._known)).tolist()
        wrong = [
            f"{' and '.join(sorted(names))} ({count} voxels)"
            for names, count in zip(self._known, counts, strict=True)
            if count and names not in value_of
        ]
        if wrong:
            msg = (
                f"segments must have voxels of their own, got {'; '.join(wrong[:5])} in {file}."
                " Correct them, or declare regions that share a value in a manifest."
            )
            raise DicomError(msg, code="overlapping-segments")
        table = np.array([value_of.get(names, 0) for names in self._known])
        return np.asarray(table.astype(mask_dtype(max(every, default=0)))[self.ids])


def _masks(
    ds: Dataset, header: SegmentationHeader, problems: list[Problem]
) -> Iterator[tuple[FrameGeometry, str, Mask, str]]:
    """Yield where structures are, frame by frame: place, name, mask, and what to call the frame."""
    partial = 0
    names = dict(header.segments)
    largest = int(ds.get("MaximumFractionalValue") or 255)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's on odd values
            for number, stored in enumerate(_stored_frames(ds)):
                where = f"{header.path.name} frame {number + 1}"
                frame = frame_geometry(ds, number)
                if header.kind == "LABELMAP":
                    for value in np.unique(stored[stored != 0]).tolist():
                        yield frame, names[value], stored == value, where
                    continue
                segment = macro(ds, number, "SegmentIdentificationSequence").ReferencedSegmentNumber
                mask = stored != 0
                if header.kind == "FRACTIONAL":
                    partial += int(np.count_nonzero(mask & (stored != largest)))
                    mask = stored.astype(np.int32) * 2 >= largest
                yield frame, names[int(segment)], mask, where
    except (*PARSE_ERRORS, RuntimeError) as error:
        reason = f"{type(error).__name__}: {error}"
        msg = f"frames must be as the DICOM standard has them, got {reason} in {header.path.name}."
        raise DicomError(msg, code="unreadable") from error
    if partial:
        text = f"{header.path.name} holds fractions in {partial} voxels: one half and more counts."
        problems.append(Problem("fractional-segmentation", text, "warning"))


def _stored_frames(ds: Dataset) -> Iterator[npt.NDArray[Any]]:
    """Yield the (rows, columns) stored values of each frame.

    pydicom 3.0.2 loses the last bits of one-bit frames whose size is no multiple of eight when it
    decodes them one by one; those are unpacked here.
    """
    count = int(ds.get("NumberOfFrames") or 1)
    if int(ds.BitsAllocated) != 1 or ds.file_meta.TransferSyntaxUID.is_encapsulated:
        yield from iter_pixels(ds)
        return
    rows, columns = int(ds.Rows), int(ds.Columns)
    size = rows * columns
    packed = np.frombuffer(ds.PixelData, np.uint8)
    if packed.size * 8 < size * count:
        msg = f"{packed.size} bytes are too few for {count} frames of {rows} x {columns}"
        raise ValueError(msg)
    for number in range(count):
        first, skip = divmod(number * size, 8)
        part = packed[first : first + (skip + size + 7) // 8]
        bits = np.unpackbits(part, bitorder="little")[skip : skip + size]
        yield bits.reshape(rows, columns)


def _require_same_space(header: SegmentationHeader, volume: DicomVolume) -> None:
    frame_of_reference = volume.stacks[0][0].instance.frame_of_reference_uid
    stated = header.frame_of_reference_uid
    if stated and frame_of_reference and stated != frame_of_reference:
        msg = (
            f"segmentation must have the frame of reference of its series, got {header.path.name}"
            f" with another than {volume.volume_id}."
        )
        raise DicomError(msg, code="other-frame-of-reference")


def _on_grid(
    planes: npt.NDArray[Any], volume: DicomVolume, path: Path, problems: tuple[Problem, ...]
) -> Volume:
    grid = volume.grid
    assert grid is not None  # SliceGrid has refused what has none
    if grid.sheared or grid.uneven:
        planes = _regular(planes, grid)
    source = Source(
        format="dicom",
        path=path,
        modality="SEG",
        study_instance_uid=volume.study_instance_uid,
        series_instance_uid=volume.series_instance_uid,
        volume_id=volume.volume_id,
        problems=problems,
    )
    return Volume(planes.transpose(2, 1, 0)[None], grid.affine, source)


def _regular(planes: npt.NDArray[Any], grid: Grid) -> npt.NDArray[Any]:
    """Bring labels to an even grid as their image was: each voxel takes the largest share."""
    best = None
    for value in np.unique(planes):
        fill = float(value == 0)
        share = regularise((planes == value).astype(np.float32)[None], grid, fill=fill)[0]
        if best is None:
            best, result = share, np.full(share.shape, value, planes.dtype)
        else:
            result[share > best] = value
            best = np.maximum(best, share)
    return result
