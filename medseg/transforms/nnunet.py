"""Images as nnU-Net v2 prepares them, where that differs from what medseg does for its own."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, SpatialCrop

from medseg.transforms.interpolate import AxisStep, Scale
from medseg.transforms.normalize import nonzero_box
from medseg.transforms.resample import Resample, coarse_axis, scaled


class CropNonzerod(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Crop images to the box of the voxels that are not zero in some channel.

    An image that is zero everywhere stays whole.

    Args:
        keys: Of the images.
        allow_missing_keys: Pass over keys that are not there.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 2.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop the images of a case.

        Args:
            data: With (C, *spatial) images that carry an affine.

        Returns:
            The same with images of the box and its affine.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            image = result[key]
            plain = image.as_tensor() if hasattr(image, "as_tensor") else torch.as_tensor(image)
            box = nonzero_box(plain)
            if box != tuple(slice(0, extent) for extent in plain.shape[1:]):
                starts, stops = zip(*((part.start, part.stop) for part in box), strict=True)
                result[key] = SpatialCrop(roi_start=starts, roi_end=stops)(image)
        return result


class NnunetResampled(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Bring images to a spacing as nnU-Net v2 does by default.

    As `Resample`, but an axis may keep its own spacing, and whether a coarse axis is interpolated
    apart may be fixed.

    Args:
        keys: Of the images.
        spacing_mm: Spacing wanted along each axis; null keeps that of the image; mm.
        order: Spline order: 0, 1 or 3.
        coarse_order: Order along a coarse axis that is interpolated apart.
        separate: Interpolate the coarsest axis apart: true, false, or null for where one is over
            three times coarser than the finest, before or after.
        allow_missing_keys: Pass over keys that are not there.

    Raises:
        UsageError: If an order or a spacing cannot be used.
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing_mm: Sequence[float | None],
        order: int = 3,
        coarse_order: int = 0,
        separate: bool | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.resample = _Resample(spacing_mm, order, coarse_order, separate)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample the images of a case.

        Args:
            data: With (C, *spatial) images that carry an affine.

        Returns:
            The same with float32 images on the new grid.
        """
        return self.after(None, data)

    def after(self, scale: Scale | None, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resample the images of a case, their values scaled before.

        Args:
            scale: What is done to the values; None for nothing.
            data: As for `__call__`.

        Returns:
            The same with float32 images on the new grid.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.resample(result[key], scale)
        return result


class _Resample(Resample):
    """`Resample` by nnU-Net's rules for the size and for the order of each axis."""

    def __init__(
        self,
        spacing_mm: Sequence[float | None],
        order: int,
        coarse_order: int,
        separate: bool | None,
    ) -> None:
        super().__init__(
            [1.0 if value is None else value for value in spacing_mm], order, coarse_order
        )
        self.own = [value is None for value in spacing_mm]
        self.separate = separate

    def _steps(self, old: tuple[int, ...], spacing: tuple[float, ...]) -> list[AxisStep]:
        wanted = [
            own if keeps else value
            for own, keeps, value in zip(spacing, self.own, self.spacing, strict=True)
        ]
        coarse = separate_axis(spacing, wanted, separate=self.separate)
        steps: list[AxisStep] = []
        for axis, (extent, own, new) in enumerate(zip(old, spacing, wanted, strict=True)):
            size = max(1, round(own / new * extent))
            if axis == coarse:
                steps.append(_Apart(axis, size, self.coarse_order))
            elif size != extent:
                steps.append(AxisStep(axis, size, self.order))
        return steps

    def _resampled(
        self, tensor: torch.Tensor, steps: Sequence[AxisStep], scale: Scale | None = None
    ) -> torch.Tensor:
        across = [step for step in steps if isinstance(step, _Apart)]
        if not across:
            return super()._resampled(tensor, steps, scale)
        [apart] = across
        tensor = scaled(tensor, scale)
        axis = apart.axis + 1
        slices = tensor.movedim(axis, 1).flatten(0, 1)  # (C * slices, *plane)
        within = [
            AxisStep(step.axis - (step.axis > apart.axis), step.size, step.order)
            for step in steps
            if step is not apart
        ]
        slices = super()._resampled(slices, within)  # which clips each to its own range
        shape = (len(tensor), tensor.shape[axis], *slices.shape[1:])
        whole = slices.reshape(shape).movedim(1, axis)
        if apart.size == tensor.shape[axis]:
            return whole.contiguous()
        if apart.order == 0:
            nearest = _upper_nearest(tensor.shape[axis], apart.size)
            whole = whole.index_select(axis, nearest.to(whole.device))
            return whole.contiguous()
        return super()._resampled(whole, [apart])


class _Apart(AxisStep):
    """The step of an axis that is interpolated apart from the others, slice by slice."""


def _upper_nearest(old: int, new: int) -> torch.Tensor:
    """Return the voxel that each of another number of them is nearest to, of two the upper.

    So does `scipy.ndimage.map_coordinates`, which nnU-Net uses there.
    """
    places = (torch.arange(new, dtype=torch.float64) + 0.5) * (old / new)
    return places.floor().long().clamp(max=old - 1)


def separate_axis(
    spacing_mm: Sequence[float], wanted_mm: Sequence[float], *, separate: bool | None
) -> int | None:
    """Return the axis that nnU-Net interpolates apart from the others.

    Args:
        spacing_mm: Spacing before, along each axis; mm.
        wanted_mm: Spacing after, along each axis; mm.
        separate: True for the coarsest axis, False for none, None for one that is over three times
            coarser than the finest, before or else after.

    Returns:
        The axis or None.

    Examples:
        >>> separate_axis((1.0, 1.0, 1.0), (1.0, 1.0, 4.0), separate=None)
        2
        >>> separate_axis((1.0, 1.0, 1.5), (1.0, 1.0, 1.0), separate=True)
        2
    """
    if separate is not None:
        coarsest = [axis for axis, one in enumerate(spacing_mm) if one == max(spacing_mm)]
        return coarsest[0] if separate and len(coarsest) == 1 else None
    coarse = coarse_axis(spacing_mm)
    return coarse_axis(wanted_mm) if coarse is None else coarse
