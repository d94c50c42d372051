"""`dataset.yaml`: what the values of image and label folders mean."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from medseg.data.class_table import Color
from medseg.data.dataset import LabelledDataset, Structure, unique_structures
from medseg.data.paired_folders import IMAGE_FOLDERS, LABEL_FOLDERS, first_folder, pair_folders
from medseg.data.pictures import channels_of_cases
from medseg.errors import InputError
from medseg.io.locator import Codes, Kind, Locator
from medseg.io.masks import LARGEST_LABEL
from medseg.volume import IGNORED

YAML_NAMES = ("dataset.yaml", "dataset.yml")
YAML_SUFFIXES = (".yaml", ".yml")
_KEYS = ("name", "images", "masks", "labels", "objects", "background", "ignored", "colors")

Range = tuple[int, int]


def open_declared(path: Path) -> LabelledDataset:
    """Open folders of images and labels by a file that says what the values mean.

    ```yaml
    name: nuclei             # the folder's name when left out
    images: images           # folders beside the file, or anywhere; found by name when left out
    masks: masks
    labels:                  # a value, a list, or a range: 1- is every value above 0
      nucleus: 1-
    objects: true            # values are numbers of objects; else so of one label with 1- alone
    background: 0            # 0 when left out
    ignored: [255]           # none when left out
    colors: {nucleus: [255, 0, 0]}
    ```

    Ranges, a background that is not 0 and labels of 0 are brought to values of their own: 0 for
    background, 1, 2 ... for the labels in order, 255 for what is left out.

    Args:
        path: The file.

    Returns:
        The dataset.

    Raises:
        InputError: If the file is not like this (`bad-dataset`), or files have no partner.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        unknown = sorted(set(document) - set(_KEYS))
        if unknown:
            msg = f"keys must be among {', '.join(_KEYS)}, got {', '.join(map(str, unknown))}"
            raise ValueError(msg)
        folders = [
            _folder(path, document.get(key), names)
            for key, names in (("images", IMAGE_FOLDERS), ("masks", LABEL_FOLDERS))
        ]
        labels = [(str(name), _ranges(value)) for name, value in document["labels"].items()]
        background = _ranges(document.get("background", 0))
        ignored = _ranges(document.get("ignored", []))
        objects = _objects(document.get("objects"))
        colors = {str(name): _color(rgb) for name, rgb in document.get("colors", {}).items()}
        name = str(document.get("name") or path.resolve().parent.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        msg = f"{path.name} must describe a dataset, got {type(error).__name__}: {error}."
        raise InputError(msg, code="bad-dataset") from error
    _refuse_overlap([*labels, ("background", background), ("ignored", ignored)], path)
    cases = pair_folders(*folders)
    structures, codes = _values(labels, background, ignored, recode=objects)
    kind: Kind = "numbers" if objects else "values"
    if codes:
        cases = tuple(
            replace(case, label=Locator(case.label, kind=kind, codes=codes).as_path())
            for case in cases
            if case.label is not None
        )
    plain = tuple(v for low, high in ignored for v in range(low, high + 1)) if not codes else ()
    return LabelledDataset(
        root=path.parent,
        kind="folders",
        name=name,
        channels=channels_of_cases(cases),
        structures=unique_structures(structures, regions=False),
        cases=cases,
        background=(0,) if codes else tuple(low for low, _ in background),
        ignored=(IGNORED,) if codes and ignored else plain,
        colors=colors,
    )


def _folder(path: Path, given: Any, names: tuple[str, ...]) -> Path:
    folder = path.parent / str(given) if given else first_folder(path.parent, names)
    if folder is None or not folder.is_dir():
        msg = f"a folder {' or '.join(names[:3])} must be there, got {given!r}"
        raise ValueError(msg)
    return folder


def _ranges(value: Any) -> list[Range]:
    """Return what a value, a list of them or a range stands for."""
    parts = value if isinstance(value, list) else [value]
    return [_range(part) for part in parts]


def _range(part: Any) -> Range:
    low, mark, high = str(part).partition("-")
    bounds = int(low), int(high) if high.strip() else (LARGEST_LABEL if mark else int(low))
    if isinstance(part, bool) or not 0 <= bounds[0] <= bounds[1] <= LARGEST_LABEL:
        msg = f"values must be from 0 to {LARGEST_LABEL}, got {part!r}"
        raise ValueError(msg)
    return bounds


def _objects(given: Any) -> bool:
    if given not in (None, True):
        msg = f"objects must be true, or not be there, got {given!r}"
        raise ValueError(msg)
    return given is not None


def _color(rgb: Any) -> Color:
    red, green, blue = (int(part) for part in rgb)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        msg = f"colors must be three numbers from 0 to 255, got {rgb!r}"
        raise ValueError(msg)
    return red, green, blue


def _refuse_overlap(entries: Sequence[tuple[str, Sequence[Range]]], path: Path) -> None:
    ranges = sorted((low, high, name) for name, found in entries for low, high in found)
    for (_, high, name), (low, _, other) in pairwise(ranges):
        if low <= high:
            msg = f"a value must be of one label, got {low} of {name} and {other} in {path.name}."
            raise InputError(msg, code="bad-dataset")


def _values(
    labels: Sequence[tuple[str, Sequence[Range]]],
    background: Sequence[Range],
    ignored: Sequence[Range],
    *,
    recode: bool,
) -> tuple[list[Structure], Codes]:
    """Return the labels with their values, and the codes where files have others."""
    every = [*background, *ignored, *(one for _, ranges in labels for one in ranges)]
    zero_is_background = any(low == 0 for low, _ in background)
    if not recode and zero_is_background and all(low == high for low, high in every):
        return [Structure(name, tuple(low for low, _ in ranges)) for name, ranges in labels], ()
    if ignored and len(labels) >= IGNORED:
        msg = f"labels must be at most {IGNORED - 1} where values are left out, got {len(labels)}."
        raise InputError(msg, code="bad-dataset")
    numbered = enumerate([background, *(ranges for _, ranges in labels)])
    codes = [(_code(one), value) for value, ranges in numbered for one in ranges]
    codes += [(_code(one), IGNORED) for one in ignored]
    names = [name for name, _ in labels]
    return [Structure(name, (n,)) for n, name in enumerate(names, start=1)], tuple(codes)


def _code(bounds: Range) -> str:
    low, high = bounds
    return str(low) if low == high else f"{low}-{high}"
