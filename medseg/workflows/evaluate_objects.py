"""Score predicted object instances against those of a dataset."""

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from medseg.bundle import load_bundle
from medseg.data import open_dataset
from medseg.data.dataset import LabelledDataset
from medseg.errors import MedsegError, Problem, UsageError
from medseg.io.atomic import write_json, write_text
from medseg.io.coco_results import read_coco_results
from medseg.io.labels import JSON_NAME, read_labels
from medseg.io.objects import read_objects
from medseg.metrics.object_scores import ObjectScores
from medseg.metrics.objects import ObjectMetrics
from medseg.objects import ObjectInstances
from medseg.workflows.object_outputs import COCO

CSV_NAME = "metrics.csv"
SUMMARY_NAME = "summary.json"


@dataclass(frozen=True)
class ObjectResult:
    """Scores of the objects of a dataset.

    Attributes:
        scores: Of the cases that could be scored; None where there is none.
        failed: Why others could not be, by case.
        problems: Warnings, by case; empty id where they concern no single one.
    """

    scores: ObjectScores | None
    failed: Mapping[str, Problem]
    problems: tuple[tuple[str, Problem], ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when every case was scored, else 1."""
        return int(bool(self.failed))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document; what is undefined is None."""
        scores = {} if self.scores is None else self.scores.as_json()
        cases = [
            {"case": one["case"], "status": "done", "error": None, **one}
            for one in scores.pop("cases", [])
        ]
        cases += [
            {"case": case, "status": "failed", "error": {"code": p.code, "message": p.message}}
            for case, p in self.failed.items()
        ]
        done = len(cases) - len(self.failed)
        return {
            "schema": 1,
            "labels": scores.pop("labels", {}),
            "mean": scores.pop("mean", {}),
            "objects": scores,
            "cases": sorted(cases, key=lambda one: str(one["case"])),
            "counts": {"cases": len(cases), "done": done, "failed": len(self.failed)},
            "warnings": [
                {"case": case, "code": p.code, "message": p.message} for case, p in self.problems
            ],
        }

    def as_csv(self) -> str:
        """Return a table with a row a case; what is undefined is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = ("truth", "predicted", "matched", "ignored", "f1", "pq", "aji")
        writer.writerow(("case", *columns, "error"))
        for case in () if self.scores is None else self.scores.cases:
            values = [getattr(case, name) for name in columns]
            shown = ["" if isinstance(v, float) and math.isnan(v) else f"{v:.6g}" for v in values]
            writer.writerow((case.case, *shown, ""))
        for name, problem in self.failed.items():
            writer.writerow((name, *[""] * len(columns), problem.code))
        return text.getvalue()


def evaluate_objects(
    pred: Path,
    label: Path,
    *,
    bundle: str | None = None,
    output: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ObjectResult:
    """Score the objects that `segment` found against those of a dataset.

    Classes go by their names. Cases of a part of the dataset's split of which nothing was
    predicted are left out and said; any other without a prediction is a failed case.

    Args:
        pred: Folder of cases with `objects.json`.
        label: Dataset whose labels tell objects apart.
        bundle: Folder or name of the bundle that names the classes; the `labels.json` beside the
            predictions when None.
        output: Folder for `metrics.csv` and `summary.json`.
        progress: Told the number of cases done and of all cases.

    Returns:
        The scores.

    Raises:
        InputError: If the labels do not tell objects apart (`no-objects`).
        UsageError: If classes have other names (`label-mismatch`), or no case fits (`no-cases`).
        OutputError: If the results cannot be written.
    """
    found = {path.parent.name: path for path in sorted(pred.glob(f"*/{COCO}"))}
    names = _names(found, bundle)
    dataset = open_dataset(label, objects=True)
    classes = _classes(dataset, names)
    cases = {case.case_id: case for case in dataset.cases if case.label is not None}
    cases, problems = _of_predicted_parts(cases, found)
    metrics, failed = ObjectMetrics(names), {}
    for number, (case, own) in enumerate(sorted(cases.items())):
        if progress is not None:
            progress(number, len(cases))
        try:
            if case not in found:
                msg = "the case has no prediction"
                failed[case] = Problem("no-prediction", msg)
                continue
            truth, bad = read_objects(own.label or Path())
            problems += [(case, problem) for problem in bad]
            metrics.add(case, _found(found[case]), _renumbered(truth, classes))
        except MedsegError as error:
            failed[case] = Problem(error.code, str(error))
    if progress is not None:
        progress(len(cases), len(cases))
    scored = len(cases) - len(failed)
    result = ObjectResult(metrics.scores() if scored else None, failed, tuple(problems))
    if output is not None:
        write_text(output / CSV_NAME, result.as_csv())
        write_json(output / SUMMARY_NAME, result.as_json())
    return result


def _names(found: Mapping[str, Path], bundle: str | None) -> list[str]:
    if bundle is not None:
        return [label.name for label in load_bundle(bundle).labels]
    first = next(iter(found.values()))
    return [label.name for label in read_labels(first.parent / JSON_NAME)]


def _classes(dataset: LabelledDataset, names: list[str]) -> dict[int, int]:
    """Return the class of the predictions for each of the dataset."""
    own = [structure.name for structure in dataset.structures]
    unknown = [name for name in own if name not in names]
    if unknown:
        msg = (
            f"label must have classes that the predictions know ({', '.join(names)}), got"
            f" {', '.join(unknown)}."
        )
        raise UsageError(msg, code="label-mismatch")
    return {number: names.index(name) + 1 for number, name in enumerate(own, start=1)}


def _of_predicted_parts(
    cases: dict[str, Any], found: Mapping[str, Path]
) -> tuple[dict[str, Any], list[tuple[str, Problem]]]:
    there = {cases[case].split for case in found if case in cases}
    if not there:
        msg = (
            "pred must hold cases of the dataset, got none that fit (for example"
            f" {min(found, default='none')!r} and {min(cases, default='none')!r})."
        )
        raise UsageError(msg, code="no-cases")
    others = sorted({case.split for case in cases.values()} - there - {""})
    problems = [
        ("", Problem("not-predicted", f"nothing of {part} is predicted, and none of it scored",
                     "warning"))
        for part in others
    ]  # fmt: skip
    return {case: own for case, own in cases.items() if own.split not in others}, problems


def _found(path: Path) -> ObjectInstances:
    images = read_coco_results(path)
    if len(images) != 1:
        msg = f"pred must be of a picture, got {len(images)} slices in {path.parent.name}."
        raise UsageError(msg, code="wrong-dimensions")
    return images[0][1]


def _renumbered(objects: ObjectInstances, classes: Mapping[int, int]) -> ObjectInstances:
    table = np.zeros(max(classes, default=0) + 1, np.int32)
    table[list(classes)] = list(classes.values())
    return replace(objects, classes=table[objects.classes])
