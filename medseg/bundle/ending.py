"""What a bundle's own postprocessing does to class maps."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from monai import transforms as monai_transforms
from monai.transforms import (
    Activations,
    Activationsd,
    AsDiscrete,
    AsDiscreted,
    Compose,
    EnsureType,
    EnsureTyped,
    Invertd,
    SaveImage,
    SaveImaged,
    ToTensord,
)

Step = Callable[[Any], Any]

PASSING = (EnsureType, EnsureTyped, ToTensord)
"""Steps that leave values and grid as they are."""

FOLLOWED = tuple(
    getattr(monai_transforms, name)
    for name in (
        "LoadImaged", "EnsureChannelFirstd", "EnsureTyped", "CastToTyped", "ToTensord",
        "ToDeviced", "Identityd", "SelectItemsd", "DeleteItemsd", "Orientationd", "Spacingd",
        "Resized", "Flipd", "CropForegroundd", "CenterSpatialCropd", "SpatialPadd", "BorderPadd",
        "DivisiblePadd", "ResizeWithPadOrCropd", "NormalizeIntensityd", "ScaleIntensityd",
        "ScaleIntensityRanged", "ScaleIntensityRangePercentilesd", "ThresholdIntensityd",
        "ShiftIntensityd", "HistogramNormalized", "GaussianSmoothd", "MedianSmoothd",
    )
)  # fmt: skip
"""Preprocessing steps that keep axes parallel and say in the affine what they do to the grid."""

ACTIVATED, INVERTED, DISCRETE = "activated", "inverted", "discrete"


@dataclass(frozen=True)
class Ending:
    """How a bundle ends.

    Attributes:
        steps: Its own steps on the class maps, but for the writing of files; none where they do
            what medseg does itself, row by row.
        activated: Probabilities are interpolated to the source grid, and not logits.
    """

    steps: tuple[Step, ...] = ()
    activated: bool = False


def with_whole_labels(steps: Sequence[Step]) -> tuple[list[Step], bool]:
    """Bring label numbers back by the nearest one where a bundle would mix them.

    An `Invertd` that interpolates after the choice of the largest channel makes label 1 of what
    lies between 0 and 2.

    Args:
        steps: Steps of the postprocessing; not changed.

    Returns:
        The steps, and whether one of them was told to take the nearest value.
    """
    result = list(steps)
    last_choice = max((i for i, step in enumerate(steps) if _is_choice(step)), default=-1)
    numbered = last_choice >= 0 and _gives_numbers(steps[last_choice])
    changed = False
    for index, step in enumerate(steps):
        if numbered and index > last_choice and isinstance(step, Invertd):
            nearest = copy.copy(step)
            nearest.nearest_interp = tuple(True for _ in nearest.nearest_interp)
            changed |= nearest.nearest_interp != tuple(map(bool, step.nearest_interp))
            result[index] = nearest
    return result, changed


def _is_choice(step: Step) -> bool:
    return isinstance(step, AsDiscrete | AsDiscreted)


def _gives_numbers(step: Any) -> bool:
    return bool(_only(step, "argmax")) and _only(step, "to_onehot") is None


def flat_steps(transform: Any) -> list[Step]:
    """Return the steps of a transform in order.

    Args:
        transform: A transform, a list of them, or `Compose` of any depth.
    """
    if transform is None:  # what a reference to a disabled component gives
        return []
    several = transform.transforms if isinstance(transform, Compose) else transform
    if isinstance(several, list | tuple):
        return [step for one in several for step in flat_steps(one)]
    return [transform]


def ending_of(
    before: Sequence[Step], after: Sequence[Step], *, regions: bool, channels: int
) -> Ending:
    """Compare a bundle's postprocessing with the standard one.

    Standard is an activation, `Invertd` with linear interpolation, and the choice of the largest
    channel or the threshold 0.5 of a single region, with the activation before or after `Invertd`.
    Of several regions the one that is painted over another depends on their sizes, which are known
    when all of the image is: they are never standard.

    Args:
        before: Steps of the preprocessing.
        after: Steps of the postprocessing.
        regions: Channels are regions, not classes.
        channels: Class maps.

    Returns:
        The ending.
    """
    steps = tuple(step for step in after if not isinstance(step, SaveImage | SaveImaged))
    done = [_meaning(step, regions=regions) for step in steps if not isinstance(step, PASSING)]
    known = all(isinstance(step, FOLLOWED) or _is_ours(step) for step in before)
    orders = (
        [ACTIVATED, INVERTED, DISCRETE],
        [INVERTED, ACTIVATED, DISCRETE],
        [INVERTED, DISCRETE],
    )
    if known and done in orders and not (regions and channels > 1):
        return Ending(activated=done[0] == ACTIVATED)
    return Ending(steps)


def _is_ours(step: Step) -> bool:
    return type(step).__module__.startswith("medseg.")


def _meaning(step: Step, *, regions: bool) -> str:
    """Return what a step does, or its name where that is not standard."""
    if isinstance(step, Activations | Activationsd):
        used = [name for name in ("sigmoid", "softmax", "other") if _only(step, name)]
        if used == ["sigmoid" if regions else "softmax"]:
            return ACTIVATED
    if isinstance(step, Invertd) and not any([*step.nearest_interp, *filter(None, step.post_func)]):
        return INVERTED
    if isinstance(step, AsDiscrete | AsDiscreted) and _only(step, "to_onehot") is None:
        threshold, argmax = _only(step, "threshold"), _only(step, "argmax")
        if (argmax and threshold is None) if not regions else (not argmax and threshold == 0.5):
            return DISCRETE
    return type(step).__name__


def _only(step: Any, name: str) -> Any:
    """Return an argument that dictionary transforms repeat for each key."""
    value = getattr(step, name)
    return value[0] if isinstance(value, list | tuple) else value
