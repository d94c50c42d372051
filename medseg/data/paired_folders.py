"""Two folders, one of images and one of labels, whose files have equal stems."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from medseg.data.class_table import Classes, classes_of, find_class_file, read_class_file
from medseg.data.dataset import LabelledDataset, TrainingCase
from medseg.data.pictures import (
    PICTURES,
    channels_of_cases,
    is_color_image,
    structures_in,
    with_codes,
)
from medseg.errors import InputError
from medseg.io.files import file_stem, file_suffix, group_channels, is_image_file

IMAGE_FOLDERS = ("imagesTr", "images", "image", "img", "imgs", "scans", "volumes")
LABEL_FOLDERS = ("labelsTr", "labels", "label", "masks", "mask", "segmentations", "seg")
SPLIT_FOLDERS = {
    "train": "training", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip
"""Folders that hold the two folders of a part, and what that part is for."""

LOSSY = (".jpg", ".jpeg")
MOST_CLASSES = 64
"""Pictures with more label values than this, and no names for them, hold numbers of objects."""

_CHANNEL = re.compile(r"_0000$")
_LABEL_SUFFIX = re.compile(r"([._-](label|labels|mask|seg|segmentation|gt))$", re.IGNORECASE)


def open_folders(root: Path) -> LabelledDataset | None:
    """Open a folder with a subfolder of images and one of labels.

    Files are paired by stem; `_0000`, `_0001` ... mark the channels of an image, and a label may
    end in `_seg`, `_mask`, `_label` or `_gt`. The two folders may lie in `train`, `val` and `test`
    each. What the values mean is said by `classes.txt` or the like (see `read_class_file`), which
    labels of colours need; without it values are read from the files, and named `label_1` and so
    on. Of two values, 0 and 255, the second is a label like any other.

    Args:
        root: The folder.

    Returns:
        The dataset, or None where there are no such subfolders, or none with image files.

    Raises:
        InputError: If an image has no label or a label no image, a case has two files, images
            differ in their number of channels (`bad-dataset`), labels of pictures hold so many
            values that they must be numbers of objects (`object-numbers`), or they are JPEG whose
            values have changed (`lossy-labels`).
    """
    parts = {part: _both(root / part) for part in SPLIT_FOLDERS}
    found = {part: folders for part, folders in parts.items() if folders}
    own = _both(root)
    if own is not None:
        cases = pair_folders(*own)
    elif "train" in found:
        cases = _of_parts(found)
    else:
        return None
    labels = [case.label for case in cases if case.label]
    class_file = find_class_file(root, labels[0].parent)
    if class_file is None:
        classes = _classes_in(root, labels)
    else:
        entries = read_class_file(class_file)
        by_color = is_color_image(labels[0]) and all(entry.color for entry in entries)
        classes = classes_of(entries, by_color=by_color)
        cases = tuple(
            replace(case, label=with_codes(case.label, classes.codes, by_color=by_color))
            for case in cases
            if case.label
        )
    return LabelledDataset(
        root=root,
        kind="folders",
        name=root.resolve().name,
        channels=channels_of_cases(cases),
        structures=classes.structures,
        cases=cases,
        ignored=classes.ignored,
        background_name=classes.background_name,
        colors=classes.colors,
    )


def _classes_in(root: Path, labels: Sequence[Path]) -> Classes:
    """Return the values of the labels as classes, unless there are too many to be any."""
    structures = structures_in(labels)
    count = len(structures)
    if count > 1 and file_suffix(labels[0]) in LOSSY:
        msg = (
            f"labels must be stored without loss, got {count} values in JPEG files in {root.name}."
            " If they were 0 and 255, write a file dataset.yaml: `{images: FOLDER, masks: FOLDER,"
            " labels: {object: 128-255}, background: 0-127}`."
        )
        raise InputError(msg, code="lossy-labels")
    if count <= MOST_CLASSES or file_suffix(labels[0]) not in PICTURES:
        return Classes("background", (0,), structures)
    msg = (
        f"labels of pictures must hold at most {MOST_CLASSES} classes without names, got {count}"
        f" values in {root.name}. If they are numbers of objects, write a file dataset.yaml:"
        " `{images: FOLDER, masks: FOLDER, labels: {object: 1-}}`. Else name them in classes.txt."
    )
    raise InputError(msg, code="object-numbers")


def _both(root: Path) -> tuple[Path, Path] | None:
    """Return the folders of images and of labels, if there are both and files in them."""
    if not root.is_dir():
        return None
    images, labels = (first_folder(root, names) for names in (IMAGE_FOLDERS, LABEL_FOLDERS))
    if images is None or labels is None:
        return None
    return (images, labels) if _files(images) or _files(labels) else None  # of DICOM, perhaps


def _of_parts(parts: dict[str, tuple[Path, Path]]) -> tuple[TrainingCase, ...]:
    cases = [
        (part, replace(case, split=SPLIT_FOLDERS[part]))
        for part, folders in parts.items()
        for case in pair_folders(*folders)
    ]
    ids = [case.case_id for _, case in cases]
    if len(set(ids)) != len(ids):
        cases = [(part, replace(c, case_id=f"{part}_{c.case_id}")) for part, c in cases]
    return tuple(sorted((case for _, case in cases), key=lambda case: case.case_id))


def pair_folders(images: Path, labels: Path) -> tuple[TrainingCase, ...]:
    """Pair the files of two folders.

    Args:
        images: Folder of images.
        labels: Folder of labels.

    Returns:
        Cases by rising id.

    Raises:
        InputError: As `open_folders`.
    """
    label_files = _by_stem(_files(labels))
    image_files = _files(images)
    by_stem = {stem: [file] for stem, file in _by_stem(image_files).items()}
    if not set(by_stem) & set(label_files):  # `case_0000` belongs to the label `case`
        by_stem = group_channels(image_files)
        by_stem = {_CHANNEL.sub("", stem): files for stem, files in by_stem.items()}
    label_of = _by_stem(
        label_files.values(),
        lambda stem: stem if stem in by_stem else _LABEL_SUFFIX.sub("", stem),
    )
    lonely = sorted(set(by_stem) ^ set(label_of))
    if lonely:
        msg = (
            f"every image must have a label of the same stem and the other way round, got"
            f" {len(lonely)} without: {', '.join(lonely[:10])}."
        )
        raise InputError(msg, code="bad-dataset")
    cases = tuple(
        TrainingCase(stem, tuple(sorted(by_stem[stem])), label_of[stem]) for stem in sorted(by_stem)
    )
    counts = {len(case.images) for case in cases}
    if len(counts) != 1:
        msg = f"images must have the same number of channel files, got {sorted(counts)}."
        raise InputError(msg, code="bad-dataset")
    return cases


def _by_stem(
    files: Iterable[Path], case_of: Callable[[str], str] = lambda stem: stem
) -> dict[str, Path]:
    """Return files by the case they belong to; of one case there is but one."""
    found: dict[str, Path] = {}
    for file in files:
        stem = case_of(file_stem(file))
        if stem in found:
            names = f"{found[stem].name} and {file.name}"
            msg = f"{file.parent.name} must hold one file of a case, got {names}."
            raise InputError(msg, code="bad-dataset")
        found[stem] = file
    return found


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and is_image_file(path))


def first_folder(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first folder that has one of several names.

    Args:
        root: Where to look.
        names: In the order of preference; upper and lower case do not matter.

    Returns:
        The folder, if there is one.
    """
    lower = {child.name.lower(): child for child in root.iterdir() if child.is_dir()}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)
