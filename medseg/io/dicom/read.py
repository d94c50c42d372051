"""Pixels of a volume, decoded into one preallocated array."""

import os
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.errors import DicomError, Problem, UsageError
from medseg.io.dicom.adaptive import map_files
from medseg.io.dicom.decode import decode_frame, is_direct, read_direct, stored_dtype
from medseg.io.dicom.flat import read_flat
from medseg.io.dicom.header import Frame, Instance
from medseg.io.dicom.problems import problem
from medseg.io.dicom.resample import regularise
from medseg.io.dicom.series import DicomVolume
from medseg.io.dicom.values import (
    RangeError,
    crop,
    frame_values,
    output_dtype,
    rescale_in_place,
    rescale_into,
)
from medseg.io.hounsfield import AIR_HU
from medseg.volume import Source, Volume

Array = npt.NDArray[Any]
Targets = list[tuple[Frame, Array]]
MAX_THREADS = 8


def read_volume(
    volume: DicomVolume,
    *,
    frame: int | None = None,
    regrid: bool = False,
    padding_to_air: bool = False,
) -> Volume:
    """Read the pixels of a volume found by `find_series`.

    Values are rescaled (HU for CT). Channels are time points, or colours of a 2D picture. Sheared
    stacks (gantry tilt) are resampled to the rectangular grid that the scan announced.

    Args:
        volume: A usable volume.
        frame: Time point to read, from 0; all when None.
        regrid: Resample a volume with missing slices or irregular spacing to an even grid.
        padding_to_air: Set CT values under -1024 HU, and pixel padding, to -1024.

    Returns:
        (C, I, J, K) with I along columns and J along rows, or (C, rows, columns) in 2D.

    Raises:
        DicomError: The code of the volume's first error, or `truncated`, `unreadable` when the
            pixels turn out so.
        UsageError: If `frame` is not one of the volume's.
    """
    if frame is not None and not 0 <= frame < volume.frames:
        msg = (
            f"frame must be 0 to {volume.frames - 1}, got {frame}."
            f" {volume.volume_id} has {volume.frames} time points."
        )
        raise UsageError(msg, code="no-such-frame")
    if not (volume.usable or (regrid and volume.usable_regridded)):
        first = next(found for found in volume.problems if found.is_error)
        msg = f"volume must be usable, got {volume.volume_id}: {first.message}"
        raise DicomError(msg, code=first.code)
    stacks = volume.stacks if frame is None else volume.stacks[frame : frame + 1]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's on odd values
            if volume.is_2d:
                array, affine = read_flat([stack[0] for stack in stacks])
                problems = volume.problems
            else:
                array, affine, problems = _read_3d(volume, stacks, padding_to_air=padding_to_air)
    except OSError as error:
        msg = f"Files of {volume.volume_id} must stay readable, got: {error.strerror}."
        raise DicomError(msg, code="unreadable") from error
    return Volume(array, affine, _source(volume, stacks, problems))


def _read_3d(
    volume: DicomVolume, stacks: tuple[tuple[Frame, ...], ...], *, padding_to_air: bool
) -> tuple[Array, npt.NDArray[np.float64], tuple[Problem, ...]]:
    grid = volume.grid
    if grid is None:
        msg = f"volume must have a grid, got none for {volume.volume_id}."
        raise DicomError(msg, code="no-geometry")
    planes = read_planes(stacks)
    is_ct = volume.modality == "CT"
    if padding_to_air and is_ct:
        _pad_with_air(planes, stacks)
    problems = volume.problems
    if grid.sheared or grid.uneven:
        planes = regularise(planes, grid, fill=AIR_HU if is_ct else 0)
    if grid.uneven:
        text = "Slices were resampled along the stack to an even grid, as asked for."
        lowered = [
            Problem(found.code, found.message, "warning") if found.is_error else found
            for found in problems
        ]
        problems = (*lowered, problem("regridded", text))
    return planes.transpose(0, 3, 2, 1), grid.affine, problems


