"""Small labelled datasets in every layout, for tests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.io.nifti import write_nifti_image
from medseg.volume import Volume

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])


def write_image(path: Path, array: npt.NDArray[Any], affine: Any = AFFINE) -> Path:
    """Write (I, J, K) or (I, J, K, C) as NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    write_nifti_image(Volume(channels, affine), path)
    return path


def case_arrays(
    seed: int, values: Sequence[int] = (1, 2), shape: tuple[int, int, int] = (14, 12, 10)
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Return noise with a bright box a label, and the label."""
    rng = np.random.default_rng(seed)
    label = np.zeros(shape, np.uint8 if max(values) < 256 else np.uint16)
    for number, value in enumerate(values):
        start = 2 + 4 * number
        label[start : start + 3, 3:8, 3:7] = value
    image = rng.normal(size=shape).astype(np.float32)
    for number, value in enumerate(values, start=1):
        image[label == value] += 3.0 * number
    return image, label


def write_msd(
    root: Path,
    count: int = 6,
    values: Sequence[int] = (1, 2),
    modality: Sequence[str] = ("MRI",),
    shape: tuple[int, int, int] = (14, 12, 10),
) -> Path:
    """Write a dataset in the layout of the Medical Segmentation Decathlon."""
    entries = []
    for number in range(count):
        image, label = case_arrays(number, values, shape)
        if len(modality) > 1:
            image = np.stack([image + n for n in range(len(modality))], -1)
        name = f"toy_{number:03d}.nii.gz"
        write_image(root / "imagesTr" / name, image)
        write_image(root / "labelsTr" / name, label)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    description = {
        "name": "Toy",
        "modality": {str(n): name for n, name in enumerate(modality)},
        "labels": {"0": "background", **{str(v): f"thing {v}" for v in values}},
        "training": entries,
        "test": [],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root


def write_nnunet(
    root: Path, labels: Mapping[str, Any], channels: Sequence[str] = ("FLAIR", "T1")
) -> Path:
    """Write a dataset as nnU-Net has it."""
    for number in range(4):
        image, label = case_arrays(number, (1, 2))
        for channel in range(len(channels)):
            name = f"case_{number}_{channel:04d}.nii.gz"
            write_image(root / "imagesTr" / name, image + channel)
        write_image(root / "labelsTr" / f"case_{number}.nii.gz", label)
    description = {
        "channel_names": {str(n): name for n, name in enumerate(channels)},
        "labels": labels,
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return root
