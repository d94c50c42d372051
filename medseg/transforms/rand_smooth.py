"""Blur training patches: MONAI's Gaussian filter as matrix products."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.networks.layers import gaussian_1d
from monai.transforms import MapTransform, RandomizableTransform

_TRUNCATED = 4.0  # standard deviations, as in MONAI's GaussianFilter


class RandSmoothd(RandomizableTransform, MapTransform):  # type: ignore[misc]  # monai is untyped
    """Blur at random, with a standard deviation drawn for each axis.

    The same numbers as `monai.transforms.GaussianSmooth`. MONAI's convolutions along single axes
    of a volume take seven times as long on a processor, and more than the rest of an nnU-Net-like
    augmentation together.

    Args:
        keys: Float tensors (C, *spatial).
        sigma: Least and largest standard deviation; voxels.
        prob: How often a sample is blurred.

    Raises:
        ValueError: If `sigma` is not two rising numbers above 0.
    """

    def __init__(
        self, keys: KeysCollection, sigma: Sequence[float] = (0.5, 1.0), prob: float = 0.1
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        low, high = (float(value) for value in sigma)
        if not 0 < low <= high:
            msg = f"sigma must be two rising numbers above 0, got {sigma!r}."
            raise ValueError(msg)
        self.sigma = (low, high)
        self.drawn: tuple[float, ...] = ()

    def randomize(self, axes: int) -> None:
        """Draw whether to blur, and how much along each axis.

        Args:
            axes: Number of spatial axes.
        """
        super().randomize(None)
        self.drawn = tuple(self.R.uniform(*self.sigma, size=axes).tolist())

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Blur, or not.

        Args:
            data: Float tensors (C, *spatial) of as many axes.

        Returns:
            The data with the tensors replaced.
        """
        result = dict(data)
        first = self.first_key(result)
        if first in result:
            self.randomize(result[first].ndim - 1)
        if self._do_transform:
            for key in self.key_iterator(result):
                result[key] = smooth(result[key], self.drawn)
        return result


def smooth(image: torch.Tensor, sigma: Sequence[float]) -> torch.Tensor:
    """Blur with a Gaussian whose values are integrated over each voxel; outside is 0.

    Args:
        image: (C, *spatial) float.
        sigma: (axes,) standard deviations; voxels.

    Returns:
        (C, *spatial), as the image.

    Raises:
        ValueError: If there are not as many standard deviations as spatial axes.
    """
    if len(sigma) != image.ndim - 1:
        msg = f"sigma must have {image.ndim - 1} values, got {sigma!r}."
        raise ValueError(msg)
    result = image
    for axis, deviation in enumerate(sigma, start=1):
        band = _band(deviation, image.shape[axis]).to(image)
        if axis == image.ndim - 1:
            result = result @ band.T
        else:  # the axes behind it as one: (C, ..., n, rest)
            rows = result.reshape(*result.shape[: axis + 1], -1)
            result = (band @ rows).reshape(result.shape)
    return result


def _band(deviation: float, size: int) -> torch.Tensor:
    """Return the (n, n) matrix that filters along an axis of n voxels."""
    kernel = gaussian_1d(torch.tensor(deviation), truncated=_TRUNCATED, approx="erf")
    half = len(kernel) // 2
    apart = torch.arange(size)[None, :] - torch.arange(size)[:, None] + half
    within = (apart >= 0) & (apart < len(kernel))
    return torch.where(within, kernel[apart.clamp(0, len(kernel) - 1)], 0.0)
