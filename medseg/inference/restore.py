"""From class maps on the network's grid to an integer mask on the source grid.

The two grids differ by what preprocessing did: axes reordered and flipped, spacing changed, a
margin cropped or padded. All of that keeps the axes parallel, so the class maps are interpolated
one axis at a time, a few planes of the source at a time, and a running maximum over the classes
gives the mask: class maps never exist on the source grid, and of the network's grid only the
planes at hand.

Between voxels at all of which a class is below the background, linear interpolation leaves it
below. So each class is interpolated only in the box of a few planes in which it can come out.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from medseg.errors import GeometryError
from medseg.geometry import Affine, moved, spacing_mm
from medseg.inference.board import PLANES, Board
from medseg.inference.maps import ClassMaps, WholeMaps
from medseg.inference.view import View
from medseg.transforms.nnunet import separate_axis
from medseg.volume import mask_dtype

PARALLEL_TOLERANCE_VOXELS = 1e-2
"""How far, over the whole grid, an axis may stray from the one it is matched with."""

EDGE_VOXELS = 1e-5
"""What rounding of affines may do to a position."""

BLOCK_VOXELS = 1 << 19
"""Source voxels that are interpolated at once; one class of them then fits a processor's cache."""


SINK_CHANNELS = 4
"""Channels of such a block whose probabilities are held at once."""

_SLOWEST = {2: 0, 3: 2}
"""By dimensions, the axis that files hold plane after plane."""

EVERYWHERE_SHARE = 0.5
"""Of all channels in all voxels: where more is decided, it is not worth looking what need not."""


@dataclass(frozen=True)
class AxisMap:
    """Where the source voxels of one axis lie on one axis of the network's grid.

    Attributes:
        axis: Network axis.
        positions: (N,) position of each source voxel along it; network voxels.
    """

    axis: int
    positions: npt.NDArray[np.float64]


def axis_maps(
    source_shape: tuple[int, ...],
    source_affine: Affine,
    network_shape: tuple[int, ...],
    network_affine: Affine,
) -> list[AxisMap]:
    """Match each source axis with the parallel axis of the network's grid.

    Args:
        source_shape: (3,) voxels along each source axis.
        source_affine: (4, 4) of the source grid; mm.
        network_shape: (3,) voxels along each network axis.
        network_affine: (4, 4) of the network's grid, same frame; mm.

    Returns:
        One map a source axis, in order.

    Raises:
        GeometryError: If the axes of the two grids are not parallel.
    """
    matrix = np.linalg.inv(network_affine) @ source_affine
    linear, offset = matrix[:-1, :-1], matrix[:-1, -1]
    axes = np.abs(linear).argmax(axis=0)
    stray = linear.copy()
    stray[axes, range(len(axes))] = 0
    drift = np.abs(stray) @ np.asarray(source_shape, np.float64)
    if len(set(axes.tolist())) != len(axes) or drift.max() > PARALLEL_TOLERANCE_VOXELS:
        msg = (
            "preprocessing must keep the axes of the image parallel, got a rotation between source"
            f" and network grid ({drift.max():.3g} voxels over the grid of {network_shape})."
        )
        raise GeometryError(msg, code="rotated-grid")
    # half of the drift is shared by the two ends, so that neither is off by all of it
    centre = stray @ ((np.asarray(source_shape, np.float64) - 1) / 2)
    return [
        AxisMap(
            int(axis), linear[axis, i] * np.arange(source_shape[i]) + offset[axis] + centre[axis]
        )
        for i, axis in enumerate(axes)
    ]


@dataclass(frozen=True)
class Restoring:
    """Rules by which class maps come to the source grid that differ from medseg's own.

    Source voxels whose centres lie outside the network's grid are background, however near.

    Attributes:
        coarse_order: Along a coarse axis: 1 interpolates as along the others, 0 takes the nearest
            slice.
        separate: Which axis is coarse: True for the coarsest of the network's grid, False for
            none, None for one that is over three times coarser than the finest there, or else on
            the source grid.
        half: Interpolated logits are rounded to float16; of equal ones the first class wins.

    Source:
        nnU-Net v2, which crops images before it resamples them.
    """

    coarse_order: int = 1
    separate: bool | None = None
    half: bool = False

    def applied(
        self, maps: Sequence[AxisMap], member: ClassMaps, source_affine: Affine
    ) -> list[AxisMap]:
        """Return where source voxels lie by these rules.

        Args:
            maps: One a source axis.
            member: The class maps.
            source_affine: (4, 4) of the source; RAS, mm.
        """
        own = spacing_mm(member.affine).tolist()
        source = spacing_mm(source_affine).tolist()
        coarse = None
        if self.coarse_order == 0:
            coarse = separate_axis([own[m.axis] for m in maps], source, separate=self.separate)
        return [
            replace(m, positions=_placed(m.positions, member.shape[m.axis], nearest=axis == coarse))
            for axis, m in enumerate(maps)
        ]


