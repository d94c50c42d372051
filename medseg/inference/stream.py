"""Class maps of a sliding window, slab after slab, so that the whole never exists."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from medseg.errors import BundleError
from medseg.inference.windows import Windows

Network = Callable[[torch.Tensor], torch.Tensor]


HALF_RANGE = 60000.0
"""What sums in float16 are kept within; the type ends at 65504."""


CACHED_PLANES = 8
"""Planes of a window that are added up at once, so that they stay in a processor's cache."""


class OutputFormError(BundleError):
    """A network returns what cannot be stitched as class maps of its windows."""


@dataclass(frozen=True)
class Slab:
    """Finished planes of class maps.

    Attributes:
        first: Lowest plane, along the axis that windows are walked along.
        maps: (C, *spatial) class maps; valid until the next slab is asked for.
    """

    first: int
    maps: torch.Tensor


@dataclass(frozen=True)
class Streaming:
    """How windows are run and added up.

    Attributes:
        batch_size: Windows that the network gets at once.
        skip_empty: Run the network once for windows of the same one value.
        half: Add up in float16, in half of the memory. From the logits of each voxel of a window
            the largest is taken off before, which changes no softmax and no order of classes:
            near a tie, values are near 0, where float16 is finest.
        regions: Channels are regions, on where their logit is above 0: nothing is taken off.
        device: Where sums are kept; that of the network when left out.
        strips: Strips of the image that are run one after the other, see `restore_mask`.
    """

    batch_size: int = 1
    skip_empty: bool = True
    half: bool = False
    regions: bool = False
    device: torch.device | None = None
    strips: int = 1


@dataclass
class Work:
    """What a stream has done so far.

    Attributes:
        windows: Windows that were stitched.
        repeated: Of those, windows of one value, for which the network did not run again.
    """

    windows: int = 0
    repeated: int = 0


def stream_class_maps(
    image: torch.Tensor,
    network: Network,
    windows: Windows,
    *,
    axis: int,
    descending: bool = False,
    how: Streaming | None = None,
    work: Work | None = None,
) -> Iterator[Slab]:
    """Run a network on all windows of an image, row by row along one axis.

    As soon as no further window covers a plane, it is divided by the weight of its windows and
    handed on. One row of windows is all that is held.

    A window in which every channel has one value gives what any other window with these values
    gives: the network runs once for all of them. Air around a body that normalisation clips, and
    the zero background of MRI, cost nothing in this way. The maps of one such value are kept.

    Args:
        image: (C, *spatial); moved to the device of the weights window by window.
        network: Maps (B, C, *size) to (B, classes, *size).
        windows: Where windows lie.
        axis: Spatial axis that they are walked along.
        descending: Walk from the last plane to the first.
        how: How windows are run and added up.
        work: Counts what was done.

    Yields:
        Slabs that cover the axis without gap or overlap.

    Raises:
        OutputFormError: If the network returns other than a (B, classes, *size) tensor.
    """
    work, how = work or Work(), how or Streaming()
    runner = _Runner(windows.padded(image), network, windows, how, work)
    row = _Row(windows, axis, descending, how)
    starts = windows.starts[axis][:: -1 if descending else 1]
    for number, start in enumerate(starts):
        for place, maps in runner.outputs(windows.across(axis), axis, start):
            row.add(place, maps)
            del maps  # it would stay beside the next
        last = number + 1 == len(starts)
        done = windows.size[axis] if last else abs(starts[number + 1] - start)
        low = start + windows.size[axis] - done if descending else start
        yield Slab(max(low - windows.before[axis], 0), row.finished(done))
        if not last:
            row.move_on(done)


class _Runner:
    """Runs the network on windows, once for all that hold the same single value."""

    def __init__(
        self,
        padded: torch.Tensor,
        network: Network,
        windows: Windows,
        how: Streaming,
        work: Work,
    ) -> None:
        self.padded = padded
        self.network = network
        self.windows = windows
        self.batch_size = how.batch_size
        self.skip_empty = how.skip_empty
        self.known: tuple[tuple[float, ...], torch.Tensor] | None = None
        self.work = work

    def outputs(
        self, places: Iterable[tuple[int, ...]], axis: int, start: int
    ) -> Iterator[tuple[tuple[int, ...], torch.Tensor]]:
        """Yield class maps (classes, *size) window by window, with where the window lies."""
        waiting: list[tuple[tuple[int, ...], torch.Tensor]] = []
        for across in places:
            place = (*across[:axis], start, *across[axis + 1 :])
            window = self.windows.cut(self.padded, place)
            self.work.windows += 1
            value = _single_value(window) if self.skip_empty else None
            if value is None:
                waiting.append((place, window))
                if len(waiting) == self.batch_size:
                    yield from self._run(waiting)
                    waiting = []
                continue
            if self.known is None or self.known[0] != value:
                [(_, maps)] = self._run([(place, window)])
                self.known = value, maps.clone()
            else:
                self.work.repeated += 1
            yield place, self.known[1]
        if waiting:
            yield from self._run(waiting)

    def _run(
        self, waiting: Sequence[tuple[tuple[int, ...], torch.Tensor]]
    ) -> list[tuple[tuple[int, ...], torch.Tensor]]:
        device = self.windows.importance.device
        inputs = torch.stack([window for _, window in waiting])
        if device.type == "cuda" and inputs.device.type == "cpu":
            inputs = inputs.pin_memory().to(device, non_blocking=True)
        maps = self.network(inputs.to(device))
        wanted = (len(waiting), *self.windows.size)
        if not isinstance(maps, torch.Tensor) or (len(maps), *maps.shape[2:]) != wanted:
            got = tuple(maps.shape) if isinstance(maps, torch.Tensor) else type(maps).__name__
            msg = (
                f"network must return maps of {len(waiting)} windows of"
                f" {list(self.windows.size)} voxels, got {got}"
            )
            raise OutputFormError(msg, code="bad-output")
        return [(place, one) for (place, _), one in zip(waiting, maps, strict=True)]


