"""Every fault of a dataset of objects at once, before any training."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medseg.data.check import (
    DatasetProblem,
    case_problem,
    digest_of,
    image_problems,
    missing_files,
    problems_of_splits,
)
from medseg.data.dataset import LabelledDataset, TrainingCase
from medseg.errors import InputError, MedsegError
from medseg.io.locator import parse_locator, plain_path
from medseg.io.objects import read_objects
from medseg.io.read import read
from medseg.objects import ObjectInstances
from medseg.volume import Volume, size_text

NOT_LEFT_OUT = ("shape-clipped",)
"""Problems of a label that takes nothing away but what lies off the image."""


@dataclass(frozen=True)
class _Checked:
    """What was found in one case."""

    problems: list[DatasetProblem]
    digest: str | None = None
    objects: ObjectInstances | None = None
    left_out: tuple[str, ...] = field(default=())


def check_objects(
    dataset: LabelledDataset,
    *,
    splits: Mapping[str, Any] | None = None,
    strict: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[DatasetProblem, ...]:
    """Read every image and its objects and list what is wrong with them.

    A bad annotation is a warning that names the file and its number; the others of its image are
    used. How many there are of each kind is a warning of its own (`left-out`). Images without an
    object are in order; where none has one there is nothing to learn (`no-objects`).

    Args:
        dataset: Opened with `objects=True`.
        splits: As `check_dataset`.
        strict: Raise an error for the first bad annotation.
        workers: Threads; the number of cores when left out.
        progress: Called with the cases done and their number.

    Returns:
        All problems, by case; none for a dataset in order.

    Raises:
        InputError: If the labels do not tell objects apart (`no-objects`); with `strict` for the
            first bad annotation.
    """
    if not dataset.objects:
        msg = f"dataset must be opened for its objects, got {dataset.name} for its classes."
        raise InputError(msg, code="no-objects")
    if strict:
        _refuse_first(dataset)
    problems = [
        DatasetProblem(p.code, dataset.name, p.message, p.severity) for p in dataset.problems
    ]
    digests: dict[str, list[str]] = defaultdict(list)
    counts = np.zeros(len(dataset.structures) + 1, np.int64)
    left_out: Counter[str] = Counter()
    most_numbers = 0
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        results = pool.map(lambda case: _check_case(case, dataset, strict=strict), dataset.cases)
        for number, found in enumerate(results, start=1):
            problems += found.problems
            left_out.update(found.left_out)
            if found.digest:
                digests[found.digest].append(dataset.cases[number - 1].case_id)
            if found.objects is not None:
                own = found.objects.classes[~found.objects.crowd]
                counts += np.bincount(own, minlength=len(counts))[: len(counts)]
                most_numbers = max(most_numbers, own.size)
            if progress is not None:
                progress(number, len(dataset.cases))
    problems += _totals(dataset, counts, left_out)
    problems += _guessed_numbers(dataset, most_numbers)
    problems += problems_of_splits(dataset.cases, digests, splits)
    return tuple(sorted(problems, key=lambda problem: (problem.severity, problem.case)))


def _refuse_first(dataset: LabelledDataset) -> None:
    bad = [problem for problem in dataset.problems if problem.code in _OF_ANNOTATIONS]
    if bad:
        raise InputError(f"{bad[0].message}.", code=bad[0].code)


_OF_ANNOTATIONS = ("unknown-image", "missing-image", "bad-annotation")
"""Problems of a dataset that take annotations away."""


def _check_case(case: TrainingCase, dataset: LabelledDataset, *, strict: bool) -> _Checked:
    missing = missing_files(case)
    if missing:
        return _Checked(missing)
    try:
        images = [
            read(path, channels=len(dataset.channels) if len(case.images) == 1 else 1)
            for path in case.images
        ]
    except MedsegError as error:
        return _Checked([case_problem(error.code, case, str(error))])
    problems = image_problems(case, images, dataset)
    if case.label is None:
        return _Checked(problems, digest_of(images))
    try:
        objects, found = read_objects(case.label, strict=strict)
    except MedsegError as error:
        if strict:
            raise
        return _Checked([*problems, case_problem(error.code, case, str(error))], digest_of(images))
    problems += [case_problem(one.code, case, one.message, "warning") for one in found]
    problems += _label_problems(case, images[0], objects)
    left_out = tuple(one.code for one in found if one.code not in NOT_LEFT_OUT)
    return _Checked(problems, digest_of(images), objects, left_out)


def _label_problems(
    case: TrainingCase, image: Volume, objects: ObjectInstances
) -> list[DatasetProblem]:
    name = plain_path(case.label).name if case.label else ""
    if image.shape != objects.size:
        message = f"label {name} lies off its image: {size_text(objects.size)} for"
        message = f"{message} {size_text(image.shape)}"
        return [case_problem("grid-mismatch", case, message)]
    turned = any(problem.code == "exif-rotated" for problem in image.source.problems)
    if turned and parse_locator(case.label or "").kind != "labelme":
        message = (
            f"the image of {name} was turned upright, as its orientation tag asks: look whether"
            " its objects fit"
        )
        return [case_problem("turned-alone", case, message, "warning")]
    return []


def _totals(
    dataset: LabelledDataset, counts: np.ndarray[Any, Any], left_out: Counter[str]
) -> list[DatasetProblem]:
    """Tell how much was left out, and what there is nothing of."""
    problems = []
    total = int(counts.sum())
    left_out.update(p.code for p in dataset.problems if p.code in _OF_ANNOTATIONS)
    if left_out:
        listed = ", ".join(f"{count} {code}" for code, count in left_out.most_common())
        message = f"{left_out.total()} faults of annotations beside {total} objects: {listed}"
        problems.append(DatasetProblem("left-out", dataset.name, message, "warning"))
    if not total:
        message = f"none of {len(dataset.cases)} images has an object: there is nothing to learn"
        problems.append(DatasetProblem("no-objects", dataset.name, message))
        return problems
    absent = [s.name for s, count in zip(dataset.structures, counts[1:], strict=True) if not count]
    if absent:
        message = (
            f"{len(absent)} of {len(dataset.structures)} classes have no object, and cannot be"
            f" learned: {', '.join(absent)}"
        )
        problems.append(DatasetProblem("absent-class", dataset.name, message, "warning"))
    return problems


def _guessed_numbers(dataset: LabelledDataset, most: int) -> list[DatasetProblem]:
    """Refuse masks of 0 and one other value, of which nobody said that it numbers objects."""
    guessed = any(parse_locator(case.label or "").kind == "values" for case in dataset.cases)
    if not guessed or most != 1:
        return []
    message = (
        "no label has more than one number, as masks of one class have: if each image shows one"
        " object, say `objects: true` in dataset.yaml"
    )
    return [DatasetProblem("one-number", dataset.name, message)]
