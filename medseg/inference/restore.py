"""From class maps on the network's grid to an integer mask on the source grid.

The two grids differ by what preprocessing did: axes reordered and flipped, spacing changed, a
margin cropped or padded. All of that keeps the axes parallel, so the class maps are interpolated
one axis at a time, one slice of the source at a time, and a running maximum over the classes
gives the mask: class maps never exist on the source grid.
"""

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
    network_shape = tuple(class_maps.shape[1:])
    maps = axis_maps(source_shape, source_affine, network_shape, network_affine)
    ordered = class_maps.permute(0, *(m.axis + 1 for m in maps))
    extents = ordered.shape[1:]
    operators = [
        _interpolation_matrix(m.positions, extent, class_maps.device)
        for m, extent in zip(maps, extents, strict=True)
    ]
    inside = [_inside(m.positions, extent) for m, extent in zip(maps, extents, strict=True)]
    mask = np.zeros(source_shape, mask_dtype(len(class_maps) - 1), order="F")
    plane_outside = ~np.logical_and.outer(inside[0], inside[1])
    for k in np.flatnonzero(inside[2]):
        plane = _blend(ordered, maps[2].positions[k])
        labels = _largest_class(plane, operators[0], operators[1]).cpu().numpy()
        labels[plane_outside] = 0
        mask[:, :, k] = labels
    return mask


def _blend(ordered: torch.Tensor, position: float) -> torch.Tensor:
    last = ordered.shape[3] - 1
    position = min(max(position, 0.0), float(last))
    lower = min(int(position), max(last - 1, 0))
    weight = position - lower
    plane = ordered[..., lower].float()
    if weight > 0:
        plane = torch.lerp(plane, ordered[..., min(lower + 1, last)].float(), weight)
    return plane


def _largest_class(plane: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Return (I, J) class indices of a (C, i, j) plane; the first of equal classes wins."""
    best: torch.Tensor | None = None
    labels = torch.zeros((rows.shape[0], columns.shape[0]), dtype=torch.int32, device=plane.device)
    for index, values in enumerate(plane):
        full = rows @ values @ columns.T
        if best is None:
            best = full
            continue
        better = full > best
        labels[better] = index
        torch.maximum(best, full, out=best)
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
