"""Order of slices and time points in a group, with everything that repeats accounted for."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from medseg.errors import Problem
from medseg.io.dicom.grid import normal_of, positions_of
from medseg.io.dicom.header import TIME_KEYS, Frame
from medseg.io.dicom.problems import problem

SAME_POSITION_PIXELS = 0.02
"""Slices nearer than this fraction of the pixel spacing lie at the same position."""
_VOLUME_TAGS = 6
"""How many leading entries of `Frame.variant` are tried before the rest."""

SamePixels = Callable[[Frame, Frame], bool]


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames of one volume.

    Attributes:
        frames: One tuple a time point, each by rising position along the normal.
        problems: What was found while ordering.
    """

    frames: tuple[tuple[Frame, ...], ...]
    problems: list[Problem] = field(default_factory=list)


def arrange(frames: Sequence[Frame], same_pixels: SamePixels) -> list[Stack]:
    """Sort the frames of a group into one volume, or several when tags tell repeats apart.

    Args:
        frames: Frames of one group; all have a position and an orientation.
        same_pixels: Says whether two frames hold equal pixels.

    Returns:
        Volumes, each with its time points.
    """
    kept, problems = _without_copies(frames, same_pixels)
    places = _by_position(kept)
    if _evenness(places) == 1:
        return [Stack((tuple(place[0] for place in places),), problems)]
    for parts in _variants(kept):
        return [
            Stack(stack.frames, [*problems, *stack.problems])
            for part in parts
            for stack in arrange(part, same_pixels)
        ]
    return [_in_time(places, problems, same_pixels)]


def _without_copies(
    frames: Sequence[Frame], same_pixels: SamePixels
) -> tuple[list[Frame], list[Problem]]:
    """Drop second copies of an instance (same UID), when equal, or damaged beside a whole one."""
    seen: dict[Hashable, Frame] = {}
    kept: list[Frame] = []
    copies: list[str] = []
    clashes: list[str] = []
    for frame in sorted(frames, key=lambda f: (bool(f.instance.fault), *_file_order(f))):
        uid = frame.instance.sop_instance_uid
        key = (uid or frame.instance.path, frame.index, frame.tile)
        first = seen.setdefault(key, frame)
        if first is frame:
            kept.append(frame)
        elif first.position == frame.position and (
            frame.instance.fault or same_pixels(first, frame)
        ):
            copies.append(frame.label)
        elif first.position == frame.position:
            clashes.append(frame.label)
            kept.append(frame)
        else:
            kept.append(frame)
    problems = []
    if copies:
        problems.append(_copies(copies))
    if clashes:
        text = f"{len(clashes)} instances occur twice with different pixels, first {clashes[0]}."
        problems.append(problem("duplicate-position", text))
    return kept, problems


def _copies(labels: list[str]) -> Problem:
    text = f"{len(labels)} second copies of instances were left out, the first is {labels[0]}."
    if len(labels) == 1:
        text = f"A second copy of an instance was left out: {labels[0]}."
    return problem("duplicate-instance", text)


def _file_order(frame: Frame) -> tuple[float, str, int]:
    number = frame.instance.instance_number
    return (float("inf") if number is None else number, frame.instance.name, frame.index)


