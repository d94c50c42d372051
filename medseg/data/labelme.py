"""Folders of Labelme's JSON files, whose shapes are drawn into masks of classes."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from medseg.data.class_table import (
    BACKGROUND_NAMES,
    IGNORED_NAMES,
    find_class_file,
    read_class_file,
)
from medseg.data.dataset import LabelledDataset, Structure, TrainingCase, unique_structures
from medseg.data.pictures import channels_of_cases, named
from medseg.errors import InputError, Problem
from medseg.io.files import file_stem, is_image_file
from medseg.io.labelme import LabelmeFile, is_labelme, labelme_in, labels_of
from medseg.io.locator import Codes, Locator, parse_locator
from medseg.volume import IGNORED

_PATTERNS = ("*.json", "*/*.json", "*/*/*.json")


def open_labelme(root: Path, *, objects: bool = False) -> LabelledDataset | None:
    """Open a folder of JSON files of Labelme, each beside its image or with the image in it.

    `labels.txt` beside the files or above them gives the order of the classes: `__ignore__` is
    left out, `_background_` is 0, the others count from 1. Without it classes are all labels that
    occur, sorted. How shapes become a mask is said by `medseg.io.labelme.read_labelme_mask`.

    Args:
        root: The folder, or the one above it.
        objects: Leave damaged shapes to the reader of the objects, and list files without an
            image as problems, where they are errors else.

    Returns:
        The dataset, or None where the first JSON file is none of Labelme's.

    Raises:
        InputError: If a file is damaged, an image is missing or of two files, there is no label,
            or there are too many (`bad-dataset`, `bad-annotation`, `not-found`).
    """
    paths, deeper = _files(root)
    if not paths:
        return None
    found = {path: labelme_in(path, strict=not objects) for path in paths}
    files = [file for file in found.values() if file is not None]
    problems = []
    if left := [path.name for path, file in found.items() if file is None]:
        message = f"{len(left)} JSON files are none of Labelme's and not used: {named(left)}"
        problems.append(Problem("not-used", message, "warning"))
    if deeper:
        message = (
            f"{len(deeper)} files of Labelme lie in folders below the others and are not used:"
            f" {named([path.relative_to(root).as_posix() for path in deeper])}"
        )
        problems.append(Problem("not-used", message, "warning"))
    if objects:
        files, missing = _with_image(files)
        problems += missing
    problems += _without_file(files)
    structures, codes = _classes(root, files)
    ids = _ids(files)
    images = [file.image for file in files]
    if twice := sorted({image.name for image, n in Counter(images).items() if n > 1}):
        msg = f"an image must have one file, got several for {named(twice)}."
        raise InputError(msg, code="bad-dataset")
    cases = [
        TrainingCase(case, (image,), Locator(file.path, kind="labelme", codes=codes).as_path())
        for case, image, file in zip(ids, images, files, strict=True)
    ]
    ignored = (IGNORED,) if IGNORED in dict(codes).values() else ()
    return LabelledDataset(
        root=root,
        kind="labelme",
        name=root.resolve().name,
        channels=channels_of_cases(cases),
        structures=structures,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        ignored=ignored,
        problems=tuple(problems),
    )


def _files(root: Path) -> tuple[list[Path], list[Path]]:
    """Return the JSON files of the nearest level with Labelme's, and those of the levels below."""
    for place, pattern in enumerate(_PATTERNS):
        found = [path for path in sorted(root.glob(pattern)) if not path.name.startswith(".")]
        if any(is_labelme(path) for path in found):
            below = (path for other in _PATTERNS[place + 1 :] for path in sorted(root.glob(other)))
            return found, [path for path in below if is_labelme(path)]
    return [], []


def _with_image(files: Sequence[LabelmeFile]) -> tuple[list[LabelmeFile], list[Problem]]:
    """Return the files whose image is there, if it is of any, and a problem of each other one."""
    found, problems, last = [], [], None
    for file in files:
        try:
            parse_locator(file.image)
        except InputError as error:
            message = f"{str(error).rstrip('.')}: left out with its shapes"
            problems.append(Problem("missing-image", message, "warning"))
            last = error
        else:
            found.append(file)
    if last is not None and not found:
        raise last
    return found, problems


def _without_file(files: Sequence[LabelmeFile]) -> list[Problem]:
    """Tell of images beside the files that nobody has annotated."""
    used = {parse_locator(file.image).path for file in files} | {file.path for file in files}
    stems = {(path.parent, file_stem(path)) for path in used} | {
        (file.path.parent, file.path.stem) for file in files
    }
    folders = sorted({file.path.parent for file in files})
    left = [
        path.name
        for folder in folders
        for path in sorted(folder.iterdir())
        if is_image_file(path) and (path.parent, file_stem(path)) not in stems
    ]
    if not left:
        return []
    message = f"{len(left)} images have no JSON file and are not used: {named(left)}"
    return [Problem("not-annotated", message, "warning")]


def _ids(files: Sequence[LabelmeFile]) -> list[str]:
    """Return the stems, with the folder before those that occur in several."""
    counts = Counter(file.path.stem for file in files)
    return [
        f.path.stem if counts[f.path.stem] == 1 else f"{f.path.parent.name}_{f.path.stem}"
        for f in files
    ]


def _classes(root: Path, files: Sequence[LabelmeFile]) -> tuple[tuple[Structure, ...], Codes]:
    folder = files[0].path.parent
    named_in = find_class_file(folder, folder.resolve().parent, root)
    if named_in is None:
        names = labels_of(files)
    else:
        names = [entry.name for entry in read_class_file(named_in)]
    ignored = [name for name in names if name.casefold() in IGNORED_NAMES]
    background = [name for name in names if name.casefold() in BACKGROUND_NAMES]
    classes = [name for name in names if name not in (*ignored, *background)]
    if len(classes) >= IGNORED and ignored:
        msg = f"classes must be at most {IGNORED} where some are left out, got {len(classes) + 1}."
        raise InputError(msg, code="bad-dataset")
    structures = [Structure(name, (number,)) for number, name in enumerate(classes, start=1)]
    codes = [(name, 0) for name in background]
    codes += [(name, number) for number, name in enumerate(classes, start=1)]
    codes += [(name, IGNORED) for name in ignored]
    return unique_structures(structures, regions=False), tuple(codes)
