"""Change the colours of training patches."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from medseg.errors import UsageError

LUMA = np.array((0.299, 0.587, 0.114))
"""Share of red, green and blue in the brightness of a pixel. Source: ITU-R BT.601."""

_TO_YIQ = np.array((LUMA, (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135)))


class RandColord(RandomizableTransform, MapTransform):  # type: ignore[misc]  # monai is untyped
    """Change brightness, contrast, saturation and hue at random; images of one or three channels.

    All four are one linear map of a pixel's channels, so they apply to normalised images as well:
    brightness is a shift, contrast a factor about the mean brightness of the patch, saturation a
    factor about each pixel's grey, hue a turn about the axis of greys. Images of one channel have
    no saturation and no hue.

    Args:
        keys: Float tensors (1 or 3, *spatial); red, green, blue.
        brightness: Largest shift either way; in units of the normalised image.
        contrast: Contrast is multiplied by 1 - `contrast` to 1 + `contrast`.
        saturation: Likewise.
        hue_degrees: Largest turn either way; degrees.
        prob: How often a sample is changed.

    Raises:
        UsageError: If a number is negative, or contrast or saturation above 1.
    """

    def __init__(
        self,
        keys: KeysCollection,
        brightness: float = 0.3,
        contrast: float = 0.3,
        saturation: float = 0.3,
        hue_degrees: float = 15.0,
        prob: float = 0.5,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        ranges = {
            "brightness": (brightness, math.inf),
            "contrast": (contrast, 1.0),
            "saturation": (saturation, 1.0),
            "hue_degrees": (hue_degrees, 180.0),
        }
        for name, (value, most) in ranges.items():
            if not 0 <= value <= most:
                msg = f"{name} must be from 0 to {most:g}, got {value!r}."
                raise UsageError(msg)
        self.largest = np.array([float(value) for value, _ in ranges.values()])
        self.drawn: npt.NDArray[np.float64] = np.zeros(4)

    def randomize(self, data: Any = None) -> None:
        """Draw whether to change the colours, and how.

        Args:
            data: Not used.
        """
        super().randomize(data)
        self.drawn = self.R.uniform(-1.0, 1.0, 4) * self.largest

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Change the colours, or not.

        Args:
            data: Float tensors (1 or 3, *spatial).

        Returns:
            The data with the tensors replaced.

        Raises:
            UsageError: If an image has another number of channels.
        """
        result = dict(data)
        self.randomize()
        if self._do_transform:
            for key in self.key_iterator(result):
                result[key] = recolored(result[key], *self.drawn.tolist())
        return result


def recolored(
    image: torch.Tensor, brightness: float, contrast: float, saturation: float, hue_degrees: float
) -> torch.Tensor:
    """Change the colours of an image.

    Args:
        image: (1 or 3, *spatial) float; red, green, blue.
        brightness: Added to every channel.
        contrast: Factor about the mean brightness, less 1.
        saturation: Factor about the grey of each pixel, less 1.
        hue_degrees: Turn of the hue; degrees.

    Returns:
        (1 or 3, *spatial), as the image.

    Raises:
        UsageError: If the image has another number of channels.
    """
    if len(image) not in (1, 3):
        msg = f"image must have 1 or 3 channels to change its colours, got {len(image)}."
        raise UsageError(msg)
    matrix, weights = np.eye(1), np.ones(1)
    if len(image) == 3:
        angle = math.radians(hue_degrees)
        turn = np.eye(3)
        turn[1:, 1:] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        matrix, weights = np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ, LUMA
        matrix = (1 + saturation) * matrix - saturation * np.ones((3, 1)) * LUMA
    flat = image.reshape(len(image), -1)
    mean = torch.as_tensor(weights).to(flat) @ flat.mean(dim=1)
    changed = torch.as_tensor((1 + contrast) * matrix).to(flat) @ flat
    return changed.add_(brightness - contrast * mean).reshape(image.shape)
