"""From class maps on the network's grid to an integer mask on the source grid.

The two grids differ by what preprocessing did: axes reordered and flipped, spacing changed, a
margin cropped or padded. All of that keeps the axes parallel, so the class maps are interpolated
one axis at a time, one slice of the source at a time, and a running maximum over the classes
gives the mask: class maps never exist on the source grid.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from medseg.errors import GeometryError
from medseg.geometry import Affine
from medseg.volume import mask_dtype

PARALLEL_TOLERANCE_VOXELS = 1e-2
"""How far, over the whole grid, an axis may stray from the one it is matched with."""

OUTSIDE_VOXELS = 1.0
"""Source voxels further than this outside the network's grid are background."""


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
class ClassMaps:
    """What one network says, on its own grid.

    Attributes:
        maps: (C, *network) logits or probabilities; float.
        affine: (4, 4) of the network's grid; RAS, mm.
    """

    maps: torch.Tensor
    affine: Affine


@dataclass(frozen=True)
class Meaning:
    """What the channels of class maps stand for in a mask.

    Attributes:
        values: The mask's value of each channel; of classes the first is background.
        regions: Channels overlap: each is painted, over those before it, where it passes the
            threshold. Else the largest channel wins.
        threshold: Of regions: 0 for logits, 0.5 for probabilities.
    """

    values: tuple[int, ...]
    regions: bool = False
    threshold: float = 0.0


def mask_from_class_maps(
    class_maps: torch.Tensor,
    network_affine: Affine,
    source_shape: tuple[int, ...],
    source_affine: Affine,
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Interpolate class maps to the source grid and take the largest class a voxel.

    Linear interpolation; a source voxel up to one network voxel outside the network's grid takes
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
        [ClassMaps(class_maps, network_affine)], source_shape, source_affine, meaning
    )


def restore_mask(
    members: Sequence[ClassMaps],
    source_shape: tuple[int, ...],
    source_affine: Affine,
    meaning: Meaning,
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """Bring class maps to the source grid, add those of several networks up, and decide.

    A voxel is left background where it lies outside the grids of all networks, and a network has
    no say where it lies outside its own.

    Args:
        members: Class maps of one network or several, which may differ in their grids.
        source_shape: (I, J, K) of the source.
        source_affine: (4, 4) of the source; RAS, mm.
        meaning: What the channels stand for.

    Returns:
        (I, J, K) values of the mask; uint8 up to 255, else uint16.

    Raises:
        GeometryError: If the axes of two grids are not parallel.
    """
    planes = [_Planes(member, source_shape, source_affine) for member in members]
    values = np.array([0, *meaning.values] if meaning.regions else meaning.values)
    table = values.astype(mask_dtype(int(values.max())))
    mask = np.full(source_shape, table[0], table.dtype, order="F")
    for k in range(source_shape[2]):
        here = [plane for plane in planes if plane.inside[2][k]]
        if not here:
            continue
        channels = _summed(here, k)
        if meaning.regions:
            decided = _painted(channels, meaning.threshold * len(here))
        else:
            decided = _largest(channels)
        labels = decided.cpu().numpy()
        outside = np.logical_and.reduce(
            [~np.logical_and.outer(plane.inside[0], plane.inside[1]) for plane in here]
        )
        labels[outside] = 0
        mask[:, :, k] = table[labels]
    return mask


class _Planes:
    """Class maps of one network, read plane by plane of the source."""

    def __init__(
        self, member: ClassMaps, source_shape: tuple[int, ...], source_affine: Affine
    ) -> None:
        shape = tuple(member.maps.shape[1:])
        maps = axis_maps(source_shape, source_affine, shape, member.affine)
        self.ordered = member.maps.permute(0, *(m.axis + 1 for m in maps))
        self.positions = [m.positions for m in maps]
        extents = self.ordered.shape[1:]
        self.inside = [_inside(p, e) for p, e in zip(self.positions, extents, strict=True)]
        self.rows, self.columns = (
            _interpolation_matrix(self.positions[axis], extents[axis], member.maps.device)
            for axis in (0, 1)
        )

    def at(self, k: int) -> Iterator[torch.Tensor]:
        """Yield (I, J) of each channel."""
        for values in _blend(self.ordered, self.positions[2][k]):
            yield self.rows @ values @ self.columns.T


def _summed(planes: Sequence[_Planes], k: int) -> Iterator[torch.Tensor]:
    for channels in zip(*(plane.at(k) for plane in planes), strict=True):
        total = channels[0]
        for other in channels[1:]:
            total = total + other.to(total.device)
        yield total


def _blend(ordered: torch.Tensor, position: float) -> torch.Tensor:
    last = ordered.shape[3] - 1
    position = min(max(position, 0.0), float(last))
    lower = min(int(position), max(last - 1, 0))
    weight = position - lower
    plane = ordered[..., lower].float()
    if weight > 0:
        plane = torch.lerp(plane, ordered[..., min(lower + 1, last)].float(), weight)
    return plane


def _largest(channels: Iterator[torch.Tensor]) -> torch.Tensor:
    """Return the number of the largest channel of each voxel; the first of equal ones wins."""
    best = next(channels).clone()
    labels = torch.zeros(best.shape, dtype=torch.int32, device=best.device)
    for index, values in enumerate(channels, start=1):
        labels[values > best] = index
        torch.maximum(best, values, out=best)
    return labels


def _painted(channels: Iterator[torch.Tensor], threshold: float) -> torch.Tensor:
    """Return 1 + the number of the last channel above a threshold, 0 where none is."""
    labels: torch.Tensor | None = None
    for index, values in enumerate(channels, start=1):
        if labels is None:
            labels = torch.zeros(values.shape, dtype=torch.int32, device=values.device)
        labels[values > threshold] = index
    if labels is None:
        msg = "class maps must have a channel, got none"
        raise ValueError(msg)
    return labels


def _inside(positions: npt.NDArray[np.float64], extent: int) -> npt.NDArray[np.bool_]:
    return np.asarray((positions >= -OUTSIDE_VOXELS) & (positions <= extent - 1 + OUTSIDE_VOXELS))


def _interpolation_matrix(
    positions: npt.NDArray[np.float64], extent: int, device: torch.device
) -> torch.Tensor:
    clamped = np.clip(positions, 0, extent - 1)
    lower = np.minimum(clamped.astype(int), max(extent - 2, 0))
    weight = clamped - lower
    matrix = np.zeros((len(positions), extent), np.float32)
    rows = np.arange(len(positions))
    matrix[rows, lower] = 1 - weight
    matrix[rows, np.minimum(lower + 1, extent - 1)] += weight
    return torch.from_numpy(matrix).to(device)
