"""Class maps that are read plane by plane, whether they exist as a whole or not yet."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self

import torch

from medseg.errors import BundleError, InputError
from medseg.geometry import Affine, moved
from medseg.inference.stream import Network, Slab, Streaming, Work, stream_class_maps
from medseg.inference.windows import Windows, whole_image


class PlaneReader(Protocol):
    """Reads planes of class maps in one direction."""

    def planes(self, first: int, last: int) -> torch.Tensor:
        """Return some planes; in the direction of the walk, no call goes back.

        Args:
            first: The lowest plane.
            last: The highest plane.

        Returns:
            (C, *spatial) logits or probabilities, `last - first + 1` planes along the axis; valid
            until the next call.
        """


class ClassMaps(Protocol):
    """What one network says, on its own grid, plane by plane."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the network's grid; voxels."""

    @property
    def affine(self) -> Affine:
        """(4, 4) of the network's grid; RAS, mm. (3, 3) of a 2D image."""

    def walk_cost(self, axis: int) -> float:
        """Return what it costs to read along an axis.

        Args:
            axis: Network axis.

        Returns:
            About the voxels of class maps that are held at once, see `Windows.walk_cost`.
        """

    def windows_along(self, axis: int) -> int:
        """Return how many windows lie along an axis: with one, the maps cannot be cut.

        Args:
            axis: Network axis.

        Returns:
            Windows.
        """

    def part(self, axis: int, low: int, high: int) -> "ClassMaps":
        """Return the maps of some voxels along an axis, and perhaps of some around them.

        Args:
            axis: Network axis with several windows.
            low: The lowest voxel.
            high: The highest voxel.

        Returns:
            The same values on a smaller grid; beyond these voxels they may be others.
        """

    def open(self, axis: int, *, descending: bool) -> PlaneReader:
        """Start to read along an axis.

        Args:
            axis: Network axis.
            descending: From the last plane to the first.

        Returns:
            The reader.
        """


@dataclass(frozen=True)
class WholeMaps:
    """Class maps that exist as a whole.

    Attributes:
        maps: (C, *network) logits or probabilities; float.
        affine: (4, 4) of the network's grid; RAS, mm.
    """

    maps: torch.Tensor
    affine: Affine

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the network's grid; voxels."""
        return tuple(self.maps.shape[1:])

    def walk_cost(self, axis: int) -> float:
        """Return what it costs to read along an axis; see `ClassMaps`.

        Args:
            axis: Network axis.

        Returns:
            All voxels, more of them along the last axis.
        """
        return whole_image(self.shape).walk_cost(axis)

    def windows_along(self, axis: int) -> int:  # noqa: ARG002
        """Return how many windows lie along an axis; see `ClassMaps`.

        Args:
            axis: Of no matter here.

        Returns:
            One.
        """
        return 1

    def part(self, axis: int, low: int, high: int) -> "WholeMaps":
        """Return the maps of some voxels along an axis; see `ClassMaps`.

        Args:
            axis: Network axis.
            low: The lowest voxel.
            high: The highest voxel.

        Returns:
            A view.
        """
        maps = self.maps.narrow(axis + 1, low, high + 1 - low)
        return WholeMaps(maps, moved(self.affine, axis, low))

    def open(self, axis: int, *, descending: bool) -> PlaneReader:  # noqa: ARG002
        """Start to read along an axis; see `ClassMaps`.

        Args:
            axis: Network axis.
            descending: Of no matter here.

        Returns:
            The reader.
        """
        return _WholeReader(self.maps, axis)


@dataclass(frozen=True)
class _WholeReader:
    maps: torch.Tensor
    axis: int

    def planes(self, first: int, last: int) -> torch.Tensor:
        return self.maps.narrow(self.axis + 1, first, last - first + 1)


class SlabReader:
    """Planes from slabs that come one after the other.

    Args:
        slabs: As `stream_class_maps` yields them.
        axis: Network axis that they follow on each other along.
        descending: Whether they come from the last plane to the first.
    """

    def __init__(self, slabs: Iterator[Slab], axis: int, *, descending: bool) -> None:
        self._slabs = slabs
        self._dim = axis + 1
        self._descending = descending
        self._parts: list[tuple[int, torch.Tensor]] = []  # lowest plane and planes, in order

    def planes(self, first: int, last: int) -> torch.Tensor:
        """Return some planes; see `PlaneReader`.

        Args:
            first: The lowest plane.
            last: The highest plane.

        Returns:
            (C, *spatial), valid until the next call.
        """
        while not self._reaches(first if self._descending else last):
            self._take(first, last)
        pieces = self._pieces(first, last)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, self._dim)

    def _reaches(self, plane: int) -> bool:
        return any(low <= plane < low + part.shape[self._dim] for low, part in self._parts)

    def _pieces(self, first: int, last: int) -> list[torch.Tensor]:
        pieces = []
        for low, part in self._parts:
            start = max(first, low) - low
            count = min(last + 1, low + part.shape[self._dim]) - low - start
            if count > 0:
                pieces.append(part.narrow(self._dim, start, count))
        return pieces

    def _take(self, first: int, last: int) -> None:
        # what is still wanted is copied: the memory of a slab is used again for the next
        pieces = self._pieces(first, last)
        kept = torch.cat(pieces, self._dim) if pieces else None
        low = max(first, min((low for low, _ in self._parts), default=0))
        slab = next(self._slabs)
        self._parts = [(slab.first, slab.maps)]
        if kept is not None:
            self._parts.insert(len(self._parts) if self._descending else 0, (low, kept))


