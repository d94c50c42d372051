"""A folder for each image with a mask of each object, as in the 2018 Data Science Bowl."""

from pathlib import Path

from medseg.data.dataset import LabelledDataset, Structure, TrainingCase
from medseg.data.pictures import channels_of_cases, images_by_stem, refuse
from medseg.errors import InputError
from medseg.io.locator import Locator

IMAGES, MASKS = "images", "masks"
STRUCTURE = "nucleus"


def open_object_masks(root: Path) -> LabelledDataset | None:
    """Open folders `<id>/images/*.png` and `<id>/masks/*.png`, one mask for each nucleus.

    The one class is all nuclei of an image together.

    Args:
        root: The folder of these folders, or one above it that holds it alone (`stage1_train`).

    Returns:
        The dataset, or None where there are no such folders.

    Raises:
        InputError: If a folder has not exactly one image, or no mask (`bad-dataset`).
    """
    folders = _folders(root)
    if not folders:
        return None
    images = {folder: list(images_by_stem(folder / IMAGES).values()) for folder in folders}
    faults = {
        "without one image": [f.name for f in folders if len(images[f]) != 1],
        "without masks": [f.name for f in folders if not images_by_stem(f / MASKS)],
    }
    refuse(faults, f"every folder in {root.name}")
    cases = tuple(
        TrainingCase(
            folder.name, (images[folder][0],), Locator(folder / MASKS, kind="objects").as_path()
        )
        for folder in folders
    )
    return LabelledDataset(
        root=root,
        kind="objects",
        name=root.resolve().name,
        channels=channels_of_cases(cases),
        structures=(Structure(STRUCTURE, (1,)),),
        cases=cases,
    )


def _folders(root: Path) -> list[Path]:
    for pattern in ("*", "*/*"):
        found = [
            folder
            for folder in sorted(root.glob(pattern))
            if (folder / IMAGES).is_dir() and (folder / MASKS).is_dir()
        ]
        if not any(len(images_by_stem(folder / IMAGES)) == 1 for folder in found):
            continue  # folders of many images each are another layout
        parents = {folder.parent for folder in found}
        if len(parents) > 1:
            names = ", ".join(sorted(parent.name for parent in parents))
            msg = f"dataset must be one folder of images and masks, got {names}. Name one."
            raise InputError(msg, code="bad-dataset")
        return found
    return []
