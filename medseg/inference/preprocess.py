"""A volume as the network of a bundle takes it."""

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import (
    EnsureChannelFirst,
    EnsureChannelFirstd,
    LoadImage,
    LoadImaged,
    MapTransform,
    Orientationd,
)

from medseg.bundle.build import InferenceParts
from medseg.data.limits import give_back_freed_memory
from medseg.errors import InputError
from medseg.io.hounsfield import AIR_HU
from medseg.transforms import (
    CropNonzerod,
    NnunetResampled,
    NormalizeChannelsd,
    Resampled,
    metatensor,
)
from medseg.transforms.interpolate import Scale
from medseg.volume import Volume, reoriented

DONE = (LoadImage, LoadImaged, EnsureChannelFirst, EnsureChannelFirstd)
"""Steps that the reader has done: it reads the file, and puts the channels first."""

MOST_RESCALED = 16.0
"""Times that a picture may be made larger or smaller for a network."""

AS_STORED = {
    np.dtype(np.int16): torch.int16,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.float32): torch.float32,
}
"""Types of volumes that torch works with."""

LARGE_PICTURE_BYTES = 2**26
"""Of a picture from which on what its preprocessing freed is given back."""


def _require_comparable_pixels(volume: Volume, parts: InferenceParts) -> None:
    """Refuse a picture whose stated pixel size is of another order than the network's."""
    if not volume.is_2d or not volume.source.has_spacing:
        return
    for step in parts.preprocessing:
        if not isinstance(step, Resampled) or "image" not in step.resamplers:
            continue
        resampler = step.resamplers["image"]
        if resampler.in_pixels:
            continue
        wanted = resampler.spacing
        ratios = [own / new for own, new in zip(volume.spacing_mm, wanted, strict=False)]
        if max(*ratios, *(1 / ratio for ratio in ratios)) > MOST_RESCALED:
            own, new = (
                " x ".join(f"{value:.4g}" for value in s) for s in (volume.spacing_mm, wanted)
            )
            msg = (
                f"pixel size must be within {MOST_RESCALED:g} times that of the network, {new} mm,"
                f" got {own} mm. Correct the scale that the file states, or train on such images."
            )
            raise InputError(msg, code="pixel-size-differs")


def preprocessed(volume: Volume, parts: InferenceParts, *, is_ct: bool = False) -> MetaTensor:
    """Return a volume as the network of a bundle takes it.

    Args:
        volume: Not changed.
        parts: Of the bundle.
        is_ct: It holds Hounsfield units; padding under -1024 becomes air.

    Returns:
        (C, *spatial) on the network's grid, with its affine.

    Raises:
        InputError: If a picture's pixel size is of another order (`pixel-size-differs`).
    """
    _require_comparable_pixels(volume, parts)
    oriented = _as_its_steps_want(volume, parts)
    steps = [transform for transform in parts.preprocessing if not isinstance(transform, DONE)]
    scaling = _scaling(steps, oriented, is_ct=is_ct)
    data: dict[Hashable, Any] = {
        "image": _image(oriented, is_ct=is_ct, as_stored=scaling is not None)
    }
    with warnings.catch_warnings():  # MONAI's own deprecations are not the user's concern
        warnings.simplefilter("ignore", FutureWarning)
        for transform in steps:
            if isinstance(transform, NormalizeChannelsd):
                transform.copy = False
            if scaling is not None and transform is scaling.step:
                continue
            if scaling is not None and transform is scaling.resampling:
                data = scaling.resampling.after(scaling.scale, data)
            else:
                data = cast("Any", transform)(data)
            if volume.is_2d and data["image"].nbytes > LARGE_PICTURE_BYTES:
                give_back_freed_memory()  # the network wants little of it, tile by tile
    result: MetaTensor = data["image"]
    return result


def _image(volume: Volume, *, is_ct: bool, as_stored: bool) -> MetaTensor:
    """Return an image that can be changed in place; or one in its own type, that must not be."""
    if as_stored:
        return metatensor(volume, AS_STORED[volume.array.dtype])
    image = metatensor(volume)
    if np.may_share_memory(image.numpy(), volume.array):
        image = image.clone()  # what follows works in place
    if is_ct:
        image.as_tensor().clamp_(min=AIR_HU)
    return image


@dataclass(frozen=True)
class _Scaling:
    """A step that scales values in passing, as the next one resamples the volume."""

    step: NormalizeChannelsd
    resampling: Resampled | NnunetResampled
    scale: Scale


def _scaling(steps: Sequence[Any], volume: Volume, *, is_ct: bool) -> _Scaling | None:
    """Return it where there is such a step and values can be scaled one by one.

    A float32 copy of a CT takes twice as much memory as it does, and none is needed.
    """
    for step, following in pairwise(steps):
        if isinstance(step, NormalizeChannelsd):
            if not isinstance(following, Resampled | NnunetResampled) or volume.is_2d:
                return None
            scale = step.pointwise()
            fits = len(step.schemes) in (1, volume.channels) and volume.array.dtype in AS_STORED
            if scale is None or not fits:
                return None
            return _Scaling(step, following, _from_air(scale) if is_ct else scale)
        if not isinstance(step, Orientationd | CropNonzerod):
            return None
    return None


def _from_air(scale: Scale) -> Scale:
    return lambda channel, values: scale(channel, values.clamp(min=AIR_HU))


def affine_of(image: MetaTensor) -> npt.NDArray[np.float64]:
    """Return the affine of an image in as many dimensions as it has; MONAI's are of 3D.

    Args:
        image: (C, *spatial).
    """
    dims = image.ndim - 1
    affine = np.asarray(image.affine, np.float64)
    return affine[np.ix_([*range(dims), -1], [*range(dims), -1])]


def turned(volume: Volume) -> Volume:
    """Return a picture with its columns first, as MONAI's own readers give them.

    Args:
        volume: (C, rows, columns).

    Returns:
        (C, columns, rows) view of it, with the affine to go with it.
    """
    affine = volume.affine[:, [1, 0, 2]]
    return replace(volume, array=volume.array.swapaxes(1, 2), affine=affine)


def _as_its_steps_want(volume: Volume, parts: InferenceParts) -> Volume:
    if parts.foreign and volume.is_2d:
        return turned(volume)
    if parts.ending is not None and parts.ending.steps:
        return volume  # its own steps undo all that was done to the image
    return _oriented(volume, parts.preprocessing)


def _oriented(volume: Volume, preprocessing: Sequence[Any]) -> Volume:
    """Turn a volume as the first transforms of a bundle would; a view of it, nothing is copied."""
    for transform in preprocessing:
        if isinstance(transform, MapTransform) and "image" not in transform.keys:
            continue
        if isinstance(transform, Orientationd):
            own = transform.ornt_transform
            if volume.is_2d or own.axcodes is None or own.labels is not None:
                return volume
            return reoriented(volume, "".join(own.axcodes))
        if not isinstance(transform, DONE):
            return volume
    return volume
