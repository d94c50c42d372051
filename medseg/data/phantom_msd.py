"""CT phantoms as a labelled dataset in the layout of the Medical Segmentation Decathlon."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from medseg.data.phantom import phantom_ct
from medseg.io.atomic import write_json
from medseg.io.nifti import write_nifti_image
from medseg.volume import Volume, mask_dtype

ORGAN_AND_TUMOUR: Mapping[str, tuple[int, ...]] = {"organ": (1,), "tumour": (2,)}
"""Labels of a phantom: name to values of its mask."""


def write_phantom_msd(
    root: Path,
    count: int,
    *,
    first_seed: int = 0,
    labels: Mapping[str, tuple[int, ...]] = ORGAN_AND_TUMOUR,
    box: tuple[int, int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write phantoms and their masks as `imagesTr`, `labelsTr` and `dataset.json`.

    Args:
        root: Folder of the dataset; made where it is not there.
        count: Number of cases.
        first_seed: Seed of the first; they rise by one.
        labels: Name to the values of a phantom's mask (1 organ, 2 tumour) that it covers, numbered
            from 1 in the files; `{"spleen": (1, 2)}` takes organ and tumour as one.
        box: Size of the part around the labels that is written; voxels; all when left out.
        progress: Called with the cases done and their number.

    Returns:
        The folder.

    Raises:
        OutputError: If writing fails.
    """
    entries = []
    for number in range(count):
        volume, mask = phantom_ct(first_seed + number)
        if box is not None:
            volume, mask = _around(volume, mask, box)
        name = f"phantom_{first_seed + number:05d}.nii.gz"
        label = np.zeros(mask.shape, mask_dtype(len(labels)))
        for value, covered in enumerate(labels.values(), start=1):
            label[np.isin(mask, covered)] = value
        write_nifti_image(volume, root / "imagesTr" / name)
        write_nifti_image(Volume(label[None], volume.affine), root / "labelsTr" / name)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
        if progress is not None:
            progress(number + 1, count)
    write_json(
        root / "dataset.json",
        {
            "name": "CT phantoms",
            "description": "made-up images; no patient",
            "modality": {"0": "CT"},
            "labels": {"0": "background", **{str(n): k for n, k in enumerate(labels, start=1)}},
            "numTraining": count,
            "numTest": 0,
            "training": entries,
            "test": [],
        },
    )
    return root


def _around(
    volume: Volume, mask: npt.NDArray[np.uint8], box: tuple[int, int, int]
) -> tuple[Volume, npt.NDArray[np.uint8]]:
    """Cut a box around the last label, the tumour where there is one, out of a phantom."""
    centre = np.argwhere(mask == mask.max()).mean(axis=0)
    start = [
        int(np.clip(middle - size // 2, 0, max(0, extent - size)))
        for middle, size, extent in zip(centre, box, mask.shape, strict=True)
    ]
    part = tuple(slice(first, first + size) for first, size in zip(start, box, strict=True))
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array(start)
    return Volume(volume.array[(slice(None), *part)], affine, volume.source), mask[part]
