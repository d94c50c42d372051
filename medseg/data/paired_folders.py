"""Two folders, one of images and one of labels, whose files have equal stems."""

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from medseg.data.dataset import Channel, LabelledDataset, Structure, TrainingCase
from medseg.errors import InputError, MedsegError
from medseg.io.files import file_stem, file_suffix, group_channels, is_image_file
from medseg.io.masks import labels_in, read_mask
from medseg.io.read import read

IMAGE_FOLDERS = ("imagesTr", "images", "image", "img", "imgs", "scans", "volumes")
LABEL_FOLDERS = ("labelsTr", "labels", "label", "masks", "mask", "segmentations", "seg")

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
COLOURS = ("red", "green", "blue")

_CHANNEL = re.compile(r"_0000$")
_LABEL_SUFFIX = re.compile(r"([._-](label|labels|mask|seg|segmentation|gt))$", re.IGNORECASE)


def open_folders(root: Path) -> LabelledDataset | None:
    """Open a folder with a subfolder of images and one of labels.

    Files are paired by stem; `_0000`, `_0001` ... mark the channels of an image, and a label may
    end in `_seg`, `_mask`, `_label` or `_gt`. What the values of the labels mean is not written
    anywhere: they are read from the files and named `label_1` and so on.

    Args:
        root: The folder.

    Returns:
        The dataset, or None where there are no such subfolders, or none with image files.

    Raises:
        InputError: If an image has no label or a label no image, a case has two files, or images
            differ in their number of channels (`bad-dataset`).
    """
    images, labels = (_first(root, names) for names in (IMAGE_FOLDERS, LABEL_FOLDERS))
    if images is None or labels is None:
        return None
    label_files = _by_stem(_files(labels))
    image_files = _files(images)
    if not label_files and not image_files:  # of DICOM, perhaps
        return None
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
    return LabelledDataset(
        root=root,
        kind="folders",
        name=root.resolve().name,
        channels=_channels(cases[0].images),
        structures=structures_in([case.label for case in cases if case.label]),
        cases=cases,
    )


def structures_in(labels: list[Path]) -> tuple[Structure, ...]:
    """Return the values that label files hold, each as a structure.

    Files that cannot be read are passed over: the check of a dataset names them, with all else
    that is wrong.

    Args:
        labels: Label files; all are read.

    Returns:
        Structures named `label_<value>`, by rising value, 0 left out.

    Raises:
        InputError: If none of them holds a label (`bad-dataset`), or none can be read.
    """
    found: set[int] = set()
    first_error: MedsegError | None = None
    for path in labels:
        try:
            found |= labels_in(read_mask(path))
        except MedsegError as error:
            first_error = first_error or error
    found.discard(0)
    if not found and first_error is not None:
        raise first_error
    if not found:
        msg = f"labels must hold values above 0, got none in {len(labels)} files."
        raise InputError(msg, code="bad-dataset")
    return tuple(Structure(f"label_{value}", (value,)) for value in sorted(found))


def _channels(images: Sequence[Path]) -> tuple[Channel, ...]:
    """Return the channels of the first case: its files, or those of its one file."""
    if len(images) > 1:
        return tuple(Channel(f"image_{number}") for number in range(len(images)))
    image = read(images[0]) if file_suffix(images[0]) in PICTURES else None
    if image is None or image.channels == 1:
        return (Channel("image"),)
    if image.channels == len(COLOURS):
        return tuple(Channel(colour, "RGB") for colour in COLOURS)
    return tuple(Channel(f"image_{number}") for number in range(image.channels))


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


def _first(root: Path, names: tuple[str, ...]) -> Path | None:
    lower = {child.name.lower(): child for child in root.iterdir() if child.is_dir()}
    return next((lower[name.lower()] for name in names if name.lower() in lower), None)
