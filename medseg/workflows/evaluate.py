"""Score predicted masks against label masks, case by case and label by label."""

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from medseg.data.mask_pairs import MaskPair
from medseg.errors import GeometryError, InputError, MedsegError, Problem, UsageError
from medseg.io.atomic import write_json, write_text
from medseg.io.masks import labels_in, on_grid_of, read_mask
from medseg.metrics.segmentation import METRICS, LabelScore
from medseg.volume import Volume, grid_difference
from medseg.workflows.evaluate_pairs import Known
from medseg.workflows.evaluate_semantic import (
    PREDICTIONS_PNG,
    ClassTable,
    Semantic,
    images_of,
    score_dataset,
    write_pictures,
    write_predictions,
)
from medseg.workflows.label_table import GivenNames, LabelTable
from medseg.workflows.results import MASK, PALETTE
from medseg.workflows.truth_values import TruthValues

CSV_NAME = "metrics.csv"
SUMMARY_NAME = "summary.json"

COUNTS = ("scored", "missed", "false-positive", "absent")
"""Outcomes of a label in a case, as `medseg.metrics.segmentation` defines them."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What to score, and how.

    Attributes:
        pred: Predicted mask, or a folder of them (as `segment` writes it, or flat files).
        label: Label mask, or a folder of them, with the same names; or a dataset (manifest, DICOM
            series with DICOM SEG, ...), whose cases have the same ids.
        output: Folder for `metrics.csv` and `summary.json`; nothing is written when None.
        labels: Names by index, names in order from index 1, or a `labels.json`. None: the
            `labels.json` beside a mask, else the numbers themselves.
        resample: Bring predictions on another grid to the grid of their label, instead of
            refusing them.
        nsd_tolerance_mm: Deviation of the surface that NSD accepts; mm.
        ignore_index: Voxels with this value in the label mask count for nobody; None for what the
            dataset, or the bundle, leaves out.
        bundle: Folder or name of the bundle whose names, and colours, the values have.
        semantic: Score the data set as a whole too, from one confusion matrix; None to do so where
            all masks are 2D pictures.
        images: Folder of the images, to be drawn beside their masks; needs `output`.
    """

    pred: Path
    label: Path
    output: Path | None = None
    labels: GivenNames | None = None
    resample: bool = False
    nsd_tolerance_mm: float = 1.0
    ignore_index: int | None = None
    bundle: str | None = None
    semantic: bool | None = None
    images: Path | None = None


@dataclass(frozen=True)
class CaseScores:
    """One case: its scores, or why it has none.

    Attributes:
        case: Case id.
        status: `done` or `failed`.
        error: Why it failed.
        warnings: What was met on the way.
        scores: Score by label name; empty when it failed.
        seconds: Time spent; s.
        names: Name of each value that was scored.
        dims: Spatial dimensions of its masks, 0 when it failed.
    """

    case: str
    status: Literal["done", "failed"]
    error: Problem | None = None
    warnings: tuple[Problem, ...] = ()
    scores: Mapping[str, LabelScore] = field(default_factory=dict)
    seconds: float = 0.0
    names: Mapping[int, str] = field(default_factory=dict)
    dims: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the case as it stands in the JSON document; NaN stays NaN."""
        return {
            "case": self.case,
            "status": self.status,
            "error": None
            if self.error is None
            else {"code": self.error.code, "message": self.error.message},
            "warnings": [{"code": w.code, "message": w.message} for w in self.warnings],
            "labels": {
                name: {
                    **score.metrics(),
                    "outcome": score.outcome,
                    "pred_voxels": score.pred_voxels,
                    "label_voxels": score.label_voxels,
                }
                for name, score in self.scores.items()
            },
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class EvaluateResult:
    """Scores of all cases.

    Attributes:
        cases: By rising case id.
        nsd_tolerance_mm: Tolerance of `nsd`; mm.
        semantic: Scores of the data set as a whole, where they were asked for or masks are 2D.
        problems: Warnings that concern no single case.
    """

    cases: tuple[CaseScores, ...]
    nsd_tolerance_mm: float
    semantic: Semantic | None = None
    problems: tuple[Problem, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when every case was scored, else 1."""
        return int(any(case.status == "failed" for case in self.cases))

    def labels(self) -> dict[str, dict[str, Any]]:
        """Return, for each label, the mean of each metric over the cases where it is defined.

        `counts` tells how often the label was scored, missed, falsely found and absent, and
        `defined` over how many cases each mean runs.
        """
        done = [case for case in self.cases if case.status == "done"]
        names = dict.fromkeys(name for case in done for name in case.scores)
        summary = {}
        for name in names:
            scores = [case.scores[name] for case in done if name in case.scores]
            values = {metric: [getattr(s, metric) for s in scores] for metric in METRICS}
            outcomes: list[str] = [score.outcome for score in scores]
            counts = {outcome: outcomes.count(outcome) for outcome in COUNTS}
            counts["absent"] += len(done) - len(scores)
            summary[name] = {
                **{metric: _mean(parts) for metric, parts in values.items()},
                "counts": {"cases": len(done), **counts},
                "defined": {
                    metric: len(parts) - sum(map(math.isnan, parts))
                    for metric, parts in values.items()
                },
            }
        return summary

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document of DESIGN section 2; what is undefined is None."""
        labels = self.labels()
        document = {
            "schema": 1,
            "labels": labels,
            "mean": {
                metric: _mean([scores[metric] for scores in labels.values()]) for metric in METRICS
            },
            "cases": [case.as_json() for case in self.cases],
            "counts": {
                "cases": len(self.cases),
                "done": sum(case.status == "done" for case in self.cases),
                "failed": sum(case.status == "failed" for case in self.cases),
            },
            "nsd_tolerance_mm": self.nsd_tolerance_mm,
            "semantic": None if self.semantic is None else self.semantic.as_json(),
            "warnings": [{"code": p.code, "message": p.message} for p in self.problems],
        }
        return dict(_without_nan(document))

    def as_csv(self) -> str:
        """Return a table with a row for each case and label; what is undefined is empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        head = ("case", "label", "index", "outcome", "pred_voxels", "label_voxels")
        writer.writerow((*head, *METRICS, "error"))
        for case in self.cases:
            for name, s in case.scores.items():
                values = ["" if math.isnan(v) else f"{v:.6g}" for v in s.metrics().values()]
                known = (case.case, name, s.index, s.outcome, s.pred_voxels, s.label_voxels)
                writer.writerow((*known, *values, ""))
            if case.error is not None:
                blank = [""] * (len(head) - 1 + len(METRICS))
                writer.writerow((case.case, *blank, case.error.code))
        return text.getvalue()


