"""Interpolation along the axes of a tensor: a matrix an axis, plane by plane where that can be."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from medseg.transforms.axis_matrix import Band, axis_bands, nearest_voxels

FEWEST_COLUMNS = 32
"""With fewer values a plane, planes are multiplied together and not one by one."""

COLUMNS_AT_ONCE = 16
"""Rows of planes that are made float32 together where the slowest axis goes first."""

Scale = Callable[[int, torch.Tensor], torch.Tensor]
"""Channel and some of its values, in any type, to new float32 values."""


@dataclass(frozen=True)
class AxisStep:
    """How one axis goes from one size to another.

    Attributes:
        axis: Spatial axis.
        size: Voxels wanted.
        order: Of the spline: 0, 1 or 3.
    """

    axis: int
    size: int
    order: int


def interpolated(
    tensor: torch.Tensor, steps: Sequence[AxisStep], scale: Scale | None = None
) -> torch.Tensor:
    """Resample (C, *spatial), the axis that shrinks most first.

    Args:
        tensor: (C, *spatial).
        steps: An axis each.
        scale: What is done to the values before, where `goes_by_planes`; nothing when None.

    Returns:
        (C, *spatial) of the sizes that the steps ask for.
    """
    if tensor.ndim == 3 and len(tensor) > 1:  # of pictures: what lies between two axes is large
        pictures = iter(tensor)
        first = interpolated(next(pictures)[None], steps)
        result = first.new_empty((len(tensor), *first.shape[1:]))
        result[:1] = first
        del first
        for place, picture in enumerate(pictures, start=1):
            result[place : place + 1] = interpolated(picture[None], steps)
        return result
    if goes_by_planes(tensor, steps):
        images = [_by_planes(n, image, steps, scale) for n, image in enumerate(tensor)]
        return (images[0][None] if len(images) == 1 else torch.stack(images)).contiguous()
    ratios = {step.axis: step.size / tensor.shape[step.axis + 1] for step in steps}
    for step in sorted(steps, key=lambda step: ratios[step.axis]):
        axis, old = step.axis + 1, tensor.shape[step.axis + 1]
        if step.order == 0:
            nearest = nearest_voxels(old, step.size).to(tensor.device)
            tensor = tensor.index_select(axis, nearest)
        else:
            tensor = along(_bands(old, step, tensor.device), tensor, axis)
    return tensor.contiguous()


def goes_by_planes(tensor: torch.Tensor, steps: Sequence[AxisStep]) -> bool:
    """Return whether an image is resampled plane by plane, whatever its type.

    Args:
        tensor: (C, *spatial).
        steps: What is to be done.
    """
    return len(steps) == tensor.ndim - 1 == 3 and all(step.order for step in steps)


class _Range:
    """Makes values float32, scales them, and remembers the smallest and the largest."""

    def __init__(self, channel: int, scale: Scale | None) -> None:
        self.channel = channel
        self.scale = scale
        self.low, self.high = math.inf, -math.inf

    def taken(self, values: torch.Tensor) -> torch.Tensor:
        values = values.float() if self.scale is None else self.scale(self.channel, values)
        low, high = torch.aminmax(values)
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        return values


def _by_planes(
    channel: int, image: torch.Tensor, steps: Sequence[AxisStep], scale: Scale | None
) -> torch.Tensor:
    """Resample (I, J, K) along all axes: two of them plane by plane, which a cache holds.

    What splines give is clipped to the range of the image.
    """
    order, physical = in_memory_order(image)
    sizes = {step.axis: step.size for step in steps}
    bands = {step.axis: _bands(image.shape[step.axis], step, image.device) for step in steps}
    ratios = [sizes[axis] / image.shape[axis] for axis in order]
    outer, *inner = order
    seen = _Range(channel, scale)
    first = ratios[0] < ratios[1] * ratios[2]
    if first:
        physical = _outer_axis(bands[outer], physical, seen)
    shape = (len(physical), *(sizes[axis] for axis in inner))
    planes = physical.new_empty(shape, dtype=torch.float32)
    shrinking = sorted((0, 1), key=lambda place: ratios[place + 1])
    for target, plane in zip(planes, physical, strict=True):
        values = plane if first else seen.taken(plane)
        for place in shrinking:
            values = _multiplied(bands[inner[place]], values, place)
        target.copy_(values)
    if not first:
        planes = along(bands[outer], planes, 0)
    if any(step.order == 3 for step in steps):
        planes.clamp_(seen.low, seen.high)
    return planes.permute(sorted(range(len(order)), key=order.__getitem__))


def _outer_axis(bands: Sequence[Band], physical: torch.Tensor, seen: _Range) -> torch.Tensor:
    """Multiply along the first axis, some rows of all planes at a time."""
    size = bands[-1].rows.stop if bands else 0
    result = physical.new_empty((size, *physical.shape[1:]), dtype=torch.float32)
    for row in range(0, physical.shape[1], COLUMNS_AT_ONCE):
        rows = slice(row, row + COLUMNS_AT_ONCE)
        values = seen.taken(physical[:, rows]).contiguous()
        result[:, rows] = _multiplied(bands, values, 0)
    return result


def in_memory_order(tensor: torch.Tensor) -> tuple[list[int], torch.Tensor]:
    """Return the axes from the one that runs slowest on, and a tensor of them without gaps.

    Args:
        tensor: Any.

    Returns:
        The axes, and the tensor with its axes in that order.
    """
    strides = tensor.stride()
    order = sorted(range(tensor.ndim), key=lambda axis: -strides[axis])
    return order, tensor.permute(order).contiguous()


def _bands(old: int, step: AxisStep, device: torch.device) -> Sequence[Band]:
    bands = axis_bands(old, step.size, step.order)
    if device.type == "cpu":
        return bands
    return [band._replace(weights=band.weights.to(device)) for band in bands]


def along(bands: Sequence[Band], tensor: torch.Tensor, axis: int) -> torch.Tensor:
    """Multiply along an axis; the result lies in memory as the tensor does, nothing is copied.

    Args:
        bands: Of the matrix, as `axis_bands` gives them.
        tensor: Any.
        axis: Of the tensor.

    Returns:
        The product, float32.
    """
    order, physical = in_memory_order(tensor.float())
    product = _multiplied(bands, physical, order.index(axis))
    return product.permute(sorted(range(len(order)), key=order.__getitem__))


def _multiplied(bands: Sequence[Band], tensor: torch.Tensor, axis: int) -> torch.Tensor:
    shape = list(tensor.shape)
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    flat = tensor.view(before, shape[axis], after)
    shape[axis] = bands[-1].rows.stop if bands else 0
    product = flat.new_empty((before, shape[axis], after))
    for rows, columns, weights in bands if after < FEWEST_COLUMNS else ():
        if after == 1:
            torch.mm(flat[:, columns, 0], weights.T, out=product[:, rows, 0])
        else:
            torch.matmul(weights, flat[:, columns], out=product[:, rows])
    for number in range(before if after >= FEWEST_COLUMNS else 0):
        for rows, columns, weights in bands:
            torch.mm(weights, flat[number, columns], out=product[number, rows])
    return product.view(shape)