def _placed(
    positions: npt.NDArray[np.float64], extent: int, *, nearest: bool
) -> npt.NDArray[np.float64]:
    """Return positions a voxel further out where they are outside, and else on a voxel if asked."""
    below = positions < -0.5 - EDGE_VOXELS
    above = positions > extent - 0.5 + EDGE_VOXELS
    placed = positions
    if nearest:  # of two equally near ones the upper
        placed = np.floor(positions + 0.5 + EDGE_VOXELS).clip(0, extent - 1)
    return np.where(below, positions - 1, np.where(above, positions + 1, placed))


@dataclass(frozen=True)
class Meaning:
    """What the channels of class maps stand for in a mask.

    Attributes:
        values: The mask's value of each channel; of classes the first is background.
        regions: Channels overlap: each is painted, over those before it, where it passes the
            threshold. Else the largest channel wins.
        threshold: Of regions: 0 for logits, 0.5 for probabilities.
        logits: Maps are logits of one network, and no probabilities.
        restoring: Rules of other software; medseg's own when None.
    """

    values: tuple[int, ...]
    regions: bool = False
    threshold: float = 0.0
    logits: bool = True
    restoring: Restoring | None = None


class Sink(Protocol):
    """Takes the probabilities of all channels, box after box."""

    def put(self, where: Sequence[slice], shares: npt.NDArray[Any]) -> None:
        """Take those of a box.

        Args:
            where: Of the source.
            shares: (C, *box); 0 to 1. Boxes that are not put are background.
        """

    def part(self, axis: int, start: int) -> "Sink":
        """Return a sink for a part of the source.

        Args:
            axis: Source axis.
            start: First voxel along it.
        """