def evaluate(
    options: EvaluateOptions, *, progress: Callable[[int, int], None] | None = None
) -> EvaluateResult:
    """Score predicted masks against label masks.

    Every label of the table and every value in either mask is scored; `metrics/segmentation.py`
    defines the metrics. The mean over labels is the mean of the labels' means. A case that cannot
    be scored is listed as failed, and the others go on.

    Args:
        options: What to score.
        progress: Told the number of cases done and of all cases.

    Returns:
        The scores; written to `options.output` too when that is given.

    Raises:
        UsageError: If nothing can be scored: `not-found`, `no-cases`, a wrong option.
        OutputError: If the results cannot be written.
    """
    _check(options)
    pairs, known, problems = Known.of(options.bundle, options.labels).paired(
        options.pred, options.label, options.ignore_index
    )
    images = None
    if options.images is not None:
        images = images_of(options.images, [pair.case for pair in pairs])
    cases = []
    for number, pair in enumerate(pairs):
        if progress is not None:
            progress(number, len(pairs))
        cases.append(_score_case(pair, known, options))
    result = EvaluateResult(tuple(cases), options.nsd_tolerance_mm, problems=problems)
    result = _with_semantic(result, pairs, known, options)
    if images is not None:
        result = _with_predictions(result, pairs, images, known, options)
    if progress is not None:
        progress(len(pairs), len(pairs))
    if options.output is not None:
        write_text(options.output / CSV_NAME, result.as_csv())
        write_json(options.output / SUMMARY_NAME, result.as_json())
    return result


def _check(options: EvaluateOptions) -> None:
    if not 0 <= options.nsd_tolerance_mm < math.inf:
        msg = f"nsd_tolerance_mm must be 0 or more, got {options.nsd_tolerance_mm!r}."
        raise UsageError(msg)
    if options.labels is not None and options.bundle is not None:
        msg = "labels and bundle must not be given together."
        raise UsageError(msg)
    if options.images is not None and options.output is None:
        msg = "images must be given with an output folder for their picture. Add --output."
        raise UsageError(msg)


def _with_semantic(
    result: EvaluateResult, pairs: Sequence[MaskPair], known: Known, options: EvaluateOptions
) -> EvaluateResult:
    """Score the data set as a whole where that is wanted, and draw it."""
    done = [(p, c) for p, c in zip(pairs, result.cases, strict=True) if c.status == "done"]
    flat = all(case.dims == 2 for _, case in done)
    if not done or not (flat if options.semantic is None else options.semantic):
        return result
    try:
        classes = ClassTable.of(
            [case.names for _, case in done],
            known.beside(done[0][0]),
            background=known.background,
            ignored=known.truth.ignored,
        )
    except InputError as error:
        if options.semantic:
            raise
        problem = Problem(error.code, str(error), "warning")
        return replace(result, problems=(*result.problems, problem))
    semantic = score_dataset(_readers(result, pairs, known, options), classes, boundaries=flat)
    if options.output is not None:
        write_pictures(semantic, options.output)
    return replace(result, semantic=semantic)