def read_planes(stacks: tuple[tuple[Frame, ...], ...]) -> Array:
    """Decode slices into one array, in parallel.

    Args:
        stacks: Slices by time point and position.

    Returns:
        (C, K, rows, columns) rescaled values.
    """
    frames = [frame for stack in stacks for frame in stack]
    first = frames[0]
    shape = (len(stacks), len(stacks[0]), first.rows, first.columns)
    dtype = output_dtype(frames)
    try:
        return _fill(np.empty(shape, dtype), stacks)
    except RangeError:
        return _fill(np.empty(shape, np.float32), stacks)


def _fill(out: Array, stacks: tuple[tuple[Frame, ...], ...]) -> Array:
    jobs: dict[tuple[Instance, int], Targets] = defaultdict(list)
    for time, stack in enumerate(stacks):
        for place, frame in enumerate(stack):
            jobs[frame.instance, frame.index].append((frame, out[time, place]))
    targets = list(jobs.values())
    direct = [job for job in targets if _is_direct(job)]
    decoded = [job for job in targets if not _is_direct(job)]
    for _ in map_files(_read_direct, direct):
        pass
    with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(_decode, job) for job in decoded]
        try:
            for future in futures:
                future.result()
        finally:
            for future in futures:
                future.cancel()
    return out


def _is_direct(targets: Targets) -> bool:
    """Whether the bytes of the file are those of the output, up to whole-numbered shifts."""
    frame, out = targets[0]
    pixels = frame.instance.pixels
    return (
        len(targets) == 1
        and frame.tile is None
        and pixels.kind == "integer"
        and not pixels.has_modality_lut
        and frame.rescale[0] == 1
        and out.dtype.kind in "iu"
        and stored_dtype(pixels).itemsize == out.dtype.itemsize
        and is_direct(frame.instance)
    )


def _read_direct(targets: Targets) -> None:
    """Read a slice straight into its place."""
    frame, out = targets[0]
    read_direct(frame.instance, frame.index, out.view(stored_dtype(frame.instance.pixels)))
    rescale_in_place(out, frame)


def _decode(targets: Targets) -> None:
    """Decode one stored frame into the slices that are cut out of it."""
    frame, _ = targets[0]
    pixels = frame.instance.pixels
    simple = not pixels.has_modality_lut and pixels.kind == "integer"
    picture = decode_frame(frame.instance, frame.index) if simple else None
    for target, destination in targets:
        values = frame_values(target) if picture is None else crop(picture, target)
        rescale_into(destination, values, target)


def _pad_with_air(planes: Array, stacks: tuple[tuple[Frame, ...], ...]) -> None:
    """Set padding and everything under -1024 HU to -1024, slice by slice and in place."""
    for time, stack in enumerate(stacks):
        for place, frame in enumerate(stack):
            plane = planes[time, place]
            if frame.padding is not None:
                low, high = frame.padding
                plane[(plane >= low) & (plane <= high)] = AIR_HU
            np.maximum(plane, plane.dtype.type(AIR_HU), out=plane)


def _source(
    volume: DicomVolume, stacks: tuple[tuple[Frame, ...], ...], problems: tuple[Problem, ...]
) -> Source:
    frames = stacks[0]
    paths = [frame.instance.path for frame in frames]
    return Source(
        format="dicom",
        path=Path(os.path.commonpath([path.parent for path in paths])),
        modality=volume.modality,
        study_instance_uid=volume.study_instance_uid,
        series_instance_uid=volume.series_instance_uid,
        volume_id=volume.volume_id,
        instances=tuple(paths),
        has_spacing=frames[0].spacing is not None,
        problems=problems,
        details=_details(volume, frames),
    )


def _details(volume: DicomVolume, frames: tuple[Frame, ...]) -> dict[str, Any]:
    """What a writer of DICOM objects needs: the slices as they were acquired."""
    grid = volume.grid
    return {
        "slices": tuple(
            {
                "path": frame.instance.path,
                "sop_class_uid": frame.instance.sop_class_uid,
                "sop_instance_uid": frame.instance.sop_instance_uid,
                "frame": frame.index,
                "tile": frame.tile,
                "position": frame.position,
                "orientation": frame.orientation,
                "spacing": frame.spacing,
                "rows": frame.rows,
                "columns": frame.columns,
            }
            for frame in frames
        ),
        "resampled": grid is not None and (grid.sheared or grid.uneven),
        "offsets": None if grid is None else grid.offsets,
        "depths": None if grid is None else grid.depths,
    }
