"""CamVid in the form of SegNet: train, trainannot, and lists of pairs."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from medseg.data.class_table import ClassEntry, classes_of, find_class_file, read_class_file
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
from medseg.io.files import file_stem

ANNOTATIONS = "annot"
"""Ending of the folder with the labels of a part."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}

SEGNET_CLASSES = (
    ("Sky", (128, 128, 128)),
    ("Building", (128, 0, 0)),
    ("Pole", (192, 192, 128)),
    ("Road", (128, 64, 128)),
    ("Pavement", (60, 40, 222)),
    ("Tree", (128, 128, 0)),
    ("SignSymbol", (192, 128, 128)),
    ("Fence", (64, 64, 128)),
    ("Car", (64, 0, 128)),
    ("Pedestrian", (64, 64, 0)),
    ("Bicyclist", (0, 128, 192)),
    ("Unlabelled", (0, 0, 0)),
)
"""In the order of their values; where no file names the classes. Source: Badrinarayanan et al.,
SegNet, 2017, and the test script of its tutorial."""


def open_camvid(root: Path) -> LabelledDataset | None:
    """Open a dataset in the layout of CamVid as SegNet has it.

    Images of a part lie in `train`, `val` or `test`, their labels in `trainannot` and so on. Lists
    `train.txt` of `image label` a line say which are used; their paths may be those of another
    machine, the last parts count. A label that is void or unlabelled is left out.

    Args:
        root: The folder.

    Returns:
        The dataset, or None where there is no `train` with `trainannot`.

    Raises:
        InputError: If a list names what is not there, or there is an image without a label
            (`bad-dataset`).
    """
    parts = [part for part in SPLITS if (root / f"{part}{ANNOTATIONS}").is_dir()]
    if "train" not in parts or not (root / "train").is_dir():
        return None
    pairs: list[tuple[str, Path, Path]] = []
    problems: list[Problem] = []
    for part in parts:
        listed = root / f"{part}.txt"
        if listed.is_file():
            found = _listed(root, listed)
            problems += _unlisted(root / part, listed, [image for image, _ in found])
        else:
            found = _folder(root, part)
        pairs += [(part, image, label) for image, label in found]
    if not pairs:
        msg = f"dataset must hold images and labels, got none in {str(root)!r}."
        raise InputError(msg, code="bad-dataset")
    class_file = find_class_file(root)
    entries = read_class_file(class_file) if class_file else _segnet_entries()
    by_color = is_color_image(pairs[0][2]) and all(entry.color for entry in entries)
    classes = classes_of(entries, by_color=by_color)
    ids = _ids(pairs)
    cases = [
        TrainingCase(case, (image,), with_codes(label, classes.codes, by_color=by_color), SPLITS[p])
        for case, (p, image, label) in zip(ids, pairs, strict=True)
    ]
    return LabelledDataset(
        root=root,
        kind="camvid",
        name=root.resolve().name,
        channels=channels_of_cases(cases),
        structures=classes.structures,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        background=classes.background,
        ignored=classes.ignored,
        background_name=classes.background_name,
        colors=classes.colors,
        problems=tuple(problems),
    )


def _segnet_entries() -> tuple[ClassEntry, ...]:
    return tuple(ClassEntry(name, n, color) for n, (name, color) in enumerate(SEGNET_CLASSES))


def _ids(pairs: Sequence[tuple[str, Path, Path]]) -> list[str]:
    """Return the stems, with the part before those that occur in several."""
    stems = [file_stem(image) for _, image, _ in pairs]
    counts = Counter(stems)
    return [
        stem if counts[stem] == 1 else f"{part}_{stem}"
        for stem, (part, _, _) in zip(stems, pairs, strict=True)
    ]


def _listed(root: Path, path: Path) -> list[tuple[Path, Path]]:
    pairs, missing = [], []
    for number, words in enumerate(read_list(path), start=1):
        if len(words) != 2:
            msg = (
                f"{path.name} must list an image and a label a line, got {words} in entry {number}."
            )
            raise InputError(msg, code="bad-dataset")
        found = [_resolved(root, word) for word in words]
        missing += [word for word, file in zip(words, found, strict=True) if file is None]
        if found[0] and found[1]:
            pairs.append((found[0], found[1]))
    refuse({"not there": missing}, f"every line of {path.name}")
    counts = Counter(image for image, _ in pairs)
    if twice := sorted(image.name for image, count in counts.items() if count > 1):
        msg = f"{path.name} must list an image once, got {named(twice)} twice."
        raise InputError(msg, code="bad-dataset")
    return pairs


def _resolved(root: Path, word: str) -> Path | None:
    """Find a file by as many of the last parts of its path as there are below the root."""
    parts = PurePosixPath(word.replace("\\", "/")).parts
    tails = [root.joinpath(*parts[n:]) for n in range(len(parts)) if parts[n] != "/"]
    return next((path for path in tails[: max(1, len(tails) - 1)] if path.is_file()), None)


def _unlisted(folder: Path, path: Path, images: Sequence[Path]) -> list[Problem]:
    left = sorted(set(images_by_stem(folder).values()) - set(images))
    if not left:
        return []
    names = named(file.name for file in left)
    message = f"{len(left)} images of {folder.name} are not in {path.name} and not used: {names}"
    return [Problem("not-listed", message, "warning")]


def _folder(root: Path, part: str) -> list[tuple[Path, Path]]:
    images, labels = images_by_stem(root / part), images_by_stem(root / f"{part}{ANNOTATIONS}")
    faults = {
        "without a label": sorted(set(images) - set(labels)),
        "without an image": sorted(set(labels) - set(images)),
    }
    refuse(faults, f"every file of {part} and {part}{ANNOTATIONS}")
    return [(images[stem], labels[stem]) for stem in sorted(images)]
