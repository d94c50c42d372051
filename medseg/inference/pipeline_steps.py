"""Preprocessing transforms as data that needs no MONAI to be understood."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from monai.transforms import (
    CastToTyped,
    EnsureTyped,
    MapTransform,
    NormalizeIntensityd,
    Orientationd,
    ScaleIntensityd,
    ScaleIntensityRanged,
    Spacingd,
)

from medseg.inference.preprocess import DONE
from medseg.transforms import CropNonzerod, NnunetResampled, NormalizeChannelsd, Resampled
from medseg.transforms.normalize import SMALLEST_STD

AXIS_LABELS = (("L", "R"), ("P", "A"), ("I", "S"))

Statement = dict[str, Any]


class UnstatedError(Exception):
    """A setting for which an exported pipeline has no words; the message names it."""


def stated_steps(
    preprocessing: Sequence[Any], channels: int
) -> tuple[list[Statement], list[dict[str, str]]]:
    """State the preprocessing of a bundle.

    Args:
        preprocessing: Its transforms, in order.
        channels: Of the image.

    Returns:
        The steps, and key and reason of each transform that cannot be stated.
    """
    steps: list[Statement] = []
    missing = []
    for number, transform in enumerate(preprocessing):
        if isinstance(transform, DONE) or not _takes_image(transform):
            continue
        name = type(transform).__name__
        state = _STATEMENTS.get(type(transform))
        try:
            if state is None:
                msg = f"{name} has no statement"
                raise UnstatedError(msg)
            step = state(transform, channels)
            _require_no_rounding(step, steps, name)
        except UnstatedError as error:
            missing.append({"key": f"preprocessing#{number}", "reason": str(error)})
            continue
        steps += [step] if step else []
    return steps, missing


def _require_no_rounding(step: Statement, before: Sequence[Statement], name: str) -> None:
    """Refuse what depends on which zeros the rounding of `Spacingd` leaves exactly 0."""
    resampled = any(one["step"] == "spacing" for one in before)
    if resampled and (step.get("nonzero") or step.get("step") == "crop_nonzero"):
        msg = f"{name} of what is not 0, after Spacingd, depends on rounding"
        raise UnstatedError(msg)


def _takes_image(transform: Any) -> bool:
    return not isinstance(transform, MapTransform) or "image" in transform.keys


def _of_image(transform: Any, values: Sequence[Any]) -> Any:
    """Return the setting that dictionary transforms repeat for each key."""
    return values[list(transform.keys).index("image")]


def _require(condition: bool, transform: Any, setting: str) -> None:
    if not condition:
        msg = f"{type(transform).__name__} has no statement for its {setting}"
        raise UnstatedError(msg)


def _orient(transform: Any, _: int) -> Statement:
    own = transform.ornt_transform
    _require(own.axcodes is not None and not own.as_closest_canonical, transform, "axes")
    labels = own.labels
    plain = labels is None or tuple(map(tuple, labels)) == AXIS_LABELS
    _require(plain and len(own.axcodes) == 3, transform, "labels")
    return {"step": "orient", "axes": "".join(own.axcodes)}


def _typed(transform: Any, _: int) -> Statement:
    dtype = _of_image(transform, transform.dtype)
    _require(dtype in (None, torch.float32, np.float32, "float32"), transform, f"type {dtype}")
    return {}


def _crop_nonzero(_: Any, __: int) -> Statement:
    return {"step": "crop_nonzero"}


def _normalize(transform: Any, channels: int) -> Statement:
    schemes = list(transform.schemes)
    schemes = schemes * channels if len(schemes) == 1 else schemes
    return {"step": "normalize", "channels": [_scheme(scheme) for scheme in schemes]}


def _scheme(scheme: dict[str, Any]) -> Statement:
    name = scheme["scheme"]
    if name in ("ct", "fixed"):
        return {
            "scheme": "window",
            "low": float(scheme["low"]) if name == "ct" else None,
            "high": float(scheme["high"]) if name == "ct" else None,
            "mean": float(scheme["mean"]),
            "std": max(float(scheme["std"]), SMALLEST_STD),
        }
    if name == "zscore":
        where = "nonzero_filled" if scheme.get("nonzero") else "nonzero_box"
        return {"scheme": "zscore", "where": where, "smallest_std": SMALLEST_STD}
    return {"scheme": "rescale", "to": [0.0, 1.0]} if name == "rescale" else {"scheme": name}


def _scale_range(transform: Any, _: int) -> Statement:
    own = transform.scaler
    numbers = [own.a_min, own.a_max, own.b_min, own.b_max]
    known = all(isinstance(one, int | float) and math.isfinite(one) for one in numbers)
    _require(known and own.a_min != own.a_max, transform, "range")
    low, high, first, last = map(float, numbers)
    return {"step": "scale_range", "from": [low, high], "to": [first, last], "clip": own.clip}


def _standardize(transform: Any, _: int) -> Statement:
    own = transform.normalizer
    _require(own.subtrahend is None and own.divisor is None, transform, "subtrahend and divisor")
    return {
        "step": "standardize",
        "by_channel": bool(own.channel_wise),
        "nonzero": bool(own.nonzero),
    }


def _scale(transform: Any, _: int) -> Statement:
    own = transform.scaler
    known = all(isinstance(one, int | float) for one in (own.minv, own.maxv))
    _require(known, transform, "minv and maxv")
    return {
        "step": "rescale",
        "to": [float(own.minv), float(own.maxv)],
        "by_channel": bool(own.channel_wise),
    }


def _resample(transform: Any, _: int) -> Statement:
    own = transform.resamplers["image"]
    _require(not own.labels, transform, "labels")
    return {
        "step": "resample",
        "unit": own.unit,
        "spacing": list(own.spacing),
        "order": own.order,
        "coarse_order": own.coarse_order,
        "coarse": "anisotropic",
        "by_slice": False,
    }


def _nnunet_resample(transform: Any, _: int) -> Statement:
    own = transform.resample
    pairs = zip(own.own, own.spacing, strict=True)
    return {
        "step": "resample",
        "unit": "mm",
        "spacing": [None if keeps else value for keeps, value in pairs],
        "order": own.order,
        "coarse_order": own.coarse_order,
        "coarse": coarse_rule(own.separate),
        "by_slice": True,
    }


def coarse_rule(separate: bool | None) -> str:
    """Return the name of a rule for which axis is interpolated apart.

    Args:
        separate: As `medseg.transforms.nnunet.separate_axis` takes it.
    """
    return {None: "anisotropic", True: "coarsest", False: "never"}[separate]


def _spacing(transform: Any, _: int) -> Statement:
    own = transform.spacing_transform
    plain = not (
        own.diagonal or own.recompute_affine or _of_image(transform, transform.scale_extent)
    )
    limits = np.concatenate([own.min_pixdim, own.max_pixdim])
    _require(plain and bool(np.isnan(limits).all()), transform, "grid")
    mode = _of_image(transform, transform.mode), _of_image(transform, transform.padding_mode)
    plain = [str(getattr(one, "value", one)) for one in mode] == ["bilinear", "border"]
    _require(plain and not _of_image(transform, transform.align_corners), transform, "mode")
    values = [float(value) for value in own.pixdim[:3]]
    values += values[-1:] * (3 - len(values))
    return {"step": "spacing", "spacing": [value if value > 0 else None for value in values]}


_STATEMENTS: dict[type, Callable[[Any, int], Statement]] = {
    CastToTyped: _typed,
    CropNonzerod: _crop_nonzero,
    EnsureTyped: _typed,
    NnunetResampled: _nnunet_resample,
    NormalizeChannelsd: _normalize,
    NormalizeIntensityd: _standardize,
    Orientationd: _orient,
    Resampled: _resample,
    ScaleIntensityRanged: _scale_range,
    ScaleIntensityd: _scale,
    Spacingd: _spacing,
}
