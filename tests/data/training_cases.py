"""Small labelled cases and plain transforms for the tests of the data path."""

from pathlib import Path

import numpy as np
import torch
from monai.transforms import EnsureChannelFirstd, EnsureTyped, LoadImaged, ScaleIntensityd

from medseg.transforms import ImageReader
from medseg.volume import Source, Volume
from tests.phantoms import oriented_affine, write_nifti

KEYS = ["image", "label"]


def write_case(folder: Path, case: str, shape=(12, 10, 8), seed: int = 0) -> dict:
    """Write an image of noise and a label with classes 1 and 2 where there is room."""
    random = np.random.default_rng(seed)
    affine = oriented_affine(spacing_mm=(1.0, 1.5, 2.0))
    image = random.normal(100, 20, shape).astype(np.float32)
    label = np.zeros(shape, np.uint8)
    label[2:6, 2:5, 1:4] = 1
    label[7:9, 5:9, 2:6] = 2
    paths = {
        "image": folder / "images" / f"{case}.nii.gz",
        "label": folder / "labels" / f"{case}.nii.gz",
    }
    for key, array in (("image", image), ("label", label)):
        write_nifti(Volume(array[None], affine, Source()), paths[key])
    return {"case": case, **{key: str(path) for key, path in paths.items()}}


def loading(scale: float = 1.0) -> list:
    """Return transforms that load a case and scale its image."""
    return [
        LoadImaged(KEYS, reader=ImageReader()),
        EnsureChannelFirstd(KEYS),
        ScaleIntensityd("image", minv=0.0, maxv=scale),
        EnsureTyped(KEYS, dtype=[torch.float32, torch.uint8]),
    ]
