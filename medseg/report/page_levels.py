"""Intensities as the 256 levels of a picture: which value each level stands for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.report.planes import display_window, intensity_sample, is_ct
from medseg.volume import Volume

CT_NODES_HU = (-1024.0, -200.0, -20.0, 100.0, 300.0, 2000.0)
CT_NODES_LEVEL = (0, 56, 101, 161, 211, 255)
"""Finest (2 HU) where soft tissue and the brain differ, coarse in air (15 HU) and bone (39 HU)."""

WINDOWS_HU = {
    "Soft tissue": (-160.0, 240.0),
    "Lung": (-1350.0, 150.0),
    "Mediastinum": (-125.0, 225.0),
    "Liver": (-45.0, 105.0),
    "Brain": (0.0, 80.0),
    "Bone": (-500.0, 1300.0),
}
PERCENTILES = (0.05, 99.95)
_FINE = 65535
"""Steps into which the range of the image is divided on the way to the levels."""


@dataclass(frozen=True, eq=False)
class Levels:
    """What each of the 256 levels of a stored picture stands for.

    Attributes:
        values: (256,) intensity of each level, rising.
        exact: Whether every intensity of the image has a level of its own.
        table: Level of each of 65536 even steps from the first value to the last.
    """

    values: npt.NDArray[np.float64]
    exact: bool
    table: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], *, exact: bool = False) -> "Levels":
        """Return levels of rising values; an intensity has the level that is nearest.

        Args:
            values: (256,) intensity of each.
            exact: Whether the image has no others.
        """
        fine = np.linspace(values[0], values[-1], _FINE + 1)
        table = np.rint(np.interp(fine, values, np.arange(256))).astype(np.uint8)
        return cls(values, exact, table)

    def encode(self, part: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Return the level of each intensity; the first where it is not a number.

        Args:
            part: Some of an image, of any shape.

        Returns:
            The levels, in that shape.
        """
        low, high = float(self.values[0]), float(self.values[-1])
        if part.dtype == np.uint8 and self.exact and low == 0:
            return part
        kind = np.result_type(part.dtype, np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            steps = (part.astype(kind) - kind.type(low)) * kind.type(_FINE / (high - low))
        if part.dtype.kind == "f":
            steps[np.isnan(steps)] = 0
        np.clip(steps, 0, _FINE, out=steps)
        return np.asarray(self.table[np.rint(steps, out=steps).astype(np.uint16)])


def choose_levels(volume: Volume) -> Levels:
    """Choose the levels in which an image is kept.

    * Whole numbers that span up to 256 are kept as they are.
    * CT: from -1024 to 2000 HU, finest in soft tissue.
    * Anything else: even steps over nearly all of its range (0.05th to 99.95th percentile).

    Args:
        volume: The image.

    Returns:
        The levels.
    """
    array = volume.array
    if array.dtype.kind in "iu" and array.size:
        low, high = (0, 255) if array.dtype == np.uint8 else (int(array.min()), int(array.max()))
        if high - low <= 255:
            return Levels.of(low + np.arange(256.0), exact=True)
    sample = intensity_sample(volume)
    if not sample.size:
        return Levels.of(np.linspace(0, 1, 256))
    if is_ct(volume, sample):
        return Levels.of(np.interp(np.arange(256), CT_NODES_LEVEL, CT_NODES_HU))
    low_value, high_value = (float(value) for value in np.percentile(sample, PERCENTILES))
    window = display_window(volume)
    low_value, high_value = min(low_value, window[0]), max(high_value, window[1])
    return Levels.of(np.linspace(low_value, high_value, 256))


def choose_windows(
    volume: Volume, inside: npt.NDArray[Any] | None
) -> list[tuple[str, float, float]]:
    """List the windows that a viewer offers, the first to begin with.

    Args:
        volume: The image.
        inside: Some intensities of segmented voxels.

    Returns:
        Name, intensity shown black and intensity shown white of each.
    """
    sample = intensity_sample(volume)
    first = display_window(volume, inside)
    if not (sample.size and is_ct(volume, sample)):
        return [("Automatic", *first)]
    named = sorted(WINDOWS_HU.items(), key=lambda item: item[1] != first)
    return [(name, low, high) for name, (low, high) in named]
