"""PASCAL VOC: JPEGImages, SegmentationClass and ImageSets/Segmentation."""

from collections.abc import Mapping
from pathlib import Path

from medseg.data.class_table import (
    ClassEntry,
    Classes,
    classes_of,
    find_class_file,
    read_class_file,
)
from medseg.data.dataset import LabelledDataset, TrainingCase
from medseg.data.pictures import (
    channels_of_cases,
    images_by_stem,
    is_color_image,
    named,
    read_list,
    refuse,
    with_codes,
)
from medseg.errors import InputError, Problem
from medseg.io.raster import voc_colors
from medseg.volume import IGNORED

IMAGES, LABELS = "JPEGImages", "SegmentationClass"
LISTS = Path("ImageSets") / "Segmentation"
SPLITS = {"train": "training", "val": "validation", "trainval": "", "test": "test"}

CLASS_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
"""In the order of their values. Source: the VOC2012 development kit."""
VOID_COLOR = (224, 224, 192)


def open_voc(root: Path) -> LabelledDataset | None:
    """Open a dataset in the layout of PASCAL VOC.

    The value 255 is left out, as in VOC's own masks. Classes are those of VOC, or those of a file
    that names them (`class_names.txt`, `labels.txt`) in the folder or up to two above it. Masks
    are palette or grey PNG with class numbers, or colour PNG in VOC's colours. Splits are those
    of the lists; without any, all images that have a mask are cases.

    Args:
        root: A folder `VOC2012` or the like, one `VOCdevkit`, or the folder that holds it.

    Returns:
        The dataset, or None where there is no such folder.

    Raises:
        InputError: If there are several, a list names what is not there, or a name is in two
            lists (`bad-dataset`).
    """
    folders = _folders(root)
    if not folders:
        return None
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        msg = f"dataset must be one VOC folder, got {names} in {str(root)!r}. Name one."
        raise InputError(msg, code="bad-dataset")
    folder = folders[0]
    images, labels = images_by_stem(folder / IMAGES), images_by_stem(folder / LABELS)
    splits = _splits(folder / LISTS)
    problems: tuple[Problem, ...] = ()
    if not splits:
        splits = dict.fromkeys(sorted(labels), "")
    elif unlisted := sorted(set(labels) - set(splits)):
        message = f"{len(unlisted)} masks are in no list and not used: {named(unlisted)}"
        problems = (Problem("not-listed", message, "warning"),)
    without = [n for n in splits if n not in labels]
    faults = {
        "without a mask": [n for n in without if splits[n] != "test"],
        "without an image": [n for n in splits if n not in images],
    }
    refuse(faults, f"every name in {LISTS.as_posix()}")
    first = next((labels[name] for name in splits if name in labels), None)
    if first is None:
        msg = f"{LABELS} must hold masks, got none that is listed in {str(folder)!r}."
        raise InputError(msg, code="bad-dataset")
    by_color = is_color_image(first)
    classes = _classes(folder, by_color=by_color)
    cases = tuple(
        TrainingCase(
            name,
            (images[name],),
            with_codes(labels[name], classes.codes, by_color=by_color),
            split,
        )
        for name, split in sorted(splits.items())
        if name in labels
    )
    return LabelledDataset(
        root=root,
        kind="voc",
        name=folder.resolve().name,
        channels=channels_of_cases(cases),
        structures=classes.structures,
        cases=cases,
        unlabelled=tuple(
            TrainingCase(name, (images[name],), split=splits[name]) for name in sorted(without)
        ),
        ignored=classes.ignored,
        colors=classes.colors,
        problems=problems,
    )


def _folders(root: Path) -> list[Path]:
    """Return the folders of VOC's layout, at the root or up to two below it."""
    for pattern in ("", "*", "VOCdevkit/*"):
        places = sorted(root.glob(pattern)) if pattern else [root]
        found = [p for p in places if (p / IMAGES).is_dir() and (p / LABELS).is_dir()]
        if found:
            return found
    return []


def _splits(lists: Path) -> dict[str, str]:
    """Return the part of the split by name; `trainval` adds what neither part lists."""
    splits: dict[str, str] = {}
    for name, split in SPLITS.items():
        path = lists / f"{name}.txt"
        names = [words[0] for words in read_list(path)] if path.is_file() else []
        known = splits if name != "trainval" else {}
        if both := sorted(n for n in names if known.get(n, split) != split):
            msg = f"a name must be in one list of {LISTS.as_posix()}, got two for {named(both)}."
            raise InputError(msg, code="bad-dataset")
        for one in names:
            splits.setdefault(one, split)
    return splits


def _classes(folder: Path, *, by_color: bool) -> Classes:
    """Return the classes, each with VOC's colour."""
    path = find_class_file(folder, folder.resolve().parent, folder.resolve().parents[1])
    names: Mapping[int, str] = dict(enumerate(CLASS_NAMES))
    own = {}
    if path is not None:
        kept = [entry for entry in read_class_file(path) if not entry.is_ignored]
        # VOC has 0 for background, which a list of names may leave out
        first = int(kept[:1] != [] and kept[0].counted and not any(e.is_background for e in kept))
        names = {0: "background"} | {entry.value + first: entry.name for entry in kept}
        own = {entry.value + first: entry.color for entry in kept}
    if max(names) >= IGNORED:
        msg = f"classes must have values under {IGNORED}, got {max(names)} in {path}."
        raise InputError(msg, code="bad-dataset")
    palette = [(int(r), int(g), int(b)) for r, g, b in voc_colors(max(names) + 1)]
    entries = [ClassEntry(names[n], n, own.get(n) or palette[n]) for n in sorted(names)]
    void = ClassEntry("void", IGNORED, VOID_COLOR)
    return classes_of([*entries, void], by_color=by_color)