class Watcher(Protocol):
    """Is shown every plane of class maps as it is finished."""

    def part(self, axis: int, start: int, low: int, high: int) -> Self:
        """Return a watcher of some voxels along an axis.

        Args:
            axis: Network axis.
            start: Where the class maps begin that it is shown.
            low: The lowest voxel.
            high: The highest voxel; what is shown beyond the two is of no worth.

        Returns:
            The watcher.
        """

    def note(self, axis: int, first: int, maps: torch.Tensor) -> None:
        """Take finished planes.

        Args:
            axis: Network axis that they follow each other along.
            first: The lowest plane.
            maps: (C, *spatial); valid until it returns.
        """


def require_class_maps(maps: torch.Tensor, classes: int, name: str) -> None:
    """Raise unless class maps can be decided.

    Args:
        maps: (C, *spatial).
        classes: Maps wanted.
        name: Of what the network belongs to, for the message.

    Raises:
        BundleError: If there are more or fewer maps (`wrong-classes`).
        InputError: If a value is not finite (`non-finite-output`).
    """
    if len(maps) != classes:
        msg = (
            f"network of {name} must return a map a class, got {len(maps)} maps for {classes}"
            " classes. Correct channel_def in its metadata."
        )
        raise BundleError(msg, code="wrong-classes")
    if not all(one.sum(dtype=torch.float32).isfinite() for one in maps):
        msg = f"network of {name} must return finite values, got NaN or infinity."
        raise InputError(msg, code="non-finite-output")


def first_of(several: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the maps of the only network.

    Args:
        several: Of each network; one.

    Returns:
        (C, *spatial).
    """
    (maps,) = several
    return maps


@dataclass(frozen=True)
class StreamedMaps:
    """Class maps of networks on one grid, made while they are read.

    Attributes:
        image: (C, *spatial) on the networks' grid.
        networks: Each maps (B, C, *window) to (B, classes, *window).
        windows: Where windows lie.
        affine: (4, 4) of the grid; RAS, mm. (3, 3) of a 2D image.
        how: How windows are run and added up.
        joined: Makes one of the maps of all networks, slab by slab.
        seconds: The time that the networks run is added to its `network`; s.
        work: What was done.
        watcher: Is shown the joined maps.
    """

    image: torch.Tensor
    networks: Sequence[Network]
    windows: Windows
    affine: Affine
    how: Streaming = field(default_factory=Streaming)
    joined: Callable[[Sequence[torch.Tensor]], torch.Tensor] = first_of
    seconds: dict[str, float] = field(default_factory=lambda: {"network": 0.0})
    work: Work = field(default_factory=Work)
    watcher: Watcher | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the networks' grid; voxels."""
        return self.windows.shape

    def walk_cost(self, axis: int) -> float:
        """Return what it costs to read along an axis; see `ClassMaps`.

        Args:
            axis: Network axis.

        Returns:
            The cost of a row of windows, of all networks.
        """
        return len(self.networks) * self.windows.walk_cost(axis)

    def windows_along(self, axis: int) -> int:
        """Return how many windows lie along an axis; see `ClassMaps`.

        Args:
            axis: Network axis.

        Returns:
            Windows.
        """
        return len(self.windows.starts[axis])

    def part(self, axis: int, low: int, high: int) -> "StreamedMaps":
        """Return the maps of some voxels along an axis; see `ClassMaps`.

        Args:
            axis: Network axis with several windows.
            low: The lowest voxel.
            high: The highest voxel.

        Returns:
            Those of the windows that cover these voxels; further out windows are missing.
        """
        windows, start = self.windows.part(axis, low, high)
        image = self.image.narrow(axis + 1, start, windows.shape[axis])
        own = moved(self.affine, axis, start)
        watcher = self.watcher.part(axis, start, low, high) if self.watcher is not None else None
        return replace(self, image=image, windows=windows, affine=own, watcher=watcher)

    def open(self, axis: int, *, descending: bool) -> PlaneReader:
        """Start to read along an axis; see `ClassMaps`.

        Args:
            axis: Network axis.
            descending: From the last plane to the first.

        Returns:
            The reader.
        """
        return SlabReader(self._slabs(axis, descending), axis, descending=descending)

    def _slabs(self, axis: int, descending: bool) -> Iterator[Slab]:
        streams = [
            stream_class_maps(
                self.image,
                network,
                self.windows,
                axis=axis,
                descending=descending,
                how=self.how,
                work=self.work,
            )
            for network in self.networks
        ]
        while True:
            started = time.perf_counter()
            with torch.inference_mode():
                slabs = [next(stream, None) for stream in streams]
                present = [slab for slab in slabs if slab is not None]
                if not present:
                    return
                slab = Slab(present[0].first, self.joined([one.maps for one in present]))
            self.seconds["network"] += time.perf_counter() - started
            if self.watcher is not None:
                self.watcher.note(axis, slab.first, slab.maps)
            yield slab
