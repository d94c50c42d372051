"""Which cases train and which validate, fold by fold."""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from medseg.data.bundle_values import with_values_of
from medseg.data.dataset import LabelledDataset, TrainingCase, open_dataset
from medseg.errors import InputError

FOLDS = 5
SEED = 12345


def make_folds(
    cases: Sequence[TrainingCase], count: int = FOLDS, seed: int = SEED
) -> dict[str, Any]:
    """Split cases into folds for cross-validation.

    A dataset that says which cases validate (`split` is `training`, `validation`, `test` or the
    number of a fold) is split as it says. Else cases of one group stay together.

    Args:
        cases: With a label.
        count: Folds; fewer where there are fewer cases.
        seed: Of the order in which cases are dealt.

    Returns:
        `{"folds": [{"training": [ids], "validation": [ids]}, ...], "test": [ids]}`.

    Raises:
        InputError: If fewer than two cases or groups are left, or the dataset's own splits are of
            several kinds (`bad-split`).
    """
    test = sorted(case.case_id for case in cases if case.split == "test")
    rest = sorted((c for c in cases if c.split != "test"), key=lambda case: case.case_id)
    marked = {case.split for case in rest} - {""}
    if marked and all(mark.isdigit() for mark in marked):
        groups = [
            [case.case_id for case in rest if case.split == mark]
            for mark in sorted(marked, key=int)
        ]
        folds = _folds_of(groups, [c.case_id for c in rest if not c.split])
        if not all(fold["training"] for fold in folds):
            msg = f"numbers of folds must leave cases to train on, got {sorted(marked)} for all."
            raise InputError(msg, code="bad-split")
        return {"folds": folds, "test": test}
    if marked:
        if not marked <= {"training", "validation"}:
            msg = f"split must be training, validation and test, or numbers, got {sorted(marked)}."
            raise InputError(msg, code="bad-split")
        validation = [case.case_id for case in rest if case.split == "validation"]
        training = [case.case_id for case in rest if case.split != "validation"]
        if validation and training:
            return {"folds": [{"training": training, "validation": validation}], "test": test}
    if len(rest) < 2:
        msg = f"a dataset must have two labelled cases or more, got {len(rest)}."
        raise InputError(msg, code="bad-split")
    groups = _together(rest)
    shuffled = random.Random(seed).sample(groups, len(groups))
    count = max(2, min(count, len(groups)))
    dealt = [[case for group in shuffled[n::count] for case in group] for n in range(count)]
    if not all(dealt):
        msg = "cases must be of two groups (patients) or more, got one. State splits in a manifest."
        raise InputError(msg, code="bad-split")
    return {"folds": _folds_of(dealt, []), "test": test}


def _together(cases: Sequence[TrainingCase]) -> list[list[str]]:
    """Return the ids of cases that must go into one fold, in the order of the first of them."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case in cases:
        groups["group" if case.group else "case", case.group or case.case_id].append(case.case_id)
    return list(groups.values())


def _folds_of(groups: list[list[str]], always: list[str]) -> list[dict[str, list[str]]]:
    return [
        {
            "training": sorted(
                [*always, *(i for other in groups if other is not group for i in other)]
            ),
            "validation": sorted(group),
        }
        for group in groups
    ]


def read_folds(path: Path) -> dict[str, Any]:
    """Read a file of folds.

    Args:
        path: JSON file.

    Returns:
        As `make_folds` returns them.

    Raises:
        InputError: If it is no such file, or a case trains and validates in one fold
            (`bad-split`).
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if "folds" not in document:  # one fixed split
            document = {"folds": [document]}
        for number, fold in enumerate(document["folds"]):
            shared = sorted(set(fold["training"]) & set(fold["validation"]))
            shared += sorted(set(document.get("test", [])) & set(fold["training"]))
            if shared:
                msg = f"fold {number} of {path.name} must name each case once, got {shared} twice."
                raise InputError(msg, code="bad-split")
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path.name} must be a file of folds, got {type(error).__name__}: {error}."
        raise InputError(msg, code="bad-split") from error
    result: dict[str, Any] = document
    return result


def folds_for(dataset: LabelledDataset, splits_file: str | Path | None) -> dict[str, Any]:
    """Return the folds that a bundle states, or deal them.

    Args:
        dataset: The dataset.
        splits_file: File of folds; None: five folds dealt from the sorted ids of the cases.

    Returns:
        As `make_folds` returns them.

    Raises:
        InputError: If the file is no file of folds (`bad-split`).
    """
    return make_folds(dataset.cases) if splits_file is None else read_folds(Path(splits_file))


def cases_of_fold(
    dataset_dir: str,
    splits_file: str | None,
    fold: int,
    part: Literal["training", "validation"],
    objects: bool = False,
) -> list[dict[str, object]]:
    """List the cases of one part of a fold, for a bundle's YAML.

    Args:
        dataset_dir: Folder or manifest of the dataset.
        splits_file: File of folds; None: five folds dealt from the sorted ids of the cases.
        fold: Number of the fold, from 0.
        part: Which part.
        objects: Labels are such that objects can be read from them.

    Returns:
        `{"case": id, "image": path or one a channel, "label": path}` a case.

    Raises:
        InputError: If the dataset lacks a case of the fold (`missing-case`), or there is no such
            fold (`bad-split`), or the dataset names structures whose values are nowhere stated
            (`no-values`).
    """
    path = Path(dataset_dir)
    if splits_file is not None:
        path = with_values_of(path, Path(splits_file).parent / "metadata.json")
    dataset: LabelledDataset = open_dataset(path, objects=objects)
    if dataset.values_dealt:
        msg = (
            "dataset must state the values of its structures, got names alone in"
            f" {dataset_dir}. Train with medseg train --dataset, which takes those of the bundle,"
            " or declare labels in a manifest."
        )
        raise InputError(msg, code="no-values")
    folds = folds_for(dataset, splits_file)["folds"]
    if not 0 <= int(fold) < len(folds):
        msg = f"fold must be from 0 to {len(folds) - 1}, got {fold!r}."
        raise InputError(msg, code="bad-split")
    by_id = {case.case_id: case for case in dataset.cases}
    wanted = folds[int(fold)][part]
    missing = [case for case in wanted if case not in by_id]
    if missing:
        msg = (
            f"dataset must hold every case of {splits_file}, got {len(missing)} missing in"
            f" {dataset_dir}, the first {missing[0]}."
        )
        raise InputError(msg, code="missing-case")
    return [by_id[case].as_item() for case in wanted]