class _Row:
    """Weighted sums of the windows of a row, and of what earlier rows left for it.

    Planes are counted from the front of the row, in the direction of the walk.
    """

    def __init__(self, windows: Windows, axis: int, descending: bool, how: Streaming) -> None:
        self.windows = windows
        self.axis = axis
        self.descending = descending
        self.how = how
        self.importance = windows.importance.to(how.device or windows.importance.device)
        self.maps: torch.Tensor | None = None
        self.half = how.half or windows.half_sums
        kind = torch.float16 if windows.half_sums else torch.float32
        self.weights = self.importance.new_zeros(self._shape(1), dtype=kind)
        # with these no sum of the windows over a voxel leaves float16
        self.limit = HALF_RANGE / windows.most_over_a_voxel / max(1.0, float(self.importance.max()))

    def _shape(self, channels: int) -> tuple[int, ...]:
        spatial = list(self.windows.padded_shape)
        spatial[self.axis] = self.windows.size[self.axis]
        return (channels, *spatial)

    def _planes(self, tensor: torch.Tensor, first: int, count: int) -> torch.Tensor:
        if self.descending:
            first = self.windows.size[self.axis] - first - count
        return tensor.narrow(self.axis + 1, first, count)

    def add(self, place: tuple[int, ...], maps: torch.Tensor) -> None:
        """Add one window's class maps (classes, *size)."""
        if self.maps is None:
            dtype = torch.float16 if self.half else torch.float32
            self.maps = self.weights.new_zeros(self._shape(len(maps)), dtype=dtype)
        self._box(self.weights, place).add_(self.importance)
        sums = self._box(self.maps, place)
        maps = maps.to(self.weights.device)
        if not self.half:
            sums.addcmul_(maps.to(sums.dtype), self.importance)
            return
        for first in range(0, maps.shape[1], CACHED_PLANES):
            planes = (slice(None), slice(first, first + CACHED_PLANES))
            add = self._add_rounded if self.windows.half_sums else self._add_half
            add(sums[planes], maps[planes].float(), self.importance[planes[1]])

    def _add_rounded(
        self, sums: torch.Tensor, maps: torch.Tensor, importance: torch.Tensor
    ) -> None:
        """Add some planes to sums in float16, each sum rounded."""
        sums.add_(maps.clamp(-self.limit, self.limit).mul_(importance))

    def _add_half(self, sums: torch.Tensor, maps: torch.Tensor, importance: torch.Tensor) -> None:
        """Add some planes to sums in float16, class by class in float32."""
        largest = None if self.how.regions else maps.amax(0)
        exact, lowered = torch.empty_like(maps[0]), torch.empty_like(maps[0])
        for total, one in zip(sums, maps, strict=True):
            if largest is None:
                torch.clamp(one, -self.limit, self.limit, out=lowered)
            else:
                torch.sub(one, largest, out=lowered).clamp_(min=-self.limit)
            exact.copy_(total)
            total.copy_(exact.addcmul_(lowered, importance))

    def _box(self, tensor: torch.Tensor, place: tuple[int, ...]) -> torch.Tensor:
        for axis, (start, extent) in enumerate(zip(place, self.windows.size, strict=True)):
            if axis != self.axis:
                tensor = tensor.narrow(axis + 1, start, extent)
        return tensor

    def finished(self, count: int) -> torch.Tensor:
        """Return the first planes, divided by the weights, without the padding."""
        if self.maps is None:
            msg = "a row must hold a window, got none"
            raise ValueError(msg)
        maps = self._planes(self.maps, 0, count)
        weights = self._planes(self.weights, 0, count)[0]
        for one in maps:  # torch would make float32 of all channels of float16 at once
            one.div_(weights)
        for axis, (before, extent) in enumerate(
            zip(self.windows.before, self.windows.shape, strict=True), start=1
        ):
            if axis != self.axis + 1 or extent < self.windows.size[self.axis]:
                maps = maps.narrow(axis, before, extent)
        return maps

    def move_on(self, count: int) -> None:
        """Make room for the next row: its first planes are those after the finished ones."""
        for tensor in (self.maps, self.weights):
            if tensor is None:
                continue
            kept = self.windows.size[self.axis] - count
            for first in range(0, kept, count):  # in pieces that do not overlap
                planes = min(count, kept - first)
                target = self._planes(tensor, first, planes)
                target.copy_(self._planes(tensor, first + count, planes))
            self._planes(tensor, kept, count).zero_()


def _single_value(window: torch.Tensor) -> tuple[float, ...] | None:
    """Return the value of each channel if each has but one."""
    first = middle = window
    for extent in window.shape[1:]:
        first, middle = first.select(1, 0), middle.select(1, extent // 2)
    if not torch.equal(first, middle):
        return None
    if not torch.equal(window, first.reshape(-1, *(1,) * (window.ndim - 1)).expand_as(window)):
        return None
    return tuple(first.tolist())
