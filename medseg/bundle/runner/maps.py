"""From the windows of an exported network to a mask on the grid of the file."""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from medseg.bundle.runner.components import largest_component
from medseg.bundle.runner.grid import (
    Array,
    Image,
    Network,
    PipelineError,
    Step,
    linear_matrix,
    multiplied,
)
from medseg.bundle.runner.steps import coarse_axis, preprocessed, require_input

SLAB_VALUES = 1 << 24
"""Values of class maps on the grid of the file that are held at once."""

HALF_RANGE = 60000.0
"""What sums in float16 are kept within; the type ends at 65504."""

ROUNDING = 1e-5
"""What rounding of affines may do to a position; voxels."""


def segment(image: Image, pipeline: Step, networks: Sequence[Network]) -> Array:
    """Segment an image.

    Args:
        image: As it was read.
        pipeline: The document.
        networks: Each maps (1, C, *window) to (1, classes, *window); float32.

    Returns:
        Values of the mask, of the shape of the image; uint8 or uint16.

    Raises:
        PipelineError: If the image does not fit the pipeline, or a network its statement.
    """
    require_input(image, pipeline["input"])
    prepared = preprocessed(image, pipeline["preprocessing"])
    maps = class_maps(prepared.array, pipeline, networks)
    mask = restored(maps, prepared, image, pipeline)
    return postprocessed(mask, pipeline["postprocessing"])


def postprocessed(mask: Array, steps: Sequence[Step]) -> Array:
    """Keep the largest part of what the values of each step make up; changes the mask.

    Args:
        mask: (*spatial) values.
        steps: `postprocessing` of the pipeline.

    Returns:
        The same mask.
    """
    for step in steps:
        inside = np.isin(mask, step["values"])
        mask[inside & ~largest_component(inside)] = 0
    return mask


def class_maps(array: Array, pipeline: Step, networks: Sequence[Network]) -> Array:
    """Return what the networks say of an image.

    Args:
        array: (C, *network) on the network's grid.
        pipeline: The document.
        networks: One, or several that are averaged.

    Returns:
        (classes, *network) logits, or probabilities where the pipeline asks for them; float32.

    Raises:
        PipelineError: If a network returns other maps than one a class, or what is not finite.
    """
    total: Any = None
    for network in networks:
        maps = stitched(array, network, pipeline["window"])
        if len(maps) != len(pipeline["decision"]["values"]) or not np.isfinite(maps.sum()):
            msg = (
                f"network must return {len(pipeline['decision']['values'])} finite maps, got"
                f" {len(maps)} from {maps.min():g} to {maps.max():g}."
            )
            raise PipelineError(msg)
        if pipeline["maps"] == "probabilities":
            for plane in range(maps.shape[1]):
                maps[:, plane] = probabilities(maps[:, plane], pipeline["activation"])
        if total is None:
            total = maps
        else:
            total += maps
    total /= len(networks)
    return np.asarray(total)


def probabilities(maps: Array, activation: str) -> Array:
    """Return softmax over the first axis, or sigmoid.

    Args:
        maps: (classes, *spatial) logits.
        activation: `softmax` or `sigmoid`.

    Returns:
        (classes, *spatial), 0 to 1.
    """
    if activation == "sigmoid":
        return np.asarray(0.5 * (np.tanh(0.5 * maps) + 1))
    shares = np.exp(maps - maps.max(axis=0))
    return np.asarray(shares / shares.sum(axis=0))


