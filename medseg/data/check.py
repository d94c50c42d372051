"""Every fault of a dataset at once, before any training."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from medseg.data.dataset import LabelledDataset, TrainingCase
from medseg.errors import MedsegError
from medseg.io.dicom import read_segmentation_header
from medseg.io.locator import parse_locator, plain_names, plain_path
from medseg.io.masks import read_mask
from medseg.io.read import is_grey_picture, read
from medseg.volume import Volume, grid_difference

EIGHT_BITS = 255
MOST_VALUES = 10
"""Unknown values that a message lists."""


@dataclass(frozen=True)
class DatasetProblem:
    """A fault of one case.

    Attributes:
        code: Stable name: `missing-file`, `unreadable` or the reader's code, `wrong-channels`,
            `grid-mismatch`, `not-a-mask`, `unknown-label`, `non-finite`, `empty-label`,
            `missing-segment`, `duplicate-image`, `split-overlap`, `group-in-two-parts`,
            `turned-alone`, `grey-image`,
            `more-than-8-bits`, `absent-class`, `pixel-size-unused` (of a plan), or one of a problem
            of the dataset.
        case: Id of the case; the dataset's name for a fault of all of it.
        message: One sentence; names the file.
        severity: `error` keeps the dataset from being trained on.
    """

    code: str
    case: str
    message: str
    severity: Literal["error", "warning"] = "error"

    def as_json(self) -> dict[str, str]:
        """Return the problem as it stands in JSON documents."""
        return {
            "code": self.code,
            "case": self.case,
            "message": self.message,
            "severity": self.severity,
        }


def check_dataset(
    dataset: LabelledDataset,
    *,
    splits: Mapping[str, Any] | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[DatasetProblem, ...]:
    """Read every image and label and list what is wrong with them.

    Args:
        dataset: The dataset. One that was opened for its objects is checked by `check_objects`.
        splits: Folds, as `make_folds` returns them: a case, or an image, of two parts of a fold
            is an error. Without them equal images are a warning.
        workers: Threads; the number of cores when left out.
        progress: Called with the cases done and their number.

    Returns:
        All problems, by case; none for a dataset in order.
    """
    if dataset.objects:
        from medseg.data.check_objects import check_objects  # noqa: PLC0415

        return check_objects(dataset, splits=splits, workers=workers, progress=progress)
    workers = workers or os.cpu_count() or 1
    problems = [
        DatasetProblem(p.code, dataset.name, p.message, p.severity) for p in dataset.problems
    ]
    digests: dict[str, list[str]] = defaultdict(list)
    values: set[int] = set()
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda case: _check_case(case, dataset), dataset.cases)
        for number, (found, digest, present) in enumerate(results, start=1):
            problems += found
            values |= present
            if digest:
                digests[digest].append(dataset.cases[number - 1].case_id)
            if progress is not None:
                progress(number, len(dataset.cases))
    problems += _absent_classes(dataset, values)
    problems += problems_of_splits(dataset.cases, digests, splits)
    return tuple(sorted(problems, key=lambda problem: (problem.severity, problem.case)))


def _check_case(
    case: TrainingCase, dataset: LabelledDataset
) -> tuple[list[DatasetProblem], str | None, set[int]]:
    """Return the problems of a case, a digest of its image, and the values of its label."""
    missing = missing_files(case)
    if missing:
        return missing, None, set()
    try:
        images = [
            read(path, channels=len(dataset.channels) if len(case.images) == 1 else 1)
            for path in case.images
        ]
        label = read_mask(case.label) if case.label else None
    except MedsegError as error:
        return [case_problem(error.code, case, str(error))], None, set()
    problems = image_problems(case, images, dataset)
    present: set[int] = set()
    if label is not None:
        present = {int(value) for value in np.unique(label.array)}
        problems += _label_problems(case, images[0], label, dataset)
    return problems, digest_of(images), present


def missing_files(case: TrainingCase) -> list[DatasetProblem]:
    """List the files of a case that are not there.

    Args:
        case: Of a dataset.
    """
    paths = [*case.images, *([case.label] if case.label else [])]
    missing = [plain_path(path) for path in paths if not plain_path(path).exists()]
    return [case_problem("missing-file", case, f"{path} is not there") for path in missing]


def digest_of(images: Sequence[Volume]) -> str:
    """Return a digest of the values of a case: the same in every format and type.

    Args:
        images: Its channels.
    """
    digest = hashlib.sha256()
    for image in images:
        values = image.array.astype(np.float32) + np.float32(0)  # -0 is 0
        digest.update(values.tobytes())
    return digest.hexdigest()


def image_problems(
    case: TrainingCase, images: Sequence[Volume], dataset: LabelledDataset
) -> list[DatasetProblem]:
    """List what is wrong with the images of a case, its label left aside.

    Args:
        case: Of the dataset.
        images: Its channels.
        dataset: Says how many channels there should be.
    """
    problems = []
    channels = sum(image.channels for image in images)
    in_colours = {channel.modality for channel in dataset.channels} == {"RGB"}
    if in_colours and len(images) == 1 and is_grey_picture(images[0]):
        message = f"{plain_names(case.images)} is grey: it is used for each of the colours"
        problems.append(case_problem("grey-image", case, message, "warning"))
    elif channels != len(dataset.channels):
        message = (
            f"{plain_names(case.images)} must have {len(dataset.channels)} channels, got {channels}"
        )
        problems.append(case_problem("wrong-channels", case, message))
    if in_colours and max(float(image.array.max()) for image in images) > EIGHT_BITS:
        message = f"{plain_names(case.images)} has more than 8 bits, where colours are scaled for 8"
        problems.append(case_problem("more-than-8-bits", case, message, "warning"))
    for path, image in zip(case.images, images, strict=True):
        if image.array.dtype.kind == "f" and not np.isfinite(image.array).all():
            count = int(np.count_nonzero(~np.isfinite(image.array)))
            message = f"{plain_path(path).name} holds {count} values that are NaN or infinite"
            problems.append(case_problem("non-finite", case, message))
        difference = grid_difference(images[0], image)
        if difference:
            names = plain_path(path).name, plain_path(case.images[0]).name
            message = f"{names[0]} lies off {names[1]}: {difference}"
            problems.append(case_problem("grid-mismatch", case, message))
    return problems


def _label_problems(
    case: TrainingCase, image: Volume, label: Volume, dataset: LabelledDataset
) -> list[DatasetProblem]:
    name = plain_path(case.label).name if case.label else ""
    problems = [
        case_problem(found.code, case, found.message, "warning") for found in label.source.problems
    ]
    problems += _missing_segments(case)
    turned = [{p.code for p in one.source.problems} & {"exif-rotated"} for one in (image, label)]
    if turned[0] != turned[1] and parse_locator(case.label or "").kind != "labelme":
        message = (
            f"one of {plain_names(case.images)} and {name} has an orientation tag and was turned"
            " upright, the other has none: look whether they fit"
        )
        problems.append(case_problem("turned-alone", case, message, "warning"))
    difference = grid_difference(image, label)
    if difference:
        message = f"label {name} lies off its image: {difference}"
        problems.append(case_problem("grid-mismatch", case, message))
    found = {int(value) for value in np.unique(label.array)}
    unknown = sorted(found - dataset.known_values)
    if unknown:
        listed = ", ".join(map(str, unknown[:MOST_VALUES]))
        more = f" and {len(unknown) - MOST_VALUES} more" if len(unknown) > MOST_VALUES else ""
        message = f"label {name} holds {listed}{more}, known are {sorted(dataset.known_values)}"
        problems.append(case_problem("unknown-label", case, message))
    if not found - set(dataset.background) - set(dataset.ignored):
        message = f"label {name} holds {dataset.background_name} alone"
        problems.append(case_problem("empty-label", case, message, "warning"))
    return problems


def _missing_segments(case: TrainingCase) -> list[DatasetProblem]:
    """Tell of structures that a DICOM SEG has no segment for: nobody may have looked for them."""
    place = parse_locator(case.label or "")
    if not place.segments:
        return []
    names = read_segmentation_header(place.path).names
    missing = [name for name, _ in place.segments if name not in names]
    if not missing:
        return []
    message = f"{place.path.name} has no segment {', '.join(missing)}: it counts as background"
    return [case_problem("missing-segment", case, message, "warning")]


def _absent_classes(dataset: LabelledDataset, values: set[int]) -> list[DatasetProblem]:
    absent = [s.name for s in dataset.structures if not values & set(s.values)]
    if not absent:
        return []
    message = (
        f"{len(absent)} of {len(dataset.structures)} classes are in no label, and cannot be"
        f" learned: {', '.join(absent)}"
    )
    return [DatasetProblem("absent-class", dataset.name, message, "warning")]


def problems_of_splits(
    cases: Sequence[TrainingCase],
    digests: Mapping[str, Sequence[str]],
    splits: Mapping[str, Any] | None,
) -> list[DatasetProblem]:
    """List equal images, and cases, images and groups of two parts of a split.

    Args:
        cases: Of the dataset.
        digests: Cases of each digest.
        splits: Folds, if there are any.
    """
    problems = _duplicates(digests, splits)
    if splits is not None:
        problems += _split_overlaps(splits)
        problems += _groups_apart(cases, splits)
    return problems


def _duplicates(
    digests: Mapping[str, Sequence[str]], splits: Mapping[str, Any] | None
) -> list[DatasetProblem]:
    problems = []
    for cases in digests.values():
        if len(cases) < 2:
            continue
        apart = splits is not None and _in_two_parts(cases, splits)
        where = "and are in two parts of a split" if apart else "and are used as two cases"
        message = f"images of {', '.join(cases)} are the same, {where}"
        severity: Literal["error", "warning"] = "error" if apart else "warning"
        problems.append(DatasetProblem("duplicate-image", cases[0], message, severity))
    return problems


def _in_two_parts(cases: Sequence[str], splits: Mapping[str, Any]) -> bool:
    wanted = set(cases)
    return any(
        wanted & set(fold["training"]) and wanted & set(fold["validation"])
        for fold in splits["folds"]
    ) or bool(wanted & set(splits.get("test", [])) and wanted - set(splits.get("test", [])))


def _split_overlaps(splits: Mapping[str, Any]) -> list[DatasetProblem]:
    problems = []
    for number, fold in enumerate(splits["folds"]):
        for case in sorted(set(fold["training"]) & set(fold["validation"])):
            message = f"{case} trains and validates in fold {number}"
            problems.append(DatasetProblem("split-overlap", case, message))
    return problems


def _groups_apart(cases: Sequence[TrainingCase], splits: Mapping[str, Any]) -> list[DatasetProblem]:
    """Find groups, patients for example, of which cases are in two parts of a split."""
    groups: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        if case.group:
            groups[case.group].append(case.case_id)
    return [
        DatasetProblem(
            "group-in-two-parts",
            ids[0],
            f"{', '.join(ids)} are of one patient, and in two parts of a split",
            "warning",
        )
        for ids in groups.values()
        if len(ids) > 1 and _in_two_parts(ids, splits)
    ]


def case_problem(
    code: str, case: TrainingCase, message: str, severity: Literal["error", "warning"] = "error"
) -> DatasetProblem:
    """Return a problem of one case.

    Args:
        code: Stable name.
        case: The case.
        message: One sentence; names the file.
        severity: As `DatasetProblem`.
    """
    return DatasetProblem(code, case.case_id, message, severity)
