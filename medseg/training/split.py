"""Fixed splits: which cases train and which validate, as a committed file."""

import json
from pathlib import Path
from typing import Literal

from medseg.errors import InputError


def cases_of_split(
    split_file: str, dataset_dir: str, part: Literal["training", "validation"]
) -> list[dict[str, str]]:
    """List the image and label files of one part of a fixed split.

    The split file holds `{"training": [...], "validation": [...]}` with case names; the dataset
    has the folders `imagesTr` and `labelsTr` of the Medical Segmentation Decathlon.

    Args:
        split_file: JSON file.
        dataset_dir: Folder of the dataset.
        part: Which part.

    Returns:
        One dictionary a case with the keys `image` and `label`.

    Raises:
        InputError: If the two parts share a case, or a file is missing.
    """
    split = json.loads(Path(split_file).read_text())
    shared = sorted(set(split["training"]) & set(split["validation"]))
    if shared:
        msg = f"split_file must name each case once, got {shared} in both parts of {split_file}"
        raise InputError(msg, code="split-overlap")
    root = Path(dataset_dir)
    cases = [
        {key: str(root / folder / f"{name}.nii.gz") for key, folder in _FOLDERS.items()}
        for name in split[part]
    ]
    missing = [path for case in cases for path in case.values() if not Path(path).is_file()]
    if missing:
        msg = (
            f"dataset_dir must hold every case of {split_file}, got {len(missing)} missing files,"
            f" the first {missing[0]}. Pass --dataset_dir with the folder of the dataset."
        )
        raise InputError(msg, code="missing-case")
    return cases


_FOLDERS = {"image": "imagesTr", "label": "labelsTr"}
