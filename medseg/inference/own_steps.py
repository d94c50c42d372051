"""From class maps to a mask by the bundle's own postprocessing."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialResample

from medseg.bundle import Bundle
from medseg.bundle.ending import Ending
from medseg.errors import BundleError, Problem
from medseg.geometry import Affine
from medseg.inference.preprocess import affine_of, turned
from medseg.volume import DEFAULT_COLORS, Label, Volume, mask_dtype

PRED = "pred"
SAME_GRID_MM = 1e-3
"""How far the entries of two affines of one grid may be apart; mm."""


@dataclass(frozen=True)
class OwnMask:
    """A mask that a bundle's own steps made.

    Attributes:
        array: Values of the mask, of the shape of the volume; uint8 up to 255, else uint16.
        numbered: The steps made one mask of several regions, by numbers of their own: what
            `channel_def` names are the regions, and not these.
    """

    array: npt.NDArray[Any]
    numbered: bool = False


def own_mask(
    ending: Ending, image: MetaTensor, maps: torch.Tensor, volume: Volume, bundle: Bundle
) -> OwnMask:
    """Run a bundle's own steps and bring what they give to the grid of the volume.

    Args:
        ending: The bundle's steps.
        image: (C, *network) that the network was given, with the steps that led to it.
        maps: (C, *network) what the network returned.
        volume: The image as it was read.
        bundle: The bundle.

    Returns:
        The mask. Of several regions the smaller is painted over the larger.

    Raises:
        BundleError: If a step fails or gives something else than a mask (`bad-postprocessing`).
    """
    pred = MetaTensor(maps.float(), meta=dict(image.meta))
    marks: Any = pred
    marks.applied_operations = list(image.applied_operations)
    data: dict[str, Any] = {"image": image, PRED: pred}
    for step in ending.steps:
        try:
            with warnings.catch_warnings():  # MONAI's own deprecations are not the user's concern
                warnings.simplefilter("ignore", FutureWarning)
                data = step(data)
        except Exception as error:  # a step can raise anything
            cause = error.__cause__ or error
            msg = (
                f"postprocessing of {bundle.name} must run on its own output, got"
                f" {type(cause).__name__} of {type(step).__name__}: {cause}"
            )
            raise BundleError(msg.splitlines()[0], code="bad-postprocessing") from error
    on_source = _on_source(data[PRED], volume)
    values = _values(on_source, bundle)
    numbered = bundle.regions and len(on_source) == 1 < len(bundle.values)
    return OwnMask(np.ascontiguousarray(values.T if volume.is_2d else values), numbered)


def labels_of(mask: OwnMask, bundle: Bundle) -> tuple[tuple[Label, ...], tuple[Problem, ...]]:
    """Return the table of labels of a mask that a bundle's own steps made.

    Args:
        mask: The mask.
        bundle: The bundle.

    Returns:
        Labels of the bundle, and for each value that they do not name one called by its number;
        and a warning `unnamed-values`, or nothing.
    """
    named = () if mask.numbered else bundle.labels
    known = {0, *(label.index for label in named)}
    others = sorted({int(value) for value in np.unique(mask.array)} - known)
    if not others:
        return named or bundle.labels, ()
    further = (
        Label(value, f"value {value}", DEFAULT_COLORS[(value - 1) % len(DEFAULT_COLORS)])
        for value in others
    )
    text = ", ".join(map(str, others[:10]))
    message = f"the bundle's postprocessing gives values that its channel_def does not name: {text}"
    return (*named, *further), (Problem("unnamed-values", message, "warning"),)


def _on_source(pred: Any, volume: Volume) -> torch.Tensor:
    """Return what the steps gave on the grid of the volume; nearest, as MONAI writes its files."""
    source = turned(volume) if volume.is_2d else volume
    tensor = pred if isinstance(pred, MetaTensor) else MetaTensor(torch.as_tensor(pred))
    if tuple(tensor.shape[1:]) == source.shape and _same(affine_of(tensor), source.affine):
        own: torch.Tensor = tensor.as_tensor()
        return own
    affine = np.eye(4)
    dims = len(source.shape)
    affine[:dims, :dims], affine[:dims, 3] = source.affine[:-1, :-1], source.affine[:-1, -1]
    resample = SpatialResample(mode="nearest", padding_mode="border", dtype=torch.float64)
    moved = resample(tensor, dst_affine=torch.from_numpy(affine), spatial_size=source.shape)
    result: torch.Tensor = moved.as_tensor()
    return result


def _same(affine: Affine, other: Affine) -> bool:
    return bool(np.allclose(affine, other, rtol=0, atol=SAME_GRID_MM))


def _values(pred: torch.Tensor, bundle: Bundle) -> npt.NDArray[Any]:
    array = pred.cpu().numpy()
    channels = len(bundle.values)
    if len(array) == 1 and not (bundle.regions and channels == 1):
        return _as_values(array[0], bundle)
    if len(array) != channels:
        msg = (
            f"postprocessing of {bundle.name} must give one channel or {channels}, got"
            f" {len(array)}. Run it with python -m monai.bundle run."
        )
        raise BundleError(msg, code="bad-postprocessing")
    if not bundle.regions:
        values = np.asarray(bundle.values, mask_dtype(max(bundle.values)))
        return np.asarray(values[array.argmax(axis=0)])
    return _painted(array > 0.5, bundle.values)


def _as_values(array: npt.NDArray[Any], bundle: Bundle) -> npt.NDArray[Any]:
    rounded = np.rint(array)
    if not np.array_equal(rounded, array) or rounded.min(initial=0) < 0 or rounded.max() > 65535:
        msg = (
            f"postprocessing of {bundle.name} must give whole numbers from 0 to 65535, got values"
            f" from {array.min():g} to {array.max():g}. Run it with python -m monai.bundle run."
        )
        raise BundleError(msg, code="bad-postprocessing")
    values: npt.NDArray[Any] = rounded.astype(mask_dtype(int(rounded.max())))
    return values


def _painted(regions: npt.NDArray[np.bool_], values: Sequence[int]) -> npt.NDArray[Any]:
    """Paint regions into one mask, the largest first, so that what lies within it stays visible."""
    result = np.zeros(regions.shape[1:], mask_dtype(max(values)))
    sizes = [int(np.count_nonzero(region)) for region in regions]
    for channel in sorted(range(len(values)), key=lambda channel: -sizes[channel]):
        result[regions[channel]] = values[channel]
    return result