def _by_position(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Collect the frames at each position, by rising position along the normal."""
    depths = positions_of(frames) @ normal_of(frames[0])
    tolerance = SAME_POSITION_PIXELS * min(frames[0].spacing or (1.0, 1.0))
    places: list[list[Frame]] = []
    start = -np.inf
    for index in np.argsort(depths, kind="stable"):
        if depths[index] - start > tolerance:
            places.append([])
            start = depths[index]
        places[-1].append(frames[index])
    return places


def _evenness(places: Sequence[Sequence[Frame]]) -> int:
    """Return how often every position occurs, 0 when not all occur equally often."""
    counts = {len(place) for place in places}
    return counts.pop() if len(counts) == 1 else 0


def _variants(frames: Sequence[Frame]) -> list[list[list[Frame]]]:
    """Split by the first tag (kernel, thickness, ImageType, ...) that explains repeats.

    Returns at most one split: into groups in which every position occurs equally often, and less
    often than in all of them together.
    """
    length = max(len(frame.variant) for frame in frames)
    most = max(len(place) for place in _by_position(frames))
    for place in range(min(length, _VOLUME_TAGS)):
        groups: dict[str, list[Frame]] = defaultdict(list)
        for frame in frames:
            groups[frame.variant[place] if place < len(frame.variant) else ""].append(frame)
        parts = list(groups.values())
        evenness = [_evenness(_by_position(part)) for part in parts]
        if len(parts) > 1 and all(0 < often < most for often in evenness):
            return [parts]
    return []


def _in_time(places: list[list[Frame]], problems: list[Problem], same_pixels: SamePixels) -> Stack:
    """Order repeats at each position in time, or find them to be duplicates."""
    often = _evenness(places)
    ordered = _time_order(places, often) if often else None
    if ordered is None:
        incomplete = _incomplete(places)
        if incomplete:
            return Stack((tuple(place[0] for place in places),), [*problems, incomplete])
        return _duplicates(places, problems, same_pixels)
    stated = places[0][0].instance.temporal_positions
    if often < stated:
        text = f"{often} time points are present, the header states {stated}."
        problems = [*problems, problem("fewer-frames", text)]
    return Stack(tuple(tuple(place[t] for place in ordered) for t in range(often)), problems)


def _time_order(places: list[list[Frame]], often: int) -> list[list[Frame]] | None:
    """Return the frames of each position by rising time, or None when no tag tells them apart."""
    for key in _time_keys(places):
        values = [[key(frame) for frame in place] for place in places]
        if all(None not in place and len(set(place)) == often for place in values) and _agree(
            values
        ):
            return [sorted(place, key=lambda f: key(f) or 0.0) for place in places]
    return _block_order(places, often)


def _agree(values: list[list[float | None]]) -> bool:
    """Whether ranks mean the same at every position.

    They do when all positions have the same values, when each time point ends before the next
    begins, or when each position was finished before the next was begun.
    """
    table = np.sort(np.asarray(values, np.float64), axis=1)  # positions x time points
    if (table == table[0]).all() or (table.max(0)[:-1] <= table.min(0)[1:]).all():
        return True
    by_start = table[np.argsort(table[:, 0])]
    return bool((by_start[:-1, -1] <= by_start[1:, 0]).all())


def _time_keys(places: list[list[Frame]]) -> list[Callable[[Frame], float | None]]:
    """Return the keys to try, most explicit first."""
    frames = sorted((frame for place in places for frame in place), key=_file_order)

    def of_time(number: int) -> Callable[[Frame], float | None]:
        return lambda frame: frame.times[number]

    def by_appearance(value: Callable[[Frame], Hashable]) -> Callable[[Frame], float | None]:
        order: dict[Hashable, float] = {}
        for frame in frames:
            order.setdefault(value(frame), len(order))
        return lambda frame: order[value(frame)]

    def of_variant(number: int) -> Callable[[Frame], float | None]:
        return by_appearance(lambda f: f.variant[number] if number < len(f.variant) else "")

    length = max(len(frame.variant) for frame in frames)
    return [
        of_time(0),
        by_appearance(lambda frame: frame.gradient),
        *(of_time(number) for number in range(1, len(TIME_KEYS))),
        *(of_variant(number) for number in range(_VOLUME_TAGS, length)),
    ]


def _block_order(places: list[list[Frame]], often: int) -> list[list[Frame]] | None:
    """Order by instance number when the header states several time points and numbers fit.

    They fit when, counted through, they run through the whole stack once a time point, or through
    all time points once a slice.
    """
    frames = [frame for place in places for frame in place]
    if frames[0].instance.temporal_positions < 2:
        return None
    numbers = [frame.instance.instance_number for frame in frames]
    if None in numbers or len(set(numbers)) != len(numbers):
        return None
    rank = {id(frame): at for at, frame in enumerate(sorted(frames, key=_file_order))}
    ordered = [sorted(place, key=_file_order) for place in places]
    ranks = np.asarray([[rank[id(frame)] for frame in place] for place in ordered])
    slices = len(places)
    stack_by_stack = (ranks // slices == np.arange(often)).all()
    slice_by_slice = (ranks % often == np.arange(often)).all()
    return ordered if stack_by_stack or slice_by_slice else None


def _incomplete(places: list[list[Frame]]) -> Problem | None:
    """Say which time points lack slices, when temporal position or acquisition number tells."""
    for key, name in ((0, "temporal position"), (2, "acquisition")):
        points: Counter[float | None] = Counter()
        for place in places:
            points.update({frame.times[key] for frame in place})
        told = sum(points.values()) == sum(len(place) for place in places)
        if not told or None in points or len(points) < 2 or max(points.values()) < len(places):
            continue
        worst = min(points, key=lambda value: (points[value], value))
        text = (
            f"Time points are incomplete: {name} {worst:g} has {points[worst]} of"
            f" {len(places)} slices."
        )
        return problem("missing-frames", text)
    return None


def _duplicates(
    places: list[list[Frame]], problems: list[Problem], same_pixels: SamePixels
) -> Stack:
    """Keep one of equal slices; slices that differ at one position are an error."""
    dropped: list[str] = []
    clashes: list[tuple[str, str]] = []
    kept = []
    for place in places:
        first, *others = sorted(place, key=_file_order)
        kept.append(first)
        for other in others:
            if same_pixels(first, other):
                dropped.append(other.label)
            else:
                clashes.append((first.label, other.label))
    found = list(problems)
    if dropped:
        found.append(_copies(dropped))
    if clashes:
        text = (
            f"{len(clashes)} slices lie at the position of another one with different pixels, and"
            f" no tag tells them apart, first {clashes[0][0]} and {clashes[0][1]}."
        )
        found.append(problem("duplicate-position", text))
    return Stack((tuple(kept),), found)
