"""Probabilities of every class in every voxel: on disk, never as a whole in memory."""

import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.io.atomic import output_errors, write_json
from medseg.io.nifti import write_shares
from medseg.volume import Segmentation

LARGEST = 65535
"""What a probability of 1 is stored as."""

NIFTI = "probabilities.nii.gz"
NAMES = "probabilities.json"


@dataclass(frozen=True)
class _Part:
    """Where a part of the grid begins."""

    store: "ProbabilityStore"
    axis: int
    start: int

    def put(self, where: Sequence[slice], shares: npt.NDArray[Any]) -> None:
        moved = list(where)
        own = moved[self.axis]
        moved[self.axis] = slice(own.start + self.start, own.stop + self.start)
        self.store.put(moved, shares)

    def part(self, axis: int, start: int) -> "_Part":
        if axis != self.axis:
            msg = f"axis must be {self.axis} again, got {axis}"
            raise ValueError(msg)
        return _Part(self.store, axis, self.start + start)


class ProbabilityStore:
    """Probabilities of every class on the grid of a volume, in a file without a name.

    The file is gone when the store is, even where the process is killed. It holds 16 bits a voxel
    and class.

    Args:
        shape: (I, J, K) or (rows, columns).
        channels: Value in masks and name of each class or region.
        exclusive: They are classes, which add up to 1: the first is background, and 1 where nothing
            else is said; else regions.
        folder: On the disk that holds the file; the system's folder for such when None.

    Raises:
        OutputError: If the file cannot be made, or later written.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: Sequence[tuple[int, str]],
        *,
        exclusive: bool,
        folder: Path | None = None,
    ) -> None:
        self.shape = tuple(shape)
        self.channels = tuple(channels)
        self.exclusive = exclusive
        self._folder = folder or Path(tempfile.gettempdir())
        self._axes = range(len(shape))[::-1] if len(shape) == 3 else range(2)  # slowest first
        with output_errors(self._folder / NIFTI):
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115
            self._finalizer = weakref.finalize(self, self._file.close)
            self._file.truncate(2 * len(channels) * int(np.prod(shape)))
            if exclusive:
                self._fill_first()

    def put(self, where: Sequence[slice], shares: npt.NDArray[Any]) -> None:
        """Write a box.

        Args:
            where: Of the grid; no steps.
            shares: (C, *box) probabilities; float.
        """
        stored = np.rint(shares * LARGEST).clip(0, LARGEST).astype("<u2")
        ordered = stored.transpose(0, *(axis + 1 for axis in self._axes))
        box = [where[axis] for axis in self._axes]
        extents = [self.shape[axis] for axis in self._axes]
        # axes that the box covers whole are written in one piece with the one before them
        whole = 0
        while whole < len(box) - 1 and box[-1 - whole] == slice(0, extents[-1 - whole]):
            whole += 1
        apart = [len(self.channels), *(part.stop - part.start for part in box)][: len(box) - whole]
        pieces = np.ascontiguousarray(ordered).reshape(*apart, -1)
        with output_errors(self._folder / NIFTI):
            for index in np.ndindex(*apart):
                corner = [part.start for part in box]
                for axis, place in enumerate(index[1:]):
                    corner[axis] += place
                offset = np.ravel_multi_index((index[0], *corner), (apart[0], *extents))
                self._write(pieces[index].data, 2 * int(offset))

    def part(self, axis: int, start: int) -> _Part:
        """Return a store of a part of the grid, which writes here.

        Args:
            axis: Of the grid.
            start: First voxel along it.

        Returns:
            The part.
        """
        return _Part(self, axis, start)

    def channel(self, number: int) -> npt.NDArray[np.uint16]:
        """Return the probabilities of one class or region.

        Args:
            number: In the order of `channels`.

        Returns:
            In the shape of the grid, 0 to `LARGEST`; read from disk as it is looked at.
        """
        extents = [self.shape[axis] for axis in self._axes]
        size = 2 * int(np.prod(extents))
        mapped = np.memmap(self._file, "<u2", "r", number * size, tuple(extents))
        return np.asarray(
            mapped.transpose([list(self._axes).index(a) for a in range(len(extents))])
        )

    def close(self) -> None:
        """Give the disk space back."""
        self._finalizer()

    def _fill_first(self) -> None:
        plane = np.full(self.shape[self._axes[-1]] * self.shape[self._axes[-2]], LARGEST, "<u2")
        count = int(np.prod(self.shape)) // plane.size
        for number in range(count):
            self._write(plane.data, number * plane.nbytes)

    def _write(self, data: memoryview, offset: int) -> None:
        self._file.seek(offset)
        rest = data.cast("B")
        while rest:
            rest = rest[self._file.write(rest) :]


def write_probabilities(segmentation: Segmentation, folder: Path) -> tuple[str, str]:
    """Write the probabilities of background and of each label as one NIfTI of four axes.

    `probabilities.nii.gz` lies on the grid of the mask; along the fourth axis follow the classes
    that `probabilities.json` names, which says too whether they are `exclusive`: all classes, so
    that they add up to 1. They are stored in steps of 1/65535, which readers scale. They
    are what the networks say: parts that postprocessing removed from the mask are still seen.

    Args:
        segmentation: With probabilities; labels that it no longer holds are left out.
        folder: Where the files go.

    Returns:
        Names of the two files.

    Raises:
        OutputError: If writing fails.
        ValueError: If the segmentation has no probabilities.
    """
    store = segmentation.probabilities
    if store is None:
        msg = "segmentation must have probabilities, got none"
        raise ValueError(msg)
    kept = {label.index for label in segmentation.labels}
    numbers = [
        number
        for number, (index, _) in enumerate(store.channels)
        if index in kept or (number == 0 and store.exclusive)
    ]
    maps = (store.channel(number) for number in numbers)
    write_shares(segmentation, maps, len(numbers), folder / NIFTI, largest=LARGEST)
    names = [
        {"channel": place, "index": store.channels[number][0], "name": store.channels[number][1]}
        for place, number in enumerate(numbers)
    ]
    complete = store.exclusive and len(numbers) == len(store.channels)
    write_json(folder / NAMES, {"schema": 1, "exclusive": complete, "channels": names})
    return NIFTI, NAMES
