"""Images and labels at another spacing, one axis at a time."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.transforms.traits import ThreadUnsafe
from monai.utils import MetaKeys

from medseg.errors import GeometryError, InputError, UsageError
from medseg.geometry import SAME_GRID_TOLERANCE_VOXELS, grid_difference_voxels
from medseg.transforms.axis_matrix import axis_matrix, bands_of
from medseg.transforms.interpolate import (
    AxisStep,
    Scale,
    along,
    goes_by_planes,
    in_memory_order,
    interpolated,
)

ANISOTROPY = 3.0
"""Ratio of spacings above which the coarse axis is interpolated apart. Source: nnU-Net."""
SAME_SPACING = 1e-3
"""Relative difference below which a spacing counts as the one wanted."""

ORDERS = (0, 1, 3)

STATES_SPACING = "states_spacing"
"""Key of the metadata that says whether a file states the size of its pixels."""


class Resample(InvertibleTransform, ThreadUnsafe):  # type: ignore[misc]  # monai is untyped
    """Bring a tensor to a spacing along its own axes, keeping the field of view.

    The outer faces of the first and the last voxel stay where they are, as in nnU-Net and
    `skimage.transform.resize`: an axis of n voxels gets round(n * spacing / wanted), and the
    affine states the spacing that results. Splines of order 3 are those of
    `scipy.ndimage.zoom(mode="nearest", grid_mode=True)`, clipped to the range of the input; each
    axis is one matrix, so that they cost hardly more than linear interpolation. Nothing is
    smoothed before it is made coarser.

    Where one axis is over three times coarser than the finest, before or after, it is
    interpolated with an order of its own.

    Args:
        spacing_mm: Spacing wanted along each axis; mm.
        order: 0 (nearest), 1 (linear) or 3 (cubic).
        coarse_order: Order along a coarse axis.
        labels: Values are labels, never mixed: order 1 interpolates each label's mask linearly and
            takes the largest; of several channels each is a mask of 0 and 1.
        spacing_px: Instead of `spacing_mm`, in pixels of the file: 0.5 makes an image twice as
            large, whatever size its pixels have.

    Raises:
        UsageError: If an order or a spacing cannot be used.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 2.
    """

    def __init__(
        self,
        spacing_mm: Sequence[float] | None = None,
        order: int = 3,
        coarse_order: int = 0,
        labels: bool = False,
        spacing_px: Sequence[float] | None = None,
    ) -> None:
        self.in_pixels = spacing_px is not None
        self.order = order
        self.coarse_order = coarse_order
        self.labels = labels
        given = [one for one in (spacing_mm, spacing_px) if one is not None]
        if len(given) != 1:
            msg = f"spacing_mm or spacing_px must be given, got {len(given)} of them."
            raise UsageError(msg)
        self.spacing = tuple(float(value) for value in given[0])
        if any(value <= 0 for value in self.spacing):
            msg = f"spacing_{self.unit} must be positive, got {self.spacing}."
            raise UsageError(msg)
        if (
            order not in ORDERS
            or coarse_order not in ORDERS
            or (labels and 3 in (order, coarse_order))
        ):
            msg = f"order must be 0, 1 or 3 (of labels 0 or 1), got {order} and {coarse_order}."
            raise UsageError(msg)

    @property
    def unit(self) -> str:
        """Unit of the spacing: `mm`, or `px`, pixels of the file."""
        return "px" if self.in_pixels else "mm"

    def __call__(self, data: MetaTensor, scale: Scale | None = None) -> MetaTensor:
        """Resample a tensor.

        Args:
            data: (C, *spatial) with an affine; stays as it is.
            scale: What is done to the values of an image before, plane by plane where that can be,
                so that no float32 copy of all of it is made.

        Returns:
            (C, *spatial) with the affine of the new grid; float32, labels in their own type.

        Raises:
            UsageError: If there is no affine, or not a spacing an axis.
        """
        if not isinstance(data, MetaTensor):
            msg = f"data must carry an affine, got {type(data).__name__}. Load it with LoadImage."
            raise UsageError(msg)
        old = data.peek_pending_shape() or tuple(data.shape[1:])
        if len(old) != len(self.spacing):
            msg = f"spacing_{self.unit} must have a value an axis, got {self.spacing} for {old}."
            raise UsageError(msg)
        spacing = (1.0,) * len(old) if self.in_pixels else _spacing_mm(data.affine, len(old))
        steps = self._steps(tuple(old), spacing)
        result = self._resampled(data.as_tensor(), steps, scale)
        out = _like(data, result, _grown(data.affine, old, tuple(result.shape[1:])))
        info = {"mode": "nearest" if self.labels else "bilinear", "affine": data.affine.clone()}
        self.push_transform(out, orig_size=old, extra_info=info)
        return out

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """Bring a tensor back to the grid that `__call__` found; linear or nearest.

        Args:
            data: (C, *spatial) on the resampled grid, class maps for example.

        Returns:
            (C, *spatial) on the grid from before, with the affine from before.
        """
        transform = self.pop_transform(data)
        size = tuple(int(extent) for extent in transform["orig_size"])
        order = 0 if transform["extra_info"]["mode"] == "nearest" else 1
        tensor = data.as_tensor()
        steps = [
            AxisStep(axis, wanted, order)
            for axis, wanted in enumerate(size)
            if wanted != tensor.shape[axis + 1]
        ]
        result = interpolated(tensor, steps) if steps else tensor
        return _like(data, result, transform["extra_info"]["affine"])

    def _steps(self, old: tuple[int, ...], spacing: tuple[float, ...]) -> list[AxisStep]:
        coarse = coarse_axis(spacing)
        if coarse is None:
            coarse = coarse_axis(self.spacing)
        steps = []
        for axis, (extent, own, wanted) in enumerate(zip(old, spacing, self.spacing, strict=True)):
            size = max(1, round(extent * own / wanted))
            if abs(own / wanted - 1) > SAME_SPACING and size != extent:
                order = self.coarse_order if axis == coarse else self.order
                steps.append(AxisStep(axis, size, order))
        return steps

    def _resampled(
        self, tensor: torch.Tensor, steps: Sequence[AxisStep], scale: Scale | None = None
    ) -> torch.Tensor:
        if not self.labels and goes_by_planes(tensor, steps):
            return interpolated(tensor, steps, scale)
        tensor = scaled(tensor, scale)
        if not steps:
            return tensor if self.labels else tensor.float()
        if not self.labels:
            image = tensor.float()
            result = interpolated(image, steps)
            if any(step.order == 3 for step in steps):
                for channel, source in zip(result, image, strict=True):
                    low, high = torch.aminmax(in_memory_order(source)[1])  # else torch copies it
                    channel.clamp_(float(low), float(high))
            return result
        if all(step.order == 0 for step in steps):
            return interpolated(tensor, steps)
        if len(tensor) > 1:
            return (interpolated(tensor.float(), steps) > 0.5).to(tensor.dtype)
        return _labels(tensor[0], steps)[None]


class Resampled(MapTransform, InvertibleTransform):  # type: ignore[misc]  # monai is untyped
    """Dictionary form of `Resample`: a spline order a key.

    Args:
        keys: Of images and labels.
        spacing_mm: Spacing wanted along each axis; mm.
        orders: Key to spline order; a key named `label` holds labels.
        coarse_order: Key to order along a coarse axis.
        label_keys: Keys whose values are labels.
        allow_missing_keys: Pass over keys that are not there.
        spacing_px: Instead of `spacing_mm`, in pixels of the files.

    Raises:
        UsageError: If a key has no order, or not one spacing is given.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing_mm: Sequence[float] | None = None,
        orders: Mapping[str, int] | None = None,
        coarse_order: Mapping[str, int] | None = None,
        label_keys: Sequence[str] = ("label",),
        allow_missing_keys: bool = False,
        spacing_px: Sequence[float] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        orders, coarse_order = orders or {}, coarse_order or {}
        missing = [key for key in self.keys if key not in orders or key not in coarse_order]
        if missing:
            msg = f"orders and coarse_order must name every key, got none for {missing}."
            raise UsageError(msg)
        self.resamplers = {
            key: Resample(spacing_mm, orders[key], coarse_order[key], key in label_keys, spacing_px)
            for key in self.keys
        }

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample the tensors of a case.

        Args:
            data: With (C, *spatial) tensors that carry an affine.

        Returns:
            The same on the new grid.

        Raises:
            GeometryError: If an image and its label do not lie on one grid (`grid-mismatch`).
            InputError: If the spacing wanted is in mm and they do not state theirs (`no-spacing`).
        """
        return self.after(None, data)

    def after(self, scale: Scale | None, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample the tensors of a case, the values of images scaled before.

        Args:
            scale: What is done to the values of images; None for nothing.
            data: As for `__call__`.

        Returns:
            The same on the new grid.

        Raises:
            GeometryError: As `__call__`.
            InputError: As `__call__`.
        """
        result = dict(data)
        tensors = {key: result[key] for key in self.key_iterator(result)}
        _take_the_images_spacing(tensors)
        _require_one_grid(tensors)
        for key, resampler in self.resamplers.items():
            if key in tensors and not resampler.in_pixels:
                _require_spacing(key, tensors[key], resampler.spacing)
        for key in self.key_iterator(result):
            resampler = self.resamplers[key]
            result[key] = resampler(result[key], None if resampler.labels else scale)
        return result

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Bring the tensors of a case back to the grid from before.

        Args:
            data: With (C, *spatial) tensors on the resampled grid.

        Returns:
            The same on the grid from before.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.resamplers[key].inverse(result[key])
        return result


