"""Datasets that `dataset.json` describes: Medical Segmentation Decathlon, nnU-Net."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.data.dataset import (
    Channel,
    LabelledDataset,
    Structure,
    TrainingCase,
    unique_structures,
)
from medseg.errors import InputError
from medseg.io.files import file_stem

DESCRIPTION = "dataset.json"
IMAGES, LABELS, TEST = "imagesTr", "labelsTr", "imagesTs"

_WORD = "(?<![a-z0-9]){}(?![a-z0-9])"
_MODALITIES = (
    (_WORD.format("(cb)?ct") + "|hounsfield|computed", "CT"),
    (_WORD.format("(pet|pt)") + "|suv", "PT"),
    (_WORD.format("(mri?|adc|dwi|swi|pd)") + r"|flair|(?<![a-z0-9])t[12](?!\d)|mp2?rage", "MR"),
    (_WORD.format("us") + "|ultrasound", "US"),
    (_WORD.format("(cr|dx)") + "|x-?ray", "DX"),
)


def open_described(root: Path) -> LabelledDataset:
    """Open a folder with `dataset.json`.

    Args:
        root: The folder.

    Returns:
        The dataset.

    Raises:
        InputError: If the description is not one, or names no labelled case (`bad-dataset`).
    """
    path = root / DESCRIPTION
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        nnunet = "channel_names" in document
        names = document["channel_names"] if nnunet else document["modality"]
        channels = channels_of([str(names[key]) for key in sorted(names, key=int)])
        structures, regions = _structures(document, nnunet=nnunet)
        cases = (
            _nnunet_cases(root, document, len(channels)) if nnunet else _msd_cases(root, document)
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{DESCRIPTION} must describe a dataset, got {type(error).__name__}: {error}."
        raise InputError(msg, code="bad-dataset") from error
    if not cases:
        msg = f"{DESCRIPTION} must lead to labelled cases, got none in {str(root)!r}."
        raise InputError(msg, code="bad-dataset")
    return LabelledDataset(
        root=root,
        kind="nnunet" if nnunet else "msd",
        name=str(document.get("name") or root.resolve().name),
        channels=channels,
        structures=unique_structures(structures, regions=regions),
        cases=tuple(sorted(cases, key=lambda case: case.case_id)),
        unlabelled=_unlabelled(root, document, nnunet=nnunet),
        regions=regions,
        background=tuple(sorted({0, *_background(document, nnunet=nnunet)})),
        ignored=_values(document["labels"].get("ignore", [])) if nnunet else (),
    )


def channels_of(names: list[str]) -> tuple[Channel, ...]:
    """Return channels of these names, with the modality that a name gives away.

    Args:
        names: For example `CT`, `FLAIR`, `MRI`.

    Returns:
        One channel a name.

    Examples:
        >>> [channel.modality for channel in channels_of(["FLAIR", "T1w", "CT_arterial", "PET"])]
        ['MR', 'MR', 'CT', 'PT']
        >>> [channel.modality for channel in channels_of(["CT1", "input1", "0"])]  # may be T1
        ['', '', '']
    """
    return tuple(Channel(name, _modality(name)) for name in names)


def _modality(name: str) -> str:
    for pattern, modality in _MODALITIES:
        if re.search(pattern, name.lower()):
            return modality
    return ""


def _values(value: Any) -> tuple[int, ...]:
    return tuple(int(v) for v in value) if isinstance(value, list) else (int(value),)


def _structures(document: Mapping[str, Any], *, nnunet: bool) -> tuple[list[Structure], bool]:
    labels = document["labels"]
    if not nnunet:  # value to name
        found = sorted((int(value), str(name)) for value, name in labels.items())
        return [Structure(name, (value,)) for value, name in found if value != 0], False
    regions = any(isinstance(value, list) and len(value) > 1 for value in labels.values())
    structures = [
        Structure(str(name), _values(value))
        for name, value in labels.items()
        if name not in ("background", "ignore") and _values(value) != (0,)
    ]
    if not regions:
        structures.sort(key=lambda structure: structure.values)
    return structures, regions


def _background(document: Mapping[str, Any], *, nnunet: bool) -> tuple[int, ...]:
    if nnunet and "background" in document["labels"]:
        return _values(document["labels"]["background"])
    return (0,)


def _msd_cases(root: Path, document: Mapping[str, Any]) -> list[TrainingCase]:
    return [
        TrainingCase(
            file_stem(Path(entry["label"])), (root / entry["image"],), root / entry["label"]
        )
        for entry in document["training"]
    ]


def _nnunet_cases(root: Path, document: Mapping[str, Any], count: int) -> list[TrainingCase]:
    ending = document["file_ending"]
    if "dataset" in document:  # nnU-Net's list of files wherever they lie
        return [
            TrainingCase(str(case), tuple(root / p for p in entry["images"]), root / entry["label"])
            for case, entry in document["dataset"].items()
        ]
    labels = sorted((root / LABELS).glob(f"[!.]*{ending}"))
    return [
        TrainingCase(stem, _channel_files(root / IMAGES, stem, ending, count), label)
        for label in labels
        for stem in [label.name.removesuffix(ending)]
    ]


def _channel_files(folder: Path, stem: str, ending: str, count: int) -> tuple[Path, ...]:
    return tuple(folder / f"{stem}_{number:04d}{ending}" for number in range(count))


def _unlabelled(
    root: Path, document: Mapping[str, Any], *, nnunet: bool
) -> tuple[TrainingCase, ...]:
    if nnunet:
        ending = str(document["file_ending"])
        files = sorted((root / TEST).glob(f"[!.]*_0000{ending}"))
        count = len(document["channel_names"])
        stems = [file.name.removesuffix(f"_0000{ending}") for file in files]
        return tuple(
            TrainingCase(stem, _channel_files(root / TEST, stem, ending, count)) for stem in stems
        )
    listed = [
        entry if isinstance(entry, str) else entry["image"] for entry in document.get("test", [])
    ]
    return tuple(TrainingCase(file_stem(Path(name)), (root / name,)) for name in listed)
