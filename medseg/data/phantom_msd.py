"""CT phantoms as a labelled dataset in the layout of the Medical Segmentation Decathlon."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

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
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write phantoms and their masks as `imagesTr`, `labelsTr` and `dataset.json`.

    Args:
        root: Folder of the dataset; made where it is not there.
        count: Number of cases.
        first_seed: Seed of the first; they rise by one.
        labels: Name to the values of a phantom's mask (1 organ, 2 tumour) that it covers, numbered
            from 1 in the files; `{"spleen": (1, 2)}` takes organ and tumour as one.
        progress: Called with the cases done and their number.

    Returns:
        The folder.

    Raises:
        OutputError: If writing fails.
    """
    entries = []
    for number in range(count):
        volume, mask = phantom_ct(first_seed + number)
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