def mask_from_class_maps(
    class_maps: torch.Tensor,
    network_affine: Affine,
    source_shape: tuple[int, ...],
    source_affine: Affine,
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Interpolate class maps to the source grid and take the largest class a voxel.

    Linear interpolation; a source voxel up to 0.75 network voxels outside the network's grid takes
    the nearest value, further out it is background (class 0).

    Args:
        class_maps: (C, *network) logits or probabilities; float.
        network_affine: (4, 4) of the network's grid; RAS, mm.
        source_shape: (I, J, K) of the source.
        source_affine: (4, 4) of the source; RAS, mm.

    Returns:
        (I, J, K) class indices; uint8 up to 256 classes, else uint16.

    Raises:
        GeometryError: If the axes of the two grids are not parallel.
    """
    meaning = Meaning(tuple(range(len(class_maps))))
    return restore_mask(
        [WholeMaps(class_maps, network_affine)], source_shape, source_affine, meaning
    )


def restore_mask(
    members: Sequence[ClassMaps],
    source_shape: tuple[int, ...],
    source_affine: Affine,
    meaning: Meaning,
    *,
    strips: int = 1,
    sink: Sink | None = None,
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Bring class maps to the source grid, add those of several networks up, and decide.

    A network has no say where a voxel lies outside its own grid; outside the grids of all it is
    left background.

    Args:
        members: Class maps of one network or several, which may differ in their grids.
        source_shape: (I, J, K) or (rows, columns) of the source.
        source_affine: (4, 4) of the source; RAS, mm. (3, 3) of a 2D image.
        meaning: What the channels stand for.
        strips: The source is cut into so many strips across the walk, done one after the other:
            that much less of a row of windows is held at once, and windows on a cut are run twice.
        sink: Takes the probabilities that the mask is decided by; takes much longer.

    Returns:
        Values of the mask, of the shape of the source; uint8 up to 255, else uint16.

    Raises:
        GeometryError: If the axes of two grids are not parallel.
    """
    # what is put into a file lies there slice after slice
    walk = (
        _walk(members, source_shape, source_affine) if sink is None else _SLOWEST[len(source_shape)]
    )
    axis = _cut(members, source_shape, source_affine, walk) if strips > 1 else None
    if axis is not None:
        return _by_strips(members, source_shape, source_affine, meaning, axis, strips, sink)
    views = []
    for member in members:
        maps = axis_maps(source_shape, source_affine, member.shape, member.affine)
        if meaning.restoring is not None:
            maps = meaning.restoring.applied(maps, member, source_affine)
        axes, positions = [m.axis for m in maps], [m.positions for m in maps]
        half = meaning.logits and meaning.restoring is not None and meaning.restoring.half
        views.append(View(member, axes, positions, walk, half=half))
    reverse = views[0].falling
    for view in views:
        view.open(reverse=reverse)
    values = np.array([0, *meaning.values] if meaning.regions else meaning.values)
    table = values.astype(mask_dtype(int(values.max())))
    is_number = bool(np.array_equal(table, np.arange(len(table)))) and table.dtype == np.uint8
    board = Board(source_shape, table.dtype, int(table[0]), walk)
    at_once = BLOCK_VOXELS if sink is None else BLOCK_VOXELS * SINK_CHANNELS // len(values)
    for first, last, here in _blocks(views, source_shape, walk, at_once, reverse=reverse):
        where = [slice(0, n) for n in source_shape]
        where[walk] = slice(first, last + 1)
        for view in here:
            view.fetch(where[walk], meaning.threshold if meaning.regions else None)
        if sink is not None:
            sink.put(where, _shares(here, where, meaning))
        box = _decided(here, where, walk, meaning)
        if box is not None:
            where, labels = box
            numbers = labels.to(torch.uint8 if len(table) <= 256 else torch.int32).cpu().numpy()
            board.put(where, numbers if is_number else table[numbers])
    return board.finished()


def _cut(
    members: Sequence[ClassMaps], source_shape: tuple[int, ...], source_affine: Affine, walk: int
) -> int | None:
    """Return the source axis, not that of the walk, along which most windows lie."""
    maps = [axis_maps(source_shape, source_affine, m.shape, m.affine) for m in members]

    def windows(axis: int) -> int:
        return min(m.windows_along(own[axis].axis) for m, own in zip(members, maps, strict=True))

    axis = max((axis for axis in range(len(source_shape)) if axis != walk), key=windows)
    return axis if windows(axis) > 1 else None


def _by_strips(
    members: Sequence[ClassMaps],
    source_shape: tuple[int, ...],
    source_affine: Affine,
    meaning: Meaning,
    axis: int,
    strips: int,
    sink: Sink | None,
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    maps = [axis_maps(source_shape, source_affine, m.shape, m.affine)[axis] for m in members]
    extent = source_shape[axis]
    bounds = sorted({extent * number // strips for number in range(strips + 1)})
    result: Any = None
    for start, stop in pairwise(bounds):
        parts = []
        for member, own in zip(members, maps, strict=True):
            last = member.shape[own.axis] - 1
            positions = np.clip(own.positions[start:stop], 0, last)
            low, high = int(np.floor(positions.min())), int(np.ceil(positions.max()))
            parts.append(member.part(own.axis, low, high))
        shape = list(source_shape)
        shape[axis] = stop - start
        part = None if sink is None else sink.part(axis, start)
        mask = restore_mask(
            parts, tuple(shape), moved(source_affine, axis, start), meaning, sink=part
        )
        if result is None:
            result = np.empty(source_shape, mask.dtype, "F" if mask.ndim == 3 else "C")
        where = [slice(None)] * mask.ndim
        where[axis] = slice(start, stop)
        result[tuple(where)] = mask
    found: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] = result
    return found


def _walk(
    members: Sequence[ClassMaps], source_shape: tuple[int, ...], source_affine: Affine
) -> int:
    """Return the source axis along which the networks hold least."""
    maps = [axis_maps(source_shape, source_affine, m.shape, m.affine) for m in members]

    def cost(axis: int) -> float:
        pairs = zip(members, maps, strict=True)
        return sum(member.walk_cost(axes[axis].axis) for member, axes in pairs)

    return min(range(len(source_shape)), key=cost)


def _blocks(
    views: Sequence[View], shape: tuple[int, ...], walk: int, voxels: int, *, reverse: bool
) -> Iterator[tuple[int, int, list[View]]]:
    """Yield the first and the last plane of each block, and the networks that have a say."""
    size = max(1, voxels * shape[walk] // int(np.prod(shape)))
    planes = range(shape[walk])[:: -1 if reverse else 1]

    def alike(plane: int) -> tuple[int, list[bool]]:
        return plane // PLANES, [bool(view.inside[walk][plane]) for view in views]

    for (_, inside), group in groupby(planes, key=alike):
        here = [view for view, flag in zip(views, inside, strict=True) if flag]
        run = list(group)
        for start in range(0, len(run) if here else 0, size):
            ends = run[start], run[min(start + size, len(run)) - 1]
            yield min(ends), max(ends), here


def _decided(
    views: Sequence[View], where: list[slice], walk: int, meaning: Meaning
) -> tuple[list[slice], torch.Tensor] | None:
    """Return the box in which something is found, and the numbers of the channels there."""
    boxes = _boxes(views, where, walk)
    if not boxes:
        return None
    sizes = [math.prod(part.stop - part.start for part in box) for box in (where, *boxes.values())]
    if sum(sizes[1:]) > EVERYWHERE_SHARE * len(meaning.values) * sizes[0]:
        for view in views:
            view.found_everywhere()
    for axis in range(len(where)):
        parts = [box[axis] for box in boxes.values()]
        where[axis] = slice(min(p.start for p in parts), max(p.stop for p in parts))
    best = None if meaning.regions else _summed(views, 0, where).clone()
    labels: torch.Tensor | None = None
    for channel, box in boxes.items():
        values = _summed(views, channel, box)
        if labels is None:
            labels = values.new_zeros([part.stop - part.start for part in where])
        here = tuple(
            slice(part.start - whole.start, part.stop - whole.start)
            for part, whole in zip(box, where, strict=True)
        )
        # 1 where the channel comes out; of equal ones the first. Numbers rise from channel to
        # channel, so that a later one paints over those before as their maximum.
        found = torch.empty_like(values)
        if best is None:
            needed = meaning.threshold * _votes(views, box, values.device)
            torch.gt(values, needed, out=found)
            number = channel + 1
        else:
            torch.gt(values, best[here], out=found)
            torch.maximum(best[here], values, out=best[here])
            number = channel
        torch.maximum(labels[here], found.mul_(number), out=labels[here])
    assert labels is not None
    outside = np.logical_and.reduce([~view.in_plane(where) for view in views])
    if outside.any():
        labels[torch.from_numpy(outside).to(labels.device).expand_as(labels)] = 0
    return where, labels


def _shares(
    views: Sequence[View], where: Sequence[slice], meaning: Meaning
) -> npt.NDArray[np.float32]:
    """Return the probabilities of all channels in a box; (C, *box)."""
    channels = range(len(meaning.values))
    maps = torch.stack([_summed(views, channel, where) for channel in channels])
    if meaning.logits:
        maps = maps.sigmoid() if meaning.regions else maps.softmax(0)
    votes = _votes(views, where, maps.device)
    if not meaning.logits:
        maps /= votes.clamp(min=1)
    outside = (votes == 0).expand(maps.shape[1:])
    if outside.any():
        maps[:, outside] = 0
        if not meaning.regions:
            maps[0][outside] = 1
    result: npt.NDArray[np.float32] = maps.cpu().numpy()
    return result


def _boxes(views: Sequence[View], where: Sequence[slice], walk: int) -> dict[int, list[slice]]:
    """Return, by channel, the box of the source in which it can come out."""
    axes = [axis for axis in range(len(where)) if axis != walk]
    spans = [{axis: view.spans(axis) for axis in axes} for view in views]
    boxes: dict[int, list[slice]] = {}
    for channel in range(len(spans[0][axes[0]].start)):
        found = [
            {axis: (int(one[axis].start[channel]), int(one[axis].stop[channel])) for axis in axes}
            for one in spans
        ]
        found = [one for one in found if all(start < stop for start, stop in one.values())]
        if not found:
            continue
        box = list(where)
        for axis in axes:
            starts, stops = zip(*(one[axis] for one in found), strict=True)
            box[axis] = slice(min(starts), max(stops))
        boxes[channel] = box
    return boxes


def _summed(views: Sequence[View], channel: int, where: Sequence[slice]) -> torch.Tensor:
    """Return the sum of the networks that have a say in a voxel."""
    total = views[0].channel(channel, where)
    if len(views) == 1:
        return total
    total = total * _as_tensor(views[0].in_plane(where), total.device)
    for view in views[1:]:
        values = view.channel(channel, where)
        total += (values * _as_tensor(view.in_plane(where), values.device)).to(total.device)
    return total


def _votes(views: Sequence[View], where: Sequence[slice], device: torch.device) -> torch.Tensor:
    """Return how many networks have a say in each voxel; broadcasts along the walk."""
    return _as_tensor(sum(view.in_plane(where).astype(np.float32) for view in views), device)


def _as_tensor(array: Any, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)