def _take_the_images_spacing(tensors: Mapping[Hashable, Any]) -> None:
    """Lay labels that state no size of a pixel, as PNG and outlines do, on the grid of the image.

    They have as many pixels as the image, which is all that is known of where they lie.
    """
    own = [one for one in tensors.values() if isinstance(one, MetaTensor) and one.ndim == 3]
    stating = [one for one in own if one.meta.get(STATES_SPACING) is True]
    for one in own:
        silent = stating and one.meta.get(STATES_SPACING) is False
        if silent and one.shape[1:] == stating[0].shape[1:]:
            one.affine = stating[0].affine.clone()
            one.meta[STATES_SPACING] = True


def _require_spacing(key: Hashable, tensor: Any, wanted: Sequence[float]) -> None:
    """Refuse to take a pixel for a millimetre."""
    if not isinstance(tensor, MetaTensor) or tensor.meta.get(STATES_SPACING) is not False:
        return
    size = " x ".join(f"{value:.4g}" for value in wanted)
    msg = (
        f"{key} must state the size of its pixels, since the network takes pixels of {size} mm, got"
        " none. Give it as DICOM, or as the TIFF of ImageJ with its scale."
    )
    raise InputError(msg, code="no-spacing")


def _require_one_grid(tensors: Mapping[Hashable, Any]) -> None:
    """Refuse tensors that belong together and lie apart: what is learnt from them is wrong."""
    own = {key: one for key, one in tensors.items() if isinstance(one, MetaTensor)}
    if len(own) < 2:
        return
    (name, first), *others = own.items()
    for key, other in others:
        dims = first.ndim - 1
        wrong = f"{list(other.shape[1:])} voxels against {list(first.shape[1:])}"
        if other.shape[1:] == first.shape[1:]:
            picked = [*range(dims), -1]
            affines = [np.asarray(one.affine)[np.ix_(picked, picked)] for one in (first, other)]
            gap = grid_difference_voxels(tuple(first.shape[1:]), *affines)
            if gap <= SAME_GRID_TOLERANCE_VOXELS:
                continue
            wrong = f"corners up to {gap:.3g} voxels apart"
        msg = f"{key} must lie on the grid of {name}, got {wrong}."
        raise GeometryError(msg, code="grid-mismatch")


