"""The augmentation that a bundle states for its training patches."""

from typing import Any

from medseg.bundle.spec import BundleSpec
from medseg.volume import IGNORED

NEARLY_SQUARE = 1.5
"""Ratio of the edges of a 2D patch up to which images are turned to any angle (nnU-Net)."""


def augmentation_of(spec: BundleSpec) -> list[dict[str, Any]]:
    """Return the augmentation of training patches.

    Args:
        spec: The bundle.

    Returns:
        One transform a line.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021, supplementary note 4; nnU-Net v2.8.
    """
    if spec.photographs:
        return _augmentation_of_photographs(spec)
    degrees = 30.0
    if spec.in_plane is not None:
        degrees = 180.0
    elif spec.dims == 2:
        square = max(spec.patch_size) / min(spec.patch_size) <= NEARLY_SQUARE
        degrees = 180.0 if square else 15.0
    lines: list[dict[str, Any]] = [
        {
            "_target_": "medseg.transforms.RandPatchd",
            "keys": "@keys",
            "patch_size": "@patch_size",
            "rotate_degrees": degrees,
            "rotate_prob": 0.5 if spec.in_colour else 0.2,
            "scale_range": [0.5, 2.0] if spec.in_colour else [0.7, 1.4],
            "scale_prob": 0.5 if spec.in_colour else 0.2,
            "coarse_axis": spec.in_plane,
            **({} if spec.ignore_index is None else {"label_outside": spec.ignore_index}),
        },
        {
            "_target_": "RandGaussianNoised",
            "keys": "image",
            "prob": 0.3 if spec.in_colour else 0.1,
            "mean": 0.0,
            "std": 0.3 if spec.in_colour else 0.1,
        },
        {
            "_target_": "medseg.transforms.RandSmoothd",
            "keys": "image",
            "prob": 0.2,
            "sigma": [0.5, 1.0],
        },
        {"_target_": "RandScaleIntensityd", "keys": "image", "prob": 0.15, "factors": 0.25},
        {
            "_target_": "RandScaleIntensityFixedMeand",
            "keys": "image",
            "prob": 0.15,
            "factors": 0.25,
            "preserve_range": True,
        },
        {
            "_target_": "RandSimulateLowResolutiond",
            "keys": "image",
            "prob": 0.25,
            "zoom_range": [0.5, 1.0],
            **({"upsample_mode": "bilinear"} if spec.dims == 2 else {}),
        },
        {
            "_target_": "RandAdjustContrastd",
            "keys": "image",
            "prob": 0.1,
            "gamma": [0.7, 1.5],
            "invert_image": True,
            "retain_stats": True,
        },
        {
            "_target_": "RandAdjustContrastd",
            "keys": "image",
            "prob": 0.5 if spec.in_colour else 0.3,
            "gamma": [0.5, 2.0] if spec.in_colour else [0.7, 1.5],
            "retain_stats": True,
        },
    ]
    # of pictures in colour: stains differ between laboratories, sizes between magnifications,
    # exposure and noise between cameras
    if spec.in_colour:
        lines.append({"_target_": "medseg.transforms.RandColord", "keys": "image", "prob": 0.5})
    lines += [
        {"_target_": "RandFlipd", "keys": "@keys", "prob": 0.5, "spatial_axis": axis}
        for axis in range(spec.dims)
    ]
    return lines


def _augmentation_of_photographs(spec: BundleSpec) -> list[dict[str, Any]]:
    """Return the augmentation of pictures with an up and a down: scale, place, side, colour, blur.

    Source:
        Chen et al., DeepLabv3+, ECCV 2018 (scales from half to twice, left and right); the colour
        changes of Liu et al., SSD, ECCV 2016.
    """
    return [
        {
            "_target_": "medseg.transforms.RandPatchd",
            "keys": "@keys",
            "patch_size": "@patch_size",
            "rotate_degrees": 10.0,
            "rotate_prob": 0.2,
            "scale_range": [0.5, 2.0],
            "scale_prob": 0.8,
            **({} if spec.objects else {"label_outside": IGNORED}),
        },
        {"_target_": "medseg.transforms.RandColord", "keys": "image", "prob": 0.5},
        {
            "_target_": "medseg.transforms.RandSmoothd",
            "keys": "image",
            "prob": 0.1,
            "sigma": [0.5, 1.5],
        },
        {"_target_": "RandFlipd", "keys": "@keys", "prob": 0.5, "spatial_axis": 1},
    ]
