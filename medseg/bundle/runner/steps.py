"""The preprocessing of an exported pipeline."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from medseg.bundle.runner.components import fill_holes
from medseg.bundle.runner.grid import (
    Array,
    Image,
    PipelineError,
    Step,
    cubic_matrix,
    linear_matrix,
    multiplied,
)

ANISOTROPY = 3.0
SAME_SPACING = 1e-3
PART = 1 << 20
"""Values that are summed together."""


def require_input(image: Image, rule: Step) -> None:
    """Refuse an image that the network is not meant for.

    Args:
        image: As it was read.
        rule: `input` of the pipeline.

    Raises:
        PipelineError: If channels or values are others.
    """
    channels = len(rule["channels"])
    if len(image.array) != channels:
        names = ", ".join(channel["name"] or "unnamed" for channel in rule["channels"])
        msg = f"image must have {channels} channels ({names}), got {len(image.array)}."
        raise PipelineError(msg)
    if not np.isfinite(image.array).all():
        msg = "voxels must be finite, got NaN or infinity."
        raise PipelineError(msg)
    hounsfield = rule["hounsfield"]
    if hounsfield is None:
        return
    low, high = float(image.array.min()), float(image.array.max())
    median = float(np.median(image.array[(slice(None), *(slice(None, None, 4),) * 3)]))
    too_thin = low < high < hounsfield["smallest_maximum"]
    if (low >= 0 and high > 0) or median > hounsfield["largest_median"] or too_thin:
        msg = f"image must hold Hounsfield units, got {low:g} to {high:g}, median {median:g}."
        raise PipelineError(msg)


def preprocessed(image: Image, steps: Sequence[Step]) -> Image:
    """Bring an image to the form and the grid that the network takes.

    Args:
        image: As it was read.
        steps: `preprocessing` of the pipeline.

    Returns:
        The image on the network's grid.
    """
    for step in steps:
        image = STEPS[step["step"]](image, step)
    return image


def orient(image: Image, step: Step) -> Image:
    """Exchange and turn round axes until they point to the directions of `axes`.

    Args:
        image: Of a volume.
        step: With `axes`, three letters.

    Returns:
        A view of it.
    """
    cosines = image.affine[:3, :3] / image.spacing
    left = np.abs(cosines)
    axis_of = {}
    for _ in range(3):  # the largest cosine is settled first
        world, axis = divmod(int(left.argmax()), 3)
        axis_of[world] = axis
        left[world, :] = left[:, axis] = -1
    array, turn = image.array, np.zeros((4, 4))
    turn[3, 3] = 1
    order, flips = [], []
    for letter in step["axes"]:
        world = next(i for i, pair in enumerate(("LR", "PA", "IS")) if letter in pair)
        order.append(axis_of[world])
        flips.append((cosines[world, axis_of[world]] > 0) != (letter in "RAS"))
    array = array.transpose(0, *(axis + 1 for axis in order))
    for new, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        turn[axis, new] = -1 if flip else 1
        turn[axis, 3] = image.shape[axis] - 1 if flip else 0
        array = np.flip(array, new + 1) if flip else array
    return Image(array, image.affine @ turn)


def crop_nonzero(image: Image, step: Step) -> Image:  # noqa: ARG001
    """Crop to the box of what is not zero in some channel; what is zero everywhere stays whole.

    Args:
        image: Of any grid.
        step: Without settings.

    Returns:
        A view of it.
    """
    box = nonzero_box(image.array)
    affine = image.affine.copy()
    affine[:-1, -1] += affine[:-1, :-1] @ [part.start for part in box]
    return Image(image.array[(slice(None), *box)], affine)


def nonzero_box(array: Array) -> tuple[slice, ...]:
    """Return the box of what is not zero in some channel of (C, *spatial), or all of it.

    Args:
        array: (C, *spatial).

    Returns:
        Voxels along each axis.
    """
    inside = (array != 0).any(axis=0)
    if not inside.any():
        return tuple(slice(0, extent) for extent in inside.shape)
    box = []
    for axis in range(inside.ndim):
        others = tuple(other for other in range(inside.ndim) if other != axis)
        found = np.flatnonzero(inside.any(axis=others))
        box.append(slice(int(found[0]), int(found[-1]) + 1))
    return tuple(box)


def clip(image: Image, step: Step) -> Image:
    """Clip to `low` and `high`; null is no limit.

    Args:
        image: (C, *spatial) with its affine.
        step: The step's entry in the pipeline.

    Returns:
        The image with its values clipped.
    """
    return replace(image, array=np.clip(image.array, step["low"], step["high"]))


def normalize(image: Image, step: Step) -> Image:
    """Normalise each channel by its own scheme of `channels`.

    Args:
        image: (C, *spatial) with its affine.
        step: The step's entry in the pipeline.

    Returns:
        The image with float32 values.
    """
    array = np.array(image.array, np.float32)
    schemes = step["channels"]
    box, mask = nonzero_box(array), None
    if any(scheme.get("where") == "nonzero_filled" for scheme in schemes):
        mask = fill_holes((array != 0).any(axis=0))
    for channel, scheme in zip(array, schemes, strict=True):
        NORMALIZATIONS[scheme["scheme"]](channel, scheme, box, mask)
    return replace(image, array=array)


def _window(channel: Array, scheme: Step, *_: Any) -> None:
    if scheme["low"] is not None:
        np.clip(channel, scheme["low"], scheme["high"], out=channel)
    channel -= np.float32(scheme["mean"])
    channel /= np.float32(scheme["std"])


def _zscore(channel: Array, scheme: Step, box: Any, mask: Array | None) -> None:
    filled = scheme["where"] == "nonzero_filled"
    mean, std = mean_and_std(channel[mask if filled else box])
    channel -= np.float32(mean)
    channel /= np.float32(std if std > scheme["smallest_std"] else 1.0)
    if mask is not None and filled:
        channel *= mask


def _rescale(channel: Array, scheme: Step, *_: Any) -> None:
    low, high = float(channel.min()), float(channel.max())
    first, last = scheme["to"]
    if low == high:
        channel *= np.float32(first)
        return
    channel -= np.float32(low)
    channel /= np.float32(high - low)
    channel *= np.float32(last - first)
    channel += np.float32(first)


def _leave(*_: Any) -> None:
    """Leave a channel as it is."""


def mean_and_std(values: Array) -> tuple[float, float]:
    """Return mean and standard deviation (of the population), summed in float64.

    Args:
        values: Of any shape.

    Returns:
        Both, of all values.
    """
    if not values.size:
        return 0.0, 1.0
    flat = values.reshape(-1)
    mean = float(flat.mean(dtype=np.float64))
    parts = (flat[first : first + PART] for first in range(0, flat.size, PART))
    squares = sum(float(np.square(part - mean, dtype=np.float64).sum()) for part in parts)
    return mean, math.sqrt(squares / flat.size)


def scale_range(image: Image, step: Step) -> Image:
    """Map `from` to `to` linearly, and clip to `to` where asked.

    Args:
        image: (C, *spatial) with its affine.
        step: The step's entry in the pipeline.

    Returns:
        The image with float32 values.
    """
    (low, high), (first, last) = step["from"], step["to"]
    array = (image.array - np.float32(low)) / np.float32(high - low)
    array = array * np.float32(last - first) + np.float32(first)
    return replace(image, array=np.clip(array, first, last) if step["clip"] else array)


def rescale(image: Image, step: Step) -> Image:
    """Map smallest and largest value to `to`, of each channel or of all together.

    Args:
        image: (C, *spatial) with its affine.
        step: The step's entry in the pipeline.

    Returns:
        The image with float32 values.
    """
    array = np.array(image.array, np.float32)
    for part in array if step["by_channel"] else [array]:
        _rescale(part, step)
    return replace(image, array=array)


def standardize(image: Image, step: Step) -> Image:
    """Shift and divide by mean and standard deviation, of each channel or of all together.

    Args:
        image: (C, *spatial) with its affine.
        step: The step's entry in the pipeline.

    Returns:
        The image with float32 values.
    """
    array = np.array(image.array, np.float32)
    for part in array if step["by_channel"] else [array]:
        inside = part != 0 if step["nonzero"] else np.ones(part.shape, bool)
        mean, std = mean_and_std(part[inside])
        part[inside] = (part[inside] - np.float32(mean)) / np.float32(std or 1.0)
    return replace(image, array=array)


def resample(image: Image, step: Step) -> Image:
    """Bring an image to another spacing; the faces of its first and last voxel stay in place.

    Args:
        image: (C, *spatial) with its affine.
        step: The step's entry in the pipeline.

    Returns:
        The image on the new grid, with its affine; mm.
    """
    own = [1.0] * len(image.shape) if step["unit"] == "px" else image.spacing
    wanted = [mine if new is None else new for mine, new in zip(own, step["spacing"], strict=True)]
    coarse = coarse_axis(own, wanted, step["coarse"])
    sizes, orders = list(image.shape), {}
    for axis, (extent, mine, new) in enumerate(zip(image.shape, own, wanted, strict=True)):
        # of the two ways to compute a size each is rounded in its own way; halves to the even
        exact = mine / new * extent if step["by_slice"] else extent * mine / new
        same = not step["by_slice"] and abs(mine / new - 1) <= SAME_SPACING
        if max(1, round(exact)) != extent and not same:
            sizes[axis] = max(1, round(exact))
            orders[axis] = step["coarse_order"] if axis == coarse else step["order"]
    by_slice = coarse if step["by_slice"] else None
    array = image.array
    if orders or by_slice is not None:
        array = np.stack([_resampled(one, sizes, orders, by_slice) for one in array])
    ratios = np.divide(image.shape, sizes)
    grow = np.diag([*ratios, 1.0])
    grow[:-1, -1] = 0.5 * ratios - 0.5
    return Image(array, image.affine @ grow)


def spacing(image: Image, step: Step) -> Image:
    """Bring an image to another spacing linearly, on the grid of MONAI's `Spacing`.

    Args:
        image: (C, *spatial) with its affine.
        step: The step's entry in the pipeline.

    Returns:
        The image on the new grid, with its affine; mm.
    """
    wanted = [
        mine if new is None or abs(mine - new) <= SAME_SPACING else new
        for mine, new in zip(image.spacing, step["spacing"], strict=True)
    ]
    sizes, affine = monai_grid(image, wanted)
    matrix = np.linalg.inv(image.affine) @ affine
    channels = list(image.array)
    for axis, (size, extent) in enumerate(zip(sizes, image.shape, strict=True)):
        places = (np.arange(size) * matrix[axis, axis] + matrix[axis, -1]).clip(0, extent - 1)
        if size != extent or np.abs(places - np.arange(extent)).max() > 0:
            taps = linear_matrix(extent, places)
            channels = [multiplied(taps, one, axis) for one in channels]
    return Image(np.stack(channels), affine)


def monai_grid(image: Image, wanted: Sequence[float]) -> tuple[list[int], Array]:
    """Return size and affine of a grid of another spacing, with the rounding of MONAI.

    Its first voxel lies on that of the image where the axes are perpendicular to 1e-8 voxels; else
    the two grids share their centre, at half of their number of voxels.
    """
    linear = image.affine[:-1, :-1]
    scales = np.linalg.cholesky(linear.T @ linear).T
    affine = np.eye(len(image.affine))
    turn = linear @ np.linalg.inv(scales)
    affine[:-1, :-1] = turn @ np.diag(np.sign(np.diag(scales)) * wanted)
    ends = [(0.0, extent - 1.0) for extent in image.shape]
    corners = np.asarray(np.meshgrid(*ends, indexing="ij")).reshape(len(ends), -1)
    corners = np.concatenate([corners, np.ones_like(corners[:1])])
    places = (np.linalg.solve(affine, image.affine) @ corners)[:-1]
    sizes = np.round(np.ptp(places, axis=1) + 1)
    half = np.asarray(image.shape) / 2
    affine[:-1, -1] = linear @ half + image.affine[:-1, -1] - affine[:-1, :-1] @ (sizes / 2)
    for number, corner in enumerate(corners.T):
        if np.allclose((places - places[:, number : number + 1]).min(axis=1), 0):
            affine[:-1, -1] = (image.affine @ corner)[:-1]
            break
    return [int(size) for size in sizes], affine


def coarse_axis(own: Sequence[float], wanted: Sequence[float], rule: str) -> int | None:
    """Return the axis that is interpolated by an order of its own, if there is one.

    Args:
        own: Spacing before, along each axis; mm.
        wanted: Spacing after; mm.
        rule: `anisotropic`, `coarsest` or `never`.

    Returns:
        The axis or None.
    """
    if rule == "never":
        return None
    if rule == "coarsest":
        coarsest = [axis for axis, one in enumerate(own) if one == max(own)]
        return coarsest[0] if len(coarsest) == 1 else None
    for spacing in (np.asarray(own), np.asarray(wanted)):
        coarsest = np.flatnonzero(np.isclose(spacing, spacing.max(), rtol=SAME_SPACING)).tolist()
        if spacing.max() / spacing.min() > ANISOTROPY and len(coarsest) == 1:
            return int(coarsest[0])
    return None


def _resampled(
    channel: Array, sizes: Sequence[int], orders: Mapping[int, int], by_slice: int | None
) -> Array:
    apart = [axis for axis in orders if axis == by_slice]
    within = sorted(
        (axis for axis in orders if axis not in apart),
        key=lambda axis: sizes[axis] / channel.shape[axis],
    )
    # splines stay in the range of the image, or of each slice that is interpolated on its own
    axes = tuple(axis for axis in range(channel.ndim) if axis != by_slice)
    low, high = channel.min(axes, keepdims=True), channel.max(axes, keepdims=True)
    nearest = np.rint if by_slice is None else _upper
    for axis in within:
        channel = _along(channel, axis, sizes[axis], orders[axis], nearest)
    if 3 in [orders[axis] for axis in within]:
        channel = np.clip(channel, low, high)
    for axis in apart:
        low, high = channel.min(), channel.max()
        channel = _along(channel, axis, sizes[axis], orders[axis], nearest)
        channel = np.clip(channel, low, high)
    return channel


def _along(
    channel: Array, axis: int, size: int, order: int, nearest: Callable[[Array], Array]
) -> Array:
    extent = channel.shape[axis]
    places = (np.arange(size) + 0.5) * (extent / size) - 0.5
    if order == 3:
        return multiplied(cubic_matrix(extent, places), channel, axis)
    inside = places.clip(0, extent - 1)
    if order == 1:
        return multiplied(linear_matrix(extent, inside), channel, axis)
    return np.take(channel, nearest(inside).astype(int), axis)


def _upper(places: Array) -> Array:
    """Return the nearest voxels, of two the upper."""
    return np.asarray(np.floor(places + 0.5))


NORMALIZATIONS = {"window": _window, "zscore": _zscore, "rescale": _rescale, "none": _leave}
STEPS = {
    "orient": orient,
    "crop_nonzero": crop_nonzero,
    "clip": clip,
    "normalize": normalize,
    "rescale": rescale,
    "scale_range": scale_range,
    "standardize": standardize,
    "resample": resample,
    "spacing": spacing,
}