def coarse_axis(spacing_mm: Sequence[float]) -> int | None:
    """Return the axis that is over three times coarser than the finest, if there is just one.

    Args:
        spacing_mm: Spacing along each axis; mm.

    Returns:
        The axis or None.

    Examples:
        >>> coarse_axis((0.7, 0.7, 5.0))
        2
        >>> coarse_axis((0.7, 5.0, 5.0)) is None
        True
    """
    spacing = np.asarray(spacing_mm, np.float64)
    coarsest = np.flatnonzero(np.isclose(spacing, spacing.max(), rtol=SAME_SPACING))
    if spacing.max() / spacing.min() <= ANISOTROPY or len(coarsest) != 1:
        return None
    return int(coarsest[0])


def _like(template: MetaTensor, tensor: torch.Tensor, affine: torch.Tensor) -> MetaTensor:
    """Return a tensor with the metadata of another and an affine of its own."""
    meta = {**template.meta, MetaKeys.AFFINE: affine}
    return MetaTensor(tensor, meta=meta, applied_operations=list(template.applied_operations))


def _spacing_mm(affine: torch.Tensor, dims: int) -> tuple[float, ...]:
    columns = affine[:dims, :dims].double().square().sum(dim=0).sqrt()
    return tuple(float(value) for value in columns)