def _with_predictions(
    result: EvaluateResult,
    pairs: Sequence[MaskPair],
    images: Mapping[str, Path],
    known: Known,
    options: EvaluateOptions,
) -> EvaluateResult:
    """Draw images beside their masks, or say why not."""
    flat = all(case.dims == 2 for case in result.cases if case.status == "done")
    if result.semantic is None or options.output is None or not flat:
        text = "no image is drawn: only 2D masks that are scored as a data set are"
        problems = [Problem("not-drawn", text, "warning")]
    else:
        readers = _readers(result, pairs, known, options)
        path = options.output / PREDICTIONS_PNG
        problems = write_predictions(result.semantic, readers, images, path)
    return replace(result, problems=(*result.problems, *problems))


def _readers(
    result: EvaluateResult, pairs: Sequence[MaskPair], known: Known, options: EvaluateOptions
) -> dict[str, Callable[[], tuple[Volume, Volume]]]:
    """Return what reads the masks of each case that was scored."""
    return {
        case.case: partial(_read_pair, pair, known.truth, options)
        for pair, case in zip(pairs, result.cases, strict=True)
        if case.status == "done"
    }


def _score_case(pair: MaskPair, known: Known, options: EvaluateOptions) -> CaseScores:
    start = time.perf_counter()
    try:
        scored = _scores(pair, known, options)
    except MedsegError as error:
        problem = Problem(error.code, str(error))
    except Exception as error:  # noqa: BLE001  (one bad case must not end the batch)
        problem = Problem("internal", f"{type(error).__name__}: {error}")
    else:
        return replace(scored, seconds=time.perf_counter() - start)
    return CaseScores(pair.case, "failed", problem, seconds=time.perf_counter() - start)


def _read_pair(
    pair: MaskPair, truth: TruthValues, options: EvaluateOptions
) -> tuple[Volume, Volume]:
    """Read prediction and truth of a case, on one grid; warnings are those of their sources."""
    if pair.pred is None or pair.label is None:
        problem = pair.problem or Problem("no-label", "the case has one mask only")
        raise InputError(problem.message, code=problem.code)
    label = truth.read(read_mask(pair.label), pair.label.name)
    pred = _as_picture(read_mask(_same_kind(pair.pred, label)), label)
    if difference := grid_difference(pred, label):
        if not options.resample:
            way = "" if label.is_2d else "Resample it (--resample), or give"
            msg = (
                f"pred must lie on the grid of its label, got {difference}."
                f" {way or 'Give'} the mask of this image."
            )
            raise GeometryError(msg, code="grid-mismatch")
        before = pred.source.problems
        pred, problem = on_grid_of(pred, label)
        problems = (*before, *label.source.problems, problem)
        return replace(pred, source=replace(pred.source, problems=problems)), label
    return pred, label


def _same_kind(pred: Path, label: Volume) -> Path:
    """Return the palette PNG that lies beside a NIfTI mask where the truth is a picture."""
    picture = pred.with_name(PALETTE)
    return picture if label.is_2d and pred.name == MASK and picture.is_file() else pred


def _as_picture(pred: Volume, label: Volume) -> Volume:
    """Return a picture's mask that lies in a NIfTI file of one slice as the picture it is of."""
    if not label.is_2d or pred.is_2d or pred.shape != (*label.shape[::-1], 1):
        return pred
    return replace(label, array=pred.array[..., 0].transpose(0, 2, 1), source=pred.source)


def _scores(pair: MaskPair, known: Known, options: EvaluateOptions) -> CaseScores:
    pred, label = _read_pair(pair, known.truth, options)
    names_known = known.table if known.table is not None else LabelTable.of_pair(pair)
    warnings = list(dict.fromkeys((*pred.source.problems, *label.source.problems)))
    ignored = known.truth.ignored
    counted = pred
    if ignored is not None:  # what is predicted where nothing is counted is no label
        counted = replace(pred, array=np.where(label.array == ignored, 0, pred.array))
    found = labels_in(counted) | (labels_in(label) - {ignored})
    table, unnamed = names_known.without(ignored).completed(found)
    warnings += unnamed
    if not label.source.has_spacing:
        message = "the labels state no pixel size: hd95_mm and nsd are undefined"
        warnings.append(Problem("no-spacing", message, "warning"))
    scores = table.score(
        pred.array[0],
        label.array[0],
        label.spacing_mm if label.source.has_spacing else None,
        nsd_tolerance_mm=options.nsd_tolerance_mm,
        ignore_index=ignored,
    )
    values = set(table.names) | found
    names = {value: table.names.get(value, str(value)) for value in sorted(values)}
    dims = len(label.shape)
    return CaseScores(pair.case, "done", None, tuple(warnings), scores, names=names, dims=dims)


def _mean(values: Sequence[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
