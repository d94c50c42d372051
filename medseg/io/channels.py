"""Several single-channel volumes of one case as one multi-channel volume."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import SimpleITK as sitk

from medseg.errors import GeometryError, Problem
from medseg.geometry import direction
from medseg.volume import Volume, grid_difference


def stack_channels(volumes: Sequence[Volume], *, resample: bool = False) -> Volume:
    """Join co-registered volumes along the channel axis.

    Args:
        volumes: One or more volumes on one grid.
        resample: Bring the others to the grid of the first, linearly, instead of refusing.

    Returns:
        Volume with the channels of all; affine and source of the first.

    Raises:
        GeometryError: If the grids differ (code `grid-mismatch`).
    """
    first = volumes[0]
    if len(volumes) == 1:
        return first
    fitting = [first]
    for number, other in enumerate(volumes[1:], start=1):
        difference = grid_difference(first, other)
        if not difference:
            fitting.append(other)
        elif resample and not (first.is_2d or other.is_2d):
            fitting.append(_on_grid_of(first, other, number))
        else:
            msg = (
                f"channels must lie on one grid, got channel {number} off channel 0: {difference}."
                " Add --resample to bring them to the grid of channel 0."
            )
            raise GeometryError(msg, code="grid-mismatch")
    array = np.concatenate([volume.array for volume in fitting])
    problems = tuple(problem for volume in fitting for problem in volume.source.problems)
    return Volume(array, first.affine, replace(first.source, problems=problems))


def _on_grid_of(first: Volume, other: Volume, number: int) -> Volume:
    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(_sitk_image(first, 0))
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetDefaultPixelValue(float(other.array.min()))
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    arrays = []
    for channel in range(other.channels):
        image = resampler.Execute(_sitk_image(other, channel))
        arrays.append(sitk.GetArrayFromImage(image).transpose(2, 1, 0))
    note = f"channel {number} was resampled to the grid of channel 0"
    problems = (*other.source.problems, Problem("resampled-channel", note, "warning"))
    return Volume(np.stack(arrays), first.affine, replace(other.source, problems=problems))


def _sitk_image(volume: Volume, channel: int) -> sitk.Image:
    # both images carry RAS affines; SimpleITK compares them and never asks which frame it is
    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.array[channel].transpose(2, 1, 0)))
    image.SetSpacing(volume.spacing_mm)
    image.SetDirection(direction(volume.affine).ravel().tolist())
    image.SetOrigin(volume.affine[:3, 3].tolist())
    return image