def stitched(array: Array, network: Network, window: Step) -> Array:
    """Run a network on all windows of an image and average them by their weights.

    Args:
        array: (C, *network).
        network: Takes (1, C, *window).
        window: `window` of the pipeline.

    Returns:
        (classes, *network); float32.
    """
    shape = array.shape[1:]
    size = [whole if one is None else one for one, whole in zip(window["size"], shape, strict=True)]
    pads = [max(one - whole, 0) for one, whole in zip(size, shape, strict=True)]
    before = [pad // 2 for pad in pads]
    padded = _padded(array, before, pads, window["padding"])
    weights = window_weights(size, window["weights"])
    starts = [[*along] for along in window_starts(padded.shape[1:], size, window)]
    half = window["sums"] == "float16"
    largest = _largest_of_half(starts, size, weights) if half else math.inf
    sums: Any = None
    total = np.zeros(padded.shape[1:], window["sums"])
    known: tuple[list[float], Array] | None = None
    for place in product(*starts):
        box = tuple(slice(low, low + one) for low, one in zip(place, size, strict=True))
        part = np.ascontiguousarray(padded[(slice(None), *box)])
        value = _single_value(part)
        if value is None or known is None or known[0] != value:
            maps = network(part[None])[0]
            known = (value, maps) if value is not None else known
        else:
            maps = known[1]
        if sums is None:
            sums = np.zeros((len(maps), *padded.shape[1:]), window["sums"])
        sums[(slice(None), *box)] += maps.clip(-largest, largest) * weights
        total[box] += weights
    inner = tuple(slice(low, low + whole) for low, whole in zip(before, shape, strict=True))
    sums /= total
    return np.asarray(sums[(slice(None), *inner)], np.float32)


def _largest_of_half(starts: Sequence[Sequence[int]], size: Sequence[int], weights: Array) -> float:
    """Return what class maps are kept within, so that no sum of them leaves float16."""
    most = 1
    for along, one in zip(starts, size, strict=True):
        most *= max(sum(low <= place < low + one for low in along) for place in along)
    return HALF_RANGE / most / max(1.0, float(weights.max()))


def _padded(array: Array, before: Sequence[int], pads: Sequence[int], rule: Step) -> Array:
    if not any(pads):
        return array
    amounts = [(0, 0), *((low, pad - low) for low, pad in zip(before, pads, strict=True))]
    if rule["mode"] == "constant":
        return np.pad(array, amounts, constant_values=rule["value"])
    names: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    return np.pad(array, amounts, mode=names[rule["mode"]])


def _single_value(part: Array) -> list[float] | None:
    """Return the value of each channel of a window if each has but one."""
    first = part.reshape(len(part), -1)[:, :1]
    return None if (part.reshape(len(part), -1) != first).any() else first[:, 0].tolist()


def window_starts(
    shape: Sequence[int], size: Sequence[int], window: Step
) -> Iterator[tuple[int, ...]]:
    """Yield the first voxels of the windows along each axis.

    Args:
        shape: Of the padded image; voxels.
        size: Of a window; voxels.
        window: With `overlap` and `placement`.

    Yields:
        Ascending first voxels.
    """
    for extent, one, overlap in zip(shape, size, window["overlap"], strict=True):
        room = extent - one
        if window["placement"] == "even":
            steps = math.ceil(room / (one * (1 - overlap)))
            yield tuple(sorted({*(round(room / steps * n) for n in range(steps)), room}))
        else:
            step = one if not room else max(1, int(one * (1 - overlap)))
            yield tuple(min(n * step, room) for n in range(math.ceil(room / step) + 1))


def window_weights(size: Sequence[int], rule: Step) -> Array:
    """Return what each voxel of a window counts.

    Args:
        size: Of a window; voxels.
        rule: `weights` of the window.

    Returns:
        (*size) float32.
    """
    weights = np.ones(tuple(size), np.float64)
    if rule["kind"] == "constant":
        return weights.astype(np.float32)
    for axis, (extent, share) in enumerate(zip(size, rule["sigma_scale"], strict=True)):
        sigma = share * extent
        centre = extent // 2 if rule["centre"] == "voxel" else (extent - 1) / 2
        away = np.abs(np.arange(extent) - centre)
        bell = np.exp(-0.5 * (away / sigma) ** 2)
        if rule["cut"] is not None:
            bell[away > int(rule["cut"] * sigma + 0.5)] = 0
        shape = [1] * len(size)
        shape[axis] = extent
        weights *= bell.reshape(shape)
    if rule["half"] is not None:  # scaled, rounded to float16, and nowhere 0
        weights = (weights * rule["half"]).astype(np.float16).astype(np.float32)
        return np.asarray(np.where(weights > 0, weights, weights[weights > 0].min()))
    return np.asarray(np.maximum(weights, max(weights.min(), rule["least"])), np.float32)


def restored(maps: Array, prepared: Image, source: Image, pipeline: Step) -> Array:
    """Interpolate class maps to the grid of the file, a few planes at a time, and decide.

    Args:
        maps: (classes, *network).
        prepared: Its affine is that of the network's grid.
        source: Its grid is that of the mask.
        pipeline: The document.

    Returns:
        Values of the mask, of the shape of the source; uint8 or uint16.
    """
    axes, places = source_places(prepared, source, pipeline["restoring"])
    outside_by = pipeline["restoring"]["outside_voxels"]
    extents = [prepared.shape[axis] for axis in axes]
    inside = [
        (p >= -outside_by) & (p <= extent - 1 + outside_by)
        for p, extent in zip(places, extents, strict=True)
    ]
    clamped = [p.clip(0, extent - 1) for p, extent in zip(places, extents, strict=True)]
    turned = maps.transpose(0, *(axis + 1 for axis in axes))
    mask = np.zeros(source.shape, np.dtype(pipeline["mask"]["dtype"]))
    step = max(1, SLAB_VALUES // (len(maps) * math.prod(source.shape[:-1])))
    for start in range(0, source.shape[-1], step):
        part = clamped[-1][start : start + step]
        low, high = int(part.min()), math.ceil(part.max()) + 1
        slab = multiplied(
            linear_matrix(high - low, part - low), turned[..., low:high], maps.ndim - 1
        )
        for axis in reversed(range(len(axes) - 1)):
            slab = multiplied(linear_matrix(extents[axis], clamped[axis]), slab, axis + 1)
        slab = slab.astype(pipeline["restoring"]["values"])
        mask[..., start : start + step] = decided(slab, pipeline["decision"])
    for axis, flags in enumerate(inside):
        mask[(*(slice(None),) * axis, ~flags)] = 0
    return mask


def decided(maps: Array, rule: Step) -> Array:
    """Return values of a mask: of the largest map, or of the last region above the threshold.

    Args:
        maps: (classes, *spatial).
        rule: `decision` of the pipeline.

    Returns:
        (*spatial) values.
    """
    if rule["rule"] == "largest":
        return np.asarray(np.asarray(rule["values"])[maps.argmax(axis=0)])
    mask = np.zeros(maps.shape[1:], np.uint16)
    for one, value in zip(maps, rule["values"], strict=True):
        mask[one > rule["threshold"]] = value
    return mask


def source_places(prepared: Image, source: Image, rule: Step) -> tuple[list[int], list[Array]]:
    """Return where source voxels lie on the network's grid.

    Args:
        prepared: On the network's grid.
        source: As it was read.
        rule: `restoring` of the pipeline.

    Returns:
        Of each source axis the network's axis, and the positions of its voxels on it.
    """
    matrix = np.linalg.inv(prepared.affine) @ source.affine
    linear, offset = matrix[:-1, :-1], matrix[:-1, -1]
    axes = [int(axis) for axis in np.abs(linear).argmax(axis=0)]
    stray = linear.copy()
    stray[axes, range(len(axes))] = 0
    offset = offset + stray @ ((np.array(source.shape) - 1) / 2)
    places = [linear[a, i] * np.arange(source.shape[i]) + offset[a] for i, a in enumerate(axes)]
    if not rule["cropped"]:
        return axes, places
    own = [prepared.spacing[axis] for axis in axes]
    coarse = coarse_axis(own, source.spacing, rule["coarse"])
    for i, axis in enumerate(axes):
        extent, exact = prepared.shape[axis], places[i]
        if i == coarse:
            places[i] = np.floor(exact + 0.5 + ROUNDING).clip(0, extent - 1)
        places[i] = np.where(exact < -0.5 - ROUNDING, exact - 1, places[i])
        places[i] = np.where(exact > extent - 0.5 + ROUNDING, exact + 1, places[i])
    return axes, places
