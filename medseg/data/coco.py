"""COCO's annotations of objects, drawn into masks of classes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.data.class_table import BACKGROUND_NAMES, IGNORED_NAMES
from medseg.data.dataset import LabelledDataset, Structure, TrainingCase, unique_structures
from medseg.data.pictures import channels_of_cases, refuse
from medseg.errors import InputError, Problem
from medseg.io.coco import CocoFile, CocoImage, is_coco, read_coco
from medseg.io.files import file_stem
from medseg.io.locator import Codes, Locator
from medseg.volume import IGNORED

_NAMES = ("annotations.json", "_annotations.coco.json", "instances.json", "coco.json")
_SPLITS = {
    "train": "training", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test",
}  # fmt: skip
_PARTS = ("instances_{}2017.json", "instances_{}2014.json", "instances_{}.json")


def open_coco(path: Path, *, objects: bool = False) -> LabelledDataset | None:
    """Open annotations of objects in COCO's format.

    Classes are the categories by rising id, numbered from 1 without gaps; one that is named
    background is 0. How objects become a mask is said by `medseg.io.coco.read_coco_mask`.

    Args:
        path: A JSON file; or a folder with `annotations.json`, with `annotations/instances_*.json`
            beside `train2017` and so on, or with `_annotations.coco.json` in `train`, `valid` and
            `test`.
        objects: List annotations of no image or category, and images that are not there, as
            problems, where they are errors else.

    Returns:
        The dataset, or None where there is no such file.

    Raises:
        InputError: If a file is damaged (`bad-annotation`), an image is not there, or files of
            several parts differ in their categories (`bad-dataset`).
    """
    parts = _parts(path)
    if not parts:
        return None
    files = [read_coco(file, strict=not objects) for file, _ in parts]
    if any(dict(file.categories) != dict(files[0].categories) for file in files[1:]):
        msg = f"categories must be the same in {' and '.join(f.path.name for f in files)}."
        raise InputError(msg, code="bad-dataset")
    structures, codes = _classes(files[0].categories)
    ignored = any(value == IGNORED for _, value in codes) or any(f.has_crowds for f in files)
    if ignored and len(structures) >= IGNORED:
        msg = f"classes must be at most {IGNORED} with crowds, got {len(structures) + 1}."
        raise InputError(msg, code="bad-dataset")
    cases: list[TrainingCase] = []
    problems = _without_objects(files)
    for (_, split), file in zip(parts, files, strict=True):
        found, missing = _cases(path, file, split, codes)
        if missing and (not objects or not found):
            refuse({"not there": missing}, f"every file_name in {file.path.name}")
        problems += [_missing(name, file) for name in missing]
        problems += file.problems
        cases += found
    counts = Counter(case.case_id for case in cases)
    if twice := sorted(case for case, count in counts.items() if count > 1):
        msg = f"images must have names of their own, got {len(twice)} twice, such as {twice[0]}."
        raise InputError(msg, code="bad-dataset")
    if not cases:
        msg = f"annotations must list images, got none in {files[0].path.name}."
        raise InputError(msg, code="bad-dataset")
    root = path if path.is_dir() else path.parent
    return LabelledDataset(
        root=root,
        kind="coco",
        name=root.resolve().name if path.is_dir() or path.name in _NAMES else path.stem,
        channels=channels_of_cases(cases),
        structures=structures,
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        ignored=(IGNORED,) if ignored else (),
        problems=tuple(problems),
    )


def _parts(path: Path) -> list[tuple[Path, str]]:
    """Return the files and the part of the split that each is of."""
    if path.is_file():
        return [(path, "")] if is_coco(path) else []
    single = [path / name for name in _NAMES if (path / name).is_file()]
    if single:
        return [(single[0], "")] if is_coco(single[0]) else []
    found = [
        (file, split)
        for part, split in _SPLITS.items()
        for file in (
            path / part / "_annotations.coco.json",
            *(path / "annotations" / name.format(part) for name in _PARTS),
        )
        if file.is_file()
    ]
    whole = path / "annotations" / "instances_default.json"
    return found or ([(whole, "")] if whole.is_file() else [])


def _classes(categories: Mapping[int, str]) -> tuple[tuple[Structure, ...], Codes]:
    structures: list[Structure] = []
    codes = []
    for identity, name in categories.items():
        if name.casefold() in BACKGROUND_NAMES:
            codes.append((str(identity), 0))
        elif name.casefold() in IGNORED_NAMES:
            codes.append((str(identity), IGNORED))
        else:
            structures.append(Structure(name, (len(structures) + 1,)))
            codes.append((str(identity), len(structures)))
    return unique_structures(structures, regions=False), tuple(codes)


def _missing(name: str, file: CocoFile) -> Problem:
    message = f"image {name} of {file.path.name} is not there: left out with its annotations"
    return Problem("missing-image", message, "warning")


def _cases(
    path: Path, file: CocoFile, split: str, codes: Codes
) -> tuple[list[TrainingCase], list[str]]:
    """Return the cases, and the names of images that are not there."""
    found = {image: _image(path, file.path, image) for image in file.images.values()}
    missing = [image.file_name for image, place in found.items() if place is None]
    stems = Counter(file_stem(Path(image.file_name)) for image in found)
    cases = [
        TrainingCase(
            _case_id(image, stems),
            (place,),
            Locator(file.path, kind="coco", entry=str(image.id), codes=codes).as_path(),
            split,
        )
        for image, place in found.items()
        if place is not None
    ]
    return cases, missing


def _case_id(image: CocoImage, stems: Mapping[str, int]) -> str:
    """Return the stem, with the folders before one that occurs in several."""
    name = Path(image.file_name)
    stem = file_stem(name)
    return stem if stems[stem] == 1 else "_".join((*name.parent.parts, stem))


def _image(path: Path, annotations: Path, image: CocoImage) -> Path | None:
    """Find an image: beside its annotations, or in a folder that is named after them."""
    folder = annotations.parent
    part = annotations.stem.removeprefix("instances_")
    roots = [folder, folder / "images", folder / "JPEGImages"]
    if folder.name == "annotations":
        above = folder.parent
        roots += [above, above / part, above / "images" / part, above / "images"]
    if path.is_dir():
        roots.append(path)
    places = (root / image.file_name for root in roots)
    return next((place for place in places if place.is_file()), None)


def _without_objects(files: Sequence[CocoFile]) -> list[Problem]:
    empty = sum(not file.annotations.get(image) for file in files for image in file.images)
    if not empty:
        return []
    message = f"{empty} images have no annotation: all of them counts as background"
    return [Problem("not-annotated", message, "warning")]
