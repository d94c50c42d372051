"""Images as nnU-Net v2 prepares them, where that differs from what medseg does for its own."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.data.utils import affine_to_spacing
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


class AddMaskChannelsd(MapTransform):  # type: ignore[misc]  # monai is untyped
    """Add the mask of an earlier network to an image, a channel a label, as nnU-Net v2 does.

    A voxel of the image's grid is of the label of which interpolation gives it most; of equal ones
    of the nearest, else of the lowest. Where labels meet, rounding decides that, so that the same
    library interpolates as in nnU-Net, along its axes in the same order.

    Args:
        keys: Of the image, on its grid.
        mask_key: Of the mask, on the grid that the image was resampled from.
        labels: Values in the mask, one a channel, rising.
        axes: Axes of the image in nnU-Net's order.
        separate: Interpolate the coarsest axis apart, as of `NnunetResampled`.
        allow_missing_keys: Pass over keys that are not there.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, methods (U-Net cascade).
    """

    def __init__(
        self,
        keys: KeysCollection,
        mask_key: str,
        labels: Sequence[int],
        axes: Sequence[int] = (2, 1, 0),
        separate: bool | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.mask_key = mask_key
        self.labels = tuple(labels)
        self.axes = tuple(axes)
        self.separate = separate

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the mask of a case to its image.

        Args:
            data: With a (C, *spatial) image and a (1, *other) mask that carry affines.

        Returns:
            The same with (C + labels, *spatial) images, the mask left out.
        """
        result = dict(data)
        mask = result.pop(self.mask_key)
        for key in self.key_iterator(result):
            image = result[key]
            numbers = torch.from_numpy(self._resampled(mask, image))
            channels = [(numbers == label)[None].to(image.dtype) for label in self.labels]
            result[key] = torch.cat([image, *channels])
        return result

    def _resampled(self, mask: MetaTensor, image: MetaTensor) -> npt.NDArray[Any]:
        """Return the mask on the grid of the image."""
        before, after = (affine_to_spacing(one.affine).tolist() for one in (mask, image))
        array = np.asarray(mask)[0].transpose(self.axes)
        shape = tuple(image.shape[1 + axis] for axis in self.axes)
        coarse = separate_axis(
            [before[axis] for axis in self.axes],
            [after[axis] for axis in self.axes],
            separate=self.separate,
        )
        if array.shape != shape:
            array = _resized_mask(array, shape, coarse)
        return np.ascontiguousarray(array.transpose(np.argsort(self.axes)))


def _resized_mask(
    mask: npt.NDArray[Any], shape: tuple[int, ...], coarse: int | None
) -> npt.NDArray[Any]:
    """Return a mask of another shape; slice by slice along a coarse axis, then the nearest."""
    from skimage.transform import resize  # noqa: PLC0415  (most bundles do without)

    if coarse is not None:
        plane = tuple(extent for axis, extent in enumerate(shape) if axis != coarse)
        slices = [_resized_mask(one, plane, None) for one in np.moveaxis(mask, coarse, 0)]
        places = _upper_nearest(len(slices), shape[coarse]).tolist()
        return np.stack([slices[place] for place in places], axis=coarse)

    def resized(array: npt.NDArray[Any], order: int) -> npt.NDArray[np.float64]:
        values: npt.NDArray[np.float64] = resize(
            array.astype(np.float64), shape, order=order, mode="edge", anti_aliasing=False
        )
        return values

    nearest = resized(mask, 0).astype(mask.dtype)
    result = np.zeros(shape, mask.dtype)
    largest, of_nearest = np.full(shape, -1.0), np.zeros(shape)
    for label in np.unique(mask):
        share = resized(mask == label, 1)
        np.copyto(of_nearest, share, where=nearest == label)
        np.copyto(result, label, where=share > largest)
        np.maximum(largest, share, out=largest)
    return np.where(of_nearest == largest, nearest, result)


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
