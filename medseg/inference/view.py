"""Class maps of one network, interpolated to boxes of the source grid a few planes at a time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from medseg.inference.maps import ClassMaps, PlaneReader

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

RUN_VOXELS = 64
"""Source voxels of an axis that are interpolated by one matrix."""

WEIGHT_TOLERANCE = 1e-5
"""Source voxels this near to network voxels, in network voxels, take their values as they are."""

OUTSIDE_VOXELS = 0.75
"""Source voxels further than this outside the network's grid are background.

Grids that share a field of view need half a voxel. A whole one would reach the neighbours of a
cropped box, or not, by rounding.
"""


UNSEEN_FETCHES = 15
"""How often planes are fetched before it is looked again where channels are found."""


class Spans(NamedTuple):
    """Stretches of an axis, one a channel.

    Attributes:
        start: (C,) first voxel.
        stop: (C,) one past the last; not above `start` where there is nothing.
    """

    start: Ints
    stop: Ints


class View:
    """Class maps of one network in the order of the source's axes.

    Args:
        member: The class maps.
        axes: Network axis of each source axis.
        positions: Of each source axis, where its voxels lie on that axis; network voxels.
        walk: Source axis along which planes are read.
        half: Interpolated values are rounded to float16.
    """

    def __init__(
        self,
        member: ClassMaps,
        axes: Sequence[int],
        positions: Sequence[npt.NDArray[np.float64]],
        walk: int,
        *,
        half: bool = False,
    ) -> None:
        self.member = member
        self.axes = list(axes)
        self.walk = walk
        self.half = half
        extents = [member.shape[axis] for axis in axes]
        self.inside = [_inside(p, e) for p, e in zip(positions, extents, strict=True)]
        self.taps = [Taps.of(p, e) for p, e in zip(positions, extents, strict=True)]
        self.falling = bool(positions[walk][-1] < positions[walk][0])
        self._reader: PlaneReader | None = None
        self._relative = True
        self._maps = torch.empty(0)
        self._low = 0
        self._hits: dict[int, list[Flags]] = {}
        self._unseen = 0

    def open(self, *, reverse: bool) -> None:
        """Start to read.

        Args:
            reverse: The source is walked from its last plane to its first.
        """
        self._reader = self.member.open(self.axes[self.walk], descending=self.falling != reverse)

    def fetch(self, part: slice, threshold: float | None) -> None:
        """Get the planes that some planes of the source lie between.

        Args:
            part: Planes of the source.
            threshold: Channels are found where they are above it; above channel 0 when None.
        """
        assert self._reader is not None
        taps = self.taps[self.walk]
        low, high = int(taps.lower[part].min()), int(taps.upper[part].max())
        maps = self._reader.planes(low, high)
        self._maps = maps.permute(0, *(axis + 1 for axis in self.axes))
        self._low = low
        self.taps = [taps.on(maps.device) for taps in self.taps]
        self._relative = threshold is None
        if self._unseen:
            self._unseen -= 1
            self._hits = {}
            return
        self._hits = {
            plane: self._hits[plane]
            if plane in self._hits
            else _hits(self._maps.select(self.walk + 1, plane - low), threshold)
            for plane in range(low, high + 1)
        }

    def spans(self, axis: int) -> Spans:
        """Return where each channel may be found along an axis, in the planes at hand.

        Args:
            axis: Source axis, not that of the walk.

        Returns:
            Source voxels; nothing of channel 0 where the others are measured against it.
        """
        if not self._hits:
            channels, count = len(self._maps), len(self.taps[axis].lower)
            stop = np.full(channels, count)
            stop[: int(self._relative)] = 0
            return Spans(np.zeros(channels, np.int64), stop)
        rest = [other for other in range(len(self.axes)) if other != self.walk].index(axis)
        return self.taps[axis].reached(
            np.logical_or.reduce([hits[rest] for hits in self._hits.values()])
        )

    def found_everywhere(self) -> None:
        """Take channels to be found everywhere for a while: looking for them did not pay."""
        self._unseen = UNSEEN_FETCHES

    def in_plane(self, where: Sequence[slice]) -> Flags:
        """Return which voxels of a box lie inside the network's grid.

        Args:
            where: Box of the source.

        Returns:
            Flags that broadcast along the walk.
        """
        result = np.ones((1,) * len(where), bool)
        for axis, part in enumerate(where):
            if axis != self.walk:
                shape = [1] * len(where)
                shape[axis] = -1
                result = result & self.inside[axis][part].reshape(shape)
        return result

    def channel(self, number: int, where: Sequence[slice]) -> torch.Tensor:
        """Interpolate one channel.

        Args:
            number: Of the channel.
            where: Box of the source.

        Returns:
            Values in the box; float32.
        """
        values = self._maps[number]
        lows = []
        for axis, (taps, part) in enumerate(zip(self.taps, where, strict=True)):
            low, high = int(taps.lower[part].min()), int(taps.upper[part].max())
            first = low - self._low if axis == self.walk else low
            values = values.narrow(axis, first, high + 1 - low)
            lows.append(low)
        values = values.float()
        growth = [(part.stop - part.start) / n for part, n in zip(where, values.shape, strict=True)]
        for axis in sorted(range(len(growth)), key=growth.__getitem__):  # what grows least first
            values = self.taps[axis].applied(values, axis, where[axis], lows[axis])
        return values.half().float() if self.half else values


@dataclass(frozen=True)
class Taps:
    """The two network voxels that each source voxel of an axis lies between.

    Attributes:
        lower: (N,) the lower one; rising or falling.
        upper: (N,) the upper one.
        is_step: The source voxels lie on one network voxel after the other.
        runs: Matrices that interpolate `RUN_VOXELS` source voxels each, and the lowest network
            voxel of each; None where all source voxels lie on network voxels.
    """

    lower: Ints
    upper: Ints
    runs: tuple[tuple[int, torch.Tensor], ...] | None
    is_step: bool = False

    @classmethod
    def of(cls, positions: npt.NDArray[np.float64], extent: int) -> "Taps":
        """Return the taps of an axis.

        Args:
            positions: (N,) of the source voxels; network voxels.
            extent: Of the network's grid; voxels.

        Returns:
            The taps; positions outside take the nearest voxel.
        """
        clamped = np.clip(positions, 0, extent - 1)
        nearest = np.rint(clamped)
        if np.abs(clamped - nearest).max() < WEIGHT_TOLERANCE:
            index = nearest.astype(np.int64)
            return cls(index, index, None, bool((np.diff(index) == 1).all()))
        lower = np.minimum(clamped.astype(np.int64), max(extent - 2, 0))
        upper = np.minimum(lower + 1, extent - 1)
        weight = clamped - lower
        runs = []
        for start in range(0, len(lower), RUN_VOXELS):
            part = slice(start, start + RUN_VOXELS)
            low = int(lower[part].min())
            rows = np.arange(len(lower[part]))
            matrix = np.zeros((len(rows), int(upper[part].max()) + 1 - low), np.float32)
            matrix[rows, lower[part] - low] = 1 - weight[part]
            matrix[rows, upper[part] - low] += weight[part].astype(np.float32)
            runs.append((low, torch.from_numpy(matrix)))
        return cls(lower, upper, tuple(runs))

    def on(self, device: torch.device) -> "Taps":
        """Return the taps with their matrices on a device.

        Args:
            device: The device.

        Returns:
            The taps.
        """
        if self.runs is None or self.runs[0][1].device == device:
            return self
        return replace(self, runs=tuple((low, matrix.to(device)) for low, matrix in self.runs))

    def reached(self, hits: Flags) -> Spans:
        """Return the source voxels that lie next to hits.

        Args:
            hits: (C, extent) network voxels of each channel.

        Returns:
            From the first to the last of each channel.
        """
        count, extent = len(self.lower), hits.shape[1]
        first = hits.argmax(axis=1)
        last = extent - 1 - hits[:, ::-1].argmax(axis=1)
        falling = self.lower[-1] < self.lower[0]
        lower, upper = (taps[::-1] if falling else taps for taps in (self.lower, self.upper))
        start = np.searchsorted(upper, first, "left")
        stop = np.where(hits.any(axis=1), np.searchsorted(lower, last, "right"), start)
        return Spans(count - stop, count - start) if falling else Spans(start, stop)

    def applied(self, values: torch.Tensor, axis: int, part: slice, low: int) -> torch.Tensor:
        """Interpolate along an axis.

        Each run of source voxels is a product with a small matrix, of which each row has two
        values: memory is read and written once, which is what counts here.

        Args:
            values: Network voxels along the axis from `low` on, as many as are needed.
            axis: The axis.
            part: Source voxels.
            low: The first network voxel of `values`.

        Returns:
            The source voxels along the axis.
        """
        if self.runs is None:
            first, count = int(self.lower[part.start]) - low, part.stop - part.start
            if self.is_step:
                return values.narrow(axis, first, count)
            index = torch.from_numpy(self.lower[part] - low).to(values.device)
            return values.index_select(axis, index)
        shape = list(values.shape)
        shape[axis] = part.stop - part.start
        result = values.new_empty(shape)
        for number in range(part.start // RUN_VOXELS, -(-part.stop // RUN_VOXELS)):
            lowest, matrix = self.runs[number]
            first = max(part.start, number * RUN_VOXELS)
            stop = min(part.stop, (number + 1) * RUN_VOXELS)
            # a box on its own begins and ends within a run, and its values with it
            skipped = max(0, low - lowest)
            begin = lowest + skipped - low
            width = min(matrix.shape[1] - skipped, values.shape[axis] - begin)
            rows = slice(first - number * RUN_VOXELS, stop - number * RUN_VOXELS)
            weights = matrix[rows, skipped : skipped + width]
            source = values.narrow(axis, begin, width)
            target = result.narrow(axis, first - part.start, stop - first)
            if axis == values.ndim - 1:
                torch.matmul(source, weights.T, out=target)
            else:
                before = values.shape[:axis]
                after = math.prod(values.shape[axis + 1 :])
                flat = source.reshape(*before, width, after)
                torch.matmul(weights, flat, out=target.view(*before, stop - first, after))
        return result


def _hits(plane: torch.Tensor, threshold: float | None) -> list[Flags]:
    """Return, for each axis of a plane (C, *axes), where along it each channel is found."""
    # 0 and 1 in the type of the plane: torch is many times slower to make and to reduce flags
    found = torch.empty_like(plane)
    if threshold is None:
        torch.gt(plane, plane[:1], out=found)
    else:
        torch.gt(plane, plane.new_tensor(threshold), out=found)
    if plane.ndim == 2:
        return [found.bool().cpu().numpy()]
    return [found.amax(dim=3 - axis).bool().cpu().numpy() for axis in (1, 2)]


def _inside(positions: npt.NDArray[np.float64], extent: int) -> Flags:
    return np.asarray((positions >= -OUTSIDE_VOXELS) & (positions <= extent - 1 + OUTSIDE_VOXELS))
