"""Which frames belong to one volume: split by tags that never vary within one."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence

import numpy as np

from medseg.io.dicom.header import Frame

COSINE_TOLERANCE = 1e-3
"""Largest difference of direction cosines within a volume: 0.06 degrees, above header rounding."""
SPACING_TOLERANCE = 1e-3
"""Largest relative difference of PixelSpacing within a volume."""
B_VALUE_TOLERANCE = 0.03
"""Relative difference of b-values that scanners write for one nominal value."""


def split_frames(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Split the frames of a series into groups that may be volumes, in a stable order.

    Args:
        frames: Frames of one series, in any order.

    Returns:
        Groups by rising SeriesNumber, then kind and smallest instance number.
    """
    b_values = _b_value_names(frames)
    groups = _by(frames, lambda frame: _exact_key(frame, b_values))
    split = [part for group in groups for part in _by_plane(group)]
    return sorted(split, key=_order)


def _by(frames: Iterable[Frame], key: Callable[[Frame], Hashable]) -> list[list[Frame]]:
    groups: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    return list(groups.values())


def _exact_key(frame: Frame, b_values: dict[float, int]) -> Hashable:
    instance = frame.instance
    b_value = None if frame.b_value is None else b_values[frame.b_value]
    return (
        instance.series_number,
        instance.modality,
        instance.frame_of_reference_uid,
        frame.kind,
        frame.rows,
        frame.columns,
        instance.pixels.samples,
        instance.pixels.kind,
        frame.component,
        frame.echo,
        b_value,
        frame.position is None or frame.orientation is None,
    )


def _b_value_names(frames: Iterable[Frame]) -> dict[float, int]:
    """Give b-values that differ by rounding the same name."""
    names: dict[float, int] = {}
    name, last = 0, None
    for value in sorted({frame.b_value for frame in frames if frame.b_value is not None}):
        if last is not None and value - last > B_VALUE_TOLERANCE * value:
            name += 1
        names[value] = name
        last = value
    return names


def _by_plane(frames: list[Frame]) -> list[list[Frame]]:
    """Split by orientation and pixel spacing, each within its tolerance of the group's first."""
    planes: list[tuple[np.ndarray[tuple[int], np.dtype[np.float64]], list[Frame]]] = []
    for frame in frames:
        spacing = frame.spacing or (1.0, 1.0)
        scale = np.log(np.asarray(spacing)) / SPACING_TOLERANCE
        cosines = np.asarray(frame.orientation or (0.0,) * 6) / COSINE_TOLERANCE
        key = np.concatenate([cosines, scale])
        for other, members in planes:
            if np.abs(other - key).max() <= 1:
                members.append(frame)
                break
        else:
            planes.append((key, [frame]))
    return [members for _, members in planes]


_KIND_ORDER = {"original": 0, "derived": 1, "secondary": 2, "mosaic": 3, "localizer": 4}


def _order(group: list[Frame]) -> tuple[int, int, float, str]:
    numbers = [
        float("inf") if f.instance.instance_number is None else f.instance.instance_number
        for f in group
    ]
    first = group[0]
    return (
        first.instance.series_number,
        _KIND_ORDER[first.kind],
        min(numbers),
        min(frame.instance.name for frame in group),
    )