def _grown(affine: torch.Tensor, old: Sequence[int], new: Sequence[int]) -> torch.Tensor:
    """Return the affine of the same field of view cut into other voxels."""
    step = torch.eye(len(affine), dtype=torch.float64)
    for axis, (before, after) in enumerate(zip(old, new, strict=True)):
        step[axis, axis] = before / after
        step[axis, -1] = 0.5 * before / after - 0.5
    return affine.double() @ step


def scaled(tensor: torch.Tensor, scale: Scale | None) -> torch.Tensor:
    """Return an image with its values scaled.

    Args:
        tensor: (C, *spatial).
        scale: What is done to the values of each channel; None for nothing.
    """
    if scale is None:
        return tensor
    return torch.stack([scale(number, image) for number, image in enumerate(tensor)])


def _labels(label: torch.Tensor, steps: Sequence[AxisStep]) -> torch.Tensor:
    """Interpolate the mask of each label linearly and take the largest; the first of equals."""
    shape = list(label.shape)
    for step in steps:
        shape[step.axis] = step.size
    best = torch.zeros(shape, dtype=torch.float32)
    result = torch.zeros(shape, dtype=torch.int32)  # torch cannot fill in some unsigned types
    for value in torch.unique(label).tolist():
        source, target = _boxes(label == value, steps)
        part = (label[source] == value).float()
        for step in steps:
            matrix = axis_matrix(label.shape[step.axis], step.size, step.order)
            part = along(bands_of(matrix[target[step.axis], source[step.axis]]), part, step.axis)
        better = part > best[target]
        result[target][better] = value
        best[target] = torch.maximum(best[target], part)
    return result.to(label.dtype)


def _boxes(
    mask: torch.Tensor, steps: Sequence[AxisStep]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the box around a mask, and the box of voxels it reaches after resampling."""
    source, target = [], []
    matrices = {
        step.axis: axis_matrix(mask.shape[step.axis], step.size, step.order) for step in steps
    }
    for axis in range(mask.ndim):
        others = [other for other in range(mask.ndim) if other != axis]
        inside = torch.nonzero(mask.sum(dim=others) if others else mask)
        part = slice(int(inside[0]), int(inside[-1]) + 1)
        source.append(part)
        if axis in matrices:
            reached = torch.nonzero(matrices[axis][:, part].sum(dim=1))
            # a label thinner than the new voxels may reach none along an axis
            part = slice(int(reached[0]), int(reached[-1]) + 1) if len(reached) else slice(0, 0)
        target.append(part)
    return tuple(source), tuple(target)
