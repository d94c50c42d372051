"""How sure the networks are of each label: means over its voxels, from maps on their own grid.

Class maps never exist as a whole; of each finished slab only the largest probability of a voxel
and the entropy of its classes are kept, a byte each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medseg.geometry import Affine
from medseg.inference.restore import AxisMap, axis_maps
from medseg.inference.view import OUTSIDE_VOXELS
from medseg.volume import Label, Segmentation, mask_dtype

SURE = 10.0
"""Lead of the background's logit from which on its probability is taken for 1."""

VALUES_AT_ONCE = 1 << 24
"""Values of class maps that are made probabilities at once."""

VOXELS_AT_ONCE = 1 << 18
"""Voxels of a mask that are looked up at once; some tens of bytes each."""

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class CertaintyMap:
    """How sure the networks of one bundle are of each voxel of their grid.

    Attributes:
        probability: (1, *network) largest probability of any class, or (R, *network) that of each
            region; 0 to 255.
        entropy: (*network) of the classes, 255 where all are as probable; unused for regions.
        affine: (4, 4) of the network's grid; RAS, mm. (3, 3) of a 2D image.
        regions: Channels are regions.
        logits: Maps are logits, and no probabilities.
        winner: (*network) channel of the largest probability; another label of the mask has at most
            as much, and what that leaves. Unused for regions.
        values: Of the mask, by channel.
        cut: Of a view, an axis, and how much further along it the view begins than its maps.
    """

    probability: Bytes
    entropy: Bytes
    affine: Affine
    regions: bool
    logits: bool
    winner: npt.NDArray[Any]
    values: tuple[int, ...]
    cut: tuple[int, int] | None = None

    @classmethod
    def empty(
        cls,
        shape: Sequence[int],
        affine: Affine,
        values: tuple[int, ...],
        *,
        regions: bool,
        logits: bool,
    ) -> "CertaintyMap":
        """Return a map of voxels that are surely background.

        Args:
            shape: Of the network's grid; voxels.
            affine: Of it.
            values: Of the mask, by channel.
            regions: As the attribute.
            logits: As the attribute.

        Returns:
            The map.
        """
        channels = len(values) if regions else 1
        probability = np.full((channels, *shape), 0 if regions else 255, np.uint8)
        unused = (0,) * len(shape)
        entropy = np.zeros(unused if regions else tuple(shape), np.uint8)
        winner = np.zeros(unused if regions else tuple(shape), mask_dtype(len(values) - 1))
        return cls(probability, entropy, affine, regions, logits, winner, values)

    def part(self, axis: int, start: int, low: int, high: int) -> "CertaintyMap":
        """Return a view of some voxels along an axis; see `Watcher`.

        Args:
            axis: Network axis.
            start: Where its class maps begin.
            low: The lowest voxel of the view.
            high: The highest voxel of the view.

        Returns:
            What is noted in it is noted here.
        """
        where = (slice(None),) * axis + (slice(low, high + 1),)
        return replace(
            self,
            probability=self.probability[(slice(None), *where)],
            entropy=self.entropy if self.regions else self.entropy[where],
            winner=self.winner if self.regions else self.winner[where],
            cut=(axis, low - start),
        )

    def note(self, axis: int, first: int, maps: torch.Tensor) -> None:
        """Note finished planes.

        Args:
            axis: Network axis that they follow each other along.
            first: The lowest plane.
            maps: (C, *spatial) class maps.
        """
        if self.cut is not None:
            cut, before = self.cut
            maps = maps.narrow(cut + 1, before, self.probability.shape[cut + 1])
        size = max(1, VALUES_AT_ONCE * maps.shape[axis + 1] // maps.numel())
        for start in range(0, maps.shape[axis + 1], size):
            count = min(size, maps.shape[axis + 1] - start)
            some = maps.narrow(axis + 1, start, count)
            planes = slice(first + start, first + start + count)
            where: tuple[slice, ...] = (*(slice(None),) * axis, planes)
            if self.regions:
                shares = some.float().sigmoid() if self.logits else some
                self.probability[(slice(None), *where)] = _bytes(shares)
            else:
                found = _of_classes(some, self.logits)
                self.probability[0][where], self.entropy[where], self.winner[where] = found


def label_confidence(
    segmentation: Segmentation, labels: Sequence[Label], maps: Sequence[CertaintyMap]
) -> dict[int, dict[str, float]]:
    """Return how sure the networks are of each label that was found.

    Each voxel of the finished mask takes what the nearest voxel of a network's grid has.

    Args:
        segmentation: The finished mask.
        labels: In the order of the channels where those are regions.
        maps: One a bundle; all count alike.

    Returns:
        Label index to `{"probability", "entropy"}`, see `Segmentation.confidence`.
    """
    sums: dict[int, npt.NDArray[np.float64]] = {}
    for one in maps:
        readings = _Readings(segmentation, one)
        for label, found in zip(labels, readings.of(labels), strict=True):
            sums[label.index] = sums.get(label.index, np.zeros(3)) + found
    return {
        index: {
            "probability": round(float(probability / count), 4),
            "entropy": round(float(entropy / count), 4),
        }
        for index, (count, probability, entropy) in sums.items()
        if count
    }


class _Readings:
    """What a certainty map says of the voxels of a mask.

    Args:
        segmentation: The mask.
        certainty: The map.
    """

    def __init__(self, segmentation: Segmentation, certainty: CertaintyMap) -> None:
        self.array = segmentation.array
        self.certainty = certainty
        shape = certainty.probability.shape[1:]
        own = axis_maps(self.array.shape, segmentation.affine, shape, certainty.affine)
        self.axes = [one.axis for one in own]
        self.nearest = [_nearest(one, shape[one.axis]) for one in own]
        self.walk = int(np.argmax(np.abs(self.array.strides)))

    def of(self, labels: Sequence[Label]) -> npt.NDArray[np.float64]:
        """Return, for each label, its voxels and the sums of probability and entropy."""
        size = int(self.array.max(initial=0)) + 1
        channels = len(self.certainty.probability)
        totals = np.zeros((channels, 3, size))
        extent = self.array.shape[self.walk]
        step = max(1, VOXELS_AT_ONCE * extent // max(1, self.array.size))
        for first in range(0, extent, step):
            self._add(first, first + step, totals)
        rows = [
            totals[number if self.certainty.regions else 0][
                :, [value for value in label.inside if value < size]
            ].sum(axis=1)
            for number, label in enumerate(labels)
        ]
        return np.array(rows)

    def _add(self, first: int, last: int, totals: npt.NDArray[np.float64]) -> None:
        block = [slice(None)] * self.array.ndim
        block[self.walk] = slice(first, last)
        part = self.array[tuple(block)]
        places = list(np.nonzero(part))
        values = part[tuple(places)]
        places[self.walk] = places[self.walk] + first
        at: list[Any] = [None] * len(places)
        for axis, nearest, place in zip(self.axes, self.nearest, places, strict=True):
            at[axis] = nearest[place]
        inside = np.logical_and.reduce([index >= 0 for index in at])
        if not inside.all():
            values, at = values[inside], [index[inside] for index in at]
        size = totals.shape[2]
        counts = np.bincount(values, minlength=size)
        named = np.asarray(self.certainty.values)
        for channel, total in zip(self.certainty.probability, totals, strict=True):
            read = channel[tuple(at)]
            if self.certainty.regions:
                unsure = _BINARY[read]
            else:
                unsure = self.certainty.entropy[tuple(at)]
                others = named[self.certainty.winner[tuple(at)]] != values
                read = np.where(others, np.minimum(read, 255 - read), read)
            total[0] += counts
            total[1] += np.bincount(values, read, size) / 255
            total[2] += np.bincount(values, unsure, size) / 255


def _nearest(own: AxisMap, extent: int) -> npt.NDArray[np.int64]:
    """Return the network voxel nearest to each source voxel of an axis; -1 outside the grid."""
    index = np.rint(own.positions).astype(np.int64).clip(0, extent - 1)
    beyond = np.maximum(-own.positions, own.positions - (extent - 1))
    return np.where(beyond <= OUTSIDE_VOXELS, index, -1)


def _of_classes(maps: torch.Tensor, logits: bool) -> tuple[Bytes, Bytes, npt.NDArray[np.int64]]:
    """Return the largest probability of each voxel, the entropy of its classes, and the winner."""
    flat = maps.reshape(len(maps), -1)
    others = flat[1:].amax(0)
    unsure = others > flat[0] - SURE if logits else others > math.exp(-SURE)
    index = unsure.nonzero()[:, 0]
    some = flat.index_select(1, index).float()
    shares = some.softmax(0) if logits else some / some.sum(0)
    largest = flat.new_ones(flat.shape[1], dtype=torch.float32)
    entropy = torch.zeros_like(largest)
    winner = torch.zeros_like(largest, dtype=torch.int64)
    largest[index], winner[index] = shares.max(0)
    entropy[index] = torch.special.entr(shares).sum(0) / math.log(max(2, len(maps)))
    spatial = maps.shape[1:]
    return (
        _bytes(largest.reshape(spatial)),
        _bytes(entropy.reshape(spatial)),
        winner.reshape(spatial).cpu().numpy(),
    )


def _bytes(shares: torch.Tensor) -> Bytes:
    """Return shares, 0 to 1, as 0 to 255."""
    result: Bytes = shares.mul(255).round_().clamp_(0, 255).to(torch.uint8).cpu().numpy()
    return result


def _binary_entropy() -> npt.NDArray[np.float64]:
    shares = np.arange(256) / 255
    both = np.stack([shares, 1 - shares])
    return np.asarray(
        -255 * (both * np.log2(both, where=both > 0, out=np.zeros_like(both))).sum(axis=0)
    )


_BINARY = _binary_entropy()
"""Entropy of a region and what is outside it, by the probability of the region; 0 to 255."""
