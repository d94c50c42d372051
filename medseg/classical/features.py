"""Intensities on a common scale, for methods that weigh them against distance."""

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.color import rgb2lab

from medseg.classical.image import check_finite, check_range
from medseg.errors import InputError, UsageError
from medseg.volume import Volume

FULL_SCALE = 100.0
"""Intensities are brought to 0 to 100, the range of lightness in Lab, so that one weight serves."""

PERCENTILES = (1.0, 99.0)
_SAMPLES = 1_000_000

Floats = npt.NDArray[np.float32]


def checked_window(window: tuple[float, float] | None) -> tuple[float, float] | None:
    """Check the intensities that become 0 and 100.

    Args:
        window: Both, or None for the 1st and 99th percentile.

    Returns:
        The same as floats.

    Raises:
        UsageError: If they are not finite, equal, or in the wrong order.
    """
    if window is None:
        return None
    low, high = (float(value) for value in window)
    check_range(low, high, ("window's lower end", "window's upper end"))
    if not (np.isfinite([low, high]).all() and low < high):
        msg = f"window must be two different finite numbers, got {low:g} and {high:g}."
        raise UsageError(msg)
    return low, high


def features(volume: Volume, window: tuple[float, float] | None) -> Floats:
    """Return intensities on a common scale: Lab for colours, 0 to 100 in the main for grey.

    Colours are stretched from their smallest to their largest value first, all channels alike.

    Args:
        volume: (C, *spatial) image; three channels in 2D are colours.
        window: Intensities that become 0 and 100, what lies outside clipped.

    Returns:
        (C, *spatial) features; C channels together weigh as much as one.

    Raises:
        InputError: If the image is not finite, or a colour picture and a window is given.
    """
    check_finite(volume.array)
    array = volume.array
    if volume.is_2d and volume.channels == 3:
        if window is not None:
            msg = "window must not be given for a colour picture, which is compared in Lab."
            raise InputError(msg, code="not-grey")
        colors = np.moveaxis(array, 0, -1).astype(np.float32)
        low, high = float(colors.min()), float(colors.max())
        colors = (colors - low) / (high - low if high > low else 1)  # as scikit-image's slic does
        return np.asarray(np.moveaxis(rgb2lab(colors), -1, 0), np.float32)
    scaled = [_scaled(channel, window) for channel in array]
    return np.stack(scaled) / np.float32(np.sqrt(len(scaled)))


def _scaled(channel: npt.NDArray[Any], window: tuple[float, float] | None) -> Floats:
    if window is None:
        step = max(1, round((channel.size / _SAMPLES) ** (1 / channel.ndim)))
        sample = channel[(slice(None, None, step),) * channel.ndim]
        low, high = (float(value) for value in np.percentile(sample, PERCENTILES))
        values = channel.astype(np.float32)
    else:
        low, high = window
        values = np.clip(channel.astype(np.float32), low, high)
    if high <= low:  # percentiles of an image that is nearly all one value
        low, high = float(values.min()), float(values.max())
    return (values - np.float32(low)) * np.float32(FULL_SCALE / (high - low if high > low else 1))
