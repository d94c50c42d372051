"""Score every case with the network that was not trained on it, and choose the post-processing."""

import json
import logging
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.bundle.find import METADATA
from medseg.bundle.load import load_bundle
from medseg.data.dataset import LabelledDataset, TrainingCase
from medseg.errors import BundleError, GeometryError, InputError, MedsegError, Problem
from medseg.inference.postprocess import keep_largest, largest_component
from medseg.io.atomic import atomic_path, output_errors, write_json
from medseg.io.masks import read_mask
from medseg.io.read import read_channels
from medseg.metrics.segmentation import score_masks
from medseg.training.postprocessing_choice import Candidates, choose_postprocessing, mean_dice
from medseg.volume import Segmentation, grid_difference
from medseg.workflows.train_fold import WEIGHTS, FoldJob, Progress
from medseg.workflows.training_data import training_data

log = logging.getLogger(__name__)

FILE = "cross_validation.json"
REPORTED = ("dice", "hd95_mm", "nsd")

Mask = npt.NDArray[Any]
Inside = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ScoredLabel:
    """A label as masks and label files hold it.

    Attributes:
        name: The structure's name.
        mask_values: Values in predicted masks that are inside it.
        label_values: Values in label files that are inside it.
        left_out: Values in label files of what counts for nobody.
    """

    name: str
    mask_values: tuple[int, ...]
    label_values: tuple[int, ...]
    left_out: tuple[int, ...] = ()

    def counted(self, label: Mask) -> Inside:
        """Return where a label mask counts."""
        return ~np.isin(label, self.left_out)


def cross_validate(
    root: Path, jobs: Sequence[FoldJob], device: str, tell: Progress, *, trust: bool = False
) -> dict[str, Any]:
    """Predict the validation cases of each fold, score them, and write what follows from it.

    Writes `logs/cross_validation.json`; `postprocessing` and `ensemble` into the metadata; and
    fold 0's weights as `models/model.pt`, with which MONAI's own commands work. Where a case could
    not be scored no post-processing is chosen.

    Args:
        root: The bundle's folder.
        jobs: Trained folds, from 0.
        device: Where to predict.
        tell: Told how far it is.
        trust: Run whatever the bundle's configs name.

    Returns:
        The document of `cross_validation.json`.

    Raises:
        MedsegError: If the dataset or the weights cannot be read, or the results not be written.
    """
    data = training_data(jobs[0].config)
    assert data is not None  # whoever trains all folds has folds
    dataset, folds = data.dataset, data.folds
    labels = scored_labels(root, jobs[0].config)
    with tempfile.TemporaryDirectory(prefix="medseg-") as name:
        store = Path(name)
        failed = _predict_all(root, jobs, folds, dataset, device, tell, store, trust=trust)
        done = [case for case in sorted(_owners(folds)) if (store / f"{case}.npz").is_file()]
        steps: tuple[dict[str, Any], ...] = ()
        if not failed:
            dices = [_dices(*_stored(store, case)[:2], labels) for case in done]
            regions = any(len(label.mask_values) > 1 for label in labels)
            steps = choose_postprocessing(dices, label_by_label=not regions)
        document = _document(store, done, labels, steps, folds, failed)
    ensemble = [(job.models / WEIGHTS).relative_to(root).as_posix() for job in jobs]
    _write(root, jobs[0].models / WEIGHTS, document, ensemble)
    return document


def scored_labels(root: Path, config: Mapping[str, Any]) -> tuple[ScoredLabel, ...]:
    """Return the labels of a bundle with their values in masks and in label files.

    Args:
        root: The bundle's folder.
        config: Its merged configs.

    Returns:
        In the order of classes or regions.

    Raises:
        BundleError: If configs and metadata do not name as many labels (`bad-config`).
    """
    bundle = load_bundle(root)
    key = "region_values" if bundle.regions else "label_values"
    stated = config.get(key)
    outputs = len(bundle.labels) + (not bundle.regions)
    if not isinstance(stated, list) or len(stated) != outputs:
        msg = f"{key} must list the values of {outputs} outputs, got {stated!r}."
        raise BundleError(msg, code="bad-config")
    foreground = stated if bundle.regions else stated[1:]
    left_out = tuple(config.get("ignored_values", ()))
    return tuple(
        # a region is whatever of it and of the regions within it is painted
        ScoredLabel(
            label.name,
            tuple(values) if bundle.regions else (label.index,),
            tuple(values),
            left_out,
        )
        for label, values in zip(bundle.labels, foreground, strict=True)
    )


def _predict_all(  # one argument a thing it goes through
    root: Path,
    jobs: Sequence[FoldJob],
    folds: Sequence[Mapping[str, Sequence[str]]],
    dataset: LabelledDataset,
    device: str,
    tell: Progress,
    store: Path,
    *,
    trust: bool,
) -> dict[str, Problem]:
    """Predict each validation case with its fold's weights.

    Returns:
        Case id to why it failed.
    """
    from medseg.inference import Predictor  # noqa: PLC0415  # torch takes seconds

    cases = {case.case_id: case for case in dataset.cases}
    total = sum(len(fold["validation"]) for fold in folds)
    failed: dict[str, Problem] = {}
    done = 0
    for job, fold in zip(jobs, folds, strict=True):
        with tempfile.TemporaryDirectory(prefix="medseg-") as name:
            folder = _bundle_of_fold(root, job.models / WEIGHTS, Path(name))
            predictor = Predictor(folder, device=device, trust=trust)
            for case in fold["validation"]:
                tell(done, total, f"cross-validation: predicting {case}")
                try:
                    _predict(cases[case], len(dataset.channels), predictor, store)
                except MedsegError as error:
                    failed[case] = Problem(error.code, str(error))
                except Exception as error:  # noqa: BLE001  # one bad case must not end the others
                    failed[case] = Problem("internal", f"{type(error).__name__}: {error}")
                done += 1
    tell(total, total, "cross-validation")
    return failed


def _bundle_of_fold(root: Path, weights: Path, folder: Path) -> Path:
    """Return a bundle that has one fold's weights, and nothing chosen from others."""
    fold = folder / root.name
    shutil.copytree(root / "configs", fold / "configs")
    metadata = json.loads((fold / METADATA).read_text(encoding="utf-8"))
    for name in ("ensemble", "postprocessing"):
        metadata.get("medseg", {}).pop(name, None)
    write_json(fold / METADATA, metadata)
    (fold / "models").mkdir()
    shutil.copyfile(weights, fold / "models" / WEIGHTS)
    return fold


def _predict(case: TrainingCase, channels: int, predictor: Any, store: Path) -> None:
    image = read_channels(case.images, channels=channels)
    if case.label is None:
        msg = f"case {case.case_id} must have a label to be scored, got none."
        raise InputError(msg, code="no-label")
    label = read_mask(case.label)
    difference = grid_difference(image, label)
    if difference:
        msg = f"label of {case.case_id} must lie on the grid of its image, got {difference}."
        raise GeometryError(msg, code="grid-mismatch")
    prediction: Segmentation = predictor(image)
    with output_errors(store / case.case_id):
        np.savez_compressed(
            store / f"{case.case_id}.npz",
            mask=prediction.array,
            label=label.array[0],
            spacing_mm=np.array(image.spacing_mm),
        )


def _owners(folds: Sequence[Mapping[str, Sequence[str]]]) -> dict[str, int]:
    return {case: number for number, fold in enumerate(folds) for case in fold["validation"]}


def _stored(store: Path, case: str) -> tuple[Mask, Mask, tuple[float, ...]]:
    with np.load(store / f"{case}.npz") as file:
        return file["mask"], file["label"], tuple(map(float, file["spacing_mm"]))


def _dices(mask: Mask, label: Mask, labels: Sequence[ScoredLabel]) -> Candidates:
    """Return the Dice of a case in the four ways that a choice compares."""
    reduced, _ = keep_largest(mask, [value for one in labels for value in one.mask_values])
    plain: dict[str, float] = {}
    single: dict[str, float] = {}
    foreground: dict[str, float] = {}
    both: dict[str, float] = {}
    for one in labels:
        truth, counted = np.isin(label, one.label_values), one.counted(label)
        for source, whole, largest in ((mask, plain, single), (reduced, foreground, both)):
            inside = np.isin(source, one.mask_values)
            whole[one.name] = _dice(inside & counted, truth)
            largest[one.name] = _dice(largest_component(inside) & counted, truth)
    return Candidates(plain, single, foreground, both)


def _dice(inside: Inside, truth: Inside) -> float:
    size = int(inside.sum()) + int(truth.sum())
    return 2 * int((inside & truth).sum()) / size if size else math.nan


def _after(mask: Mask, steps: Sequence[Mapping[str, Any]], labels: Sequence[ScoredLabel]) -> Mask:
    """Return a mask after the post-processing that was chosen."""
    values = {label.name: label.mask_values for label in labels}
    for step in steps:
        names = step.get("labels") or [step["label"]]
        mask, _ = keep_largest(mask, [value for name in names for value in values[name]])
    return mask


def _document(  # one argument a part of it
    store: Path,
    done: Sequence[str],
    labels: Sequence[ScoredLabel],
    steps: Sequence[Mapping[str, Any]],
    folds: Sequence[Mapping[str, Sequence[str]]],
    failed: Mapping[str, Problem],
) -> dict[str, Any]:
    owners = _owners(folds)
    cases = []
    for case in done:
        mask, label, spacing_mm = _stored(store, case)
        scores = _scores(_after(mask, steps, labels), label, spacing_mm, labels)
        cases.append({"case": case, "fold": owners[case], "labels": scores})
    return {
        "schema": 1,
        "postprocessing": [dict(step) for step in steps],
        "cases": cases,
        "folds": [
            {"fold": number, **_means([c for c in cases if c["fold"] == number], labels)}
            for number in range(len(folds))
        ],
        **_means(cases, labels),
        "failed": [
            {"case": case, "error": {"code": problem.code, "message": problem.message}}
            for case, problem in sorted(failed.items())
        ],
    }


def _scores(
    mask: Mask, label: Mask, spacing_mm: tuple[float, ...], labels: Sequence[ScoredLabel]
) -> dict[str, dict[str, float]]:
    result = {}
    for one in labels:
        inside = (np.isin(mask, one.mask_values) & one.counted(label)).astype(np.uint8)
        truth = np.isin(label, one.label_values).astype(np.uint8)
        score = score_masks(inside, truth, spacing_mm, [1])[0].metrics()
        result[one.name] = {name: score[name] for name in REPORTED}
    return result


def _means(
    cases: Sequence[Mapping[str, Any]], labels: Sequence[ScoredLabel]
) -> dict[str, dict[str, Any]]:
    """Return the mean of each metric over cases, by label, and then over labels."""
    by_label: dict[str, dict[str, float]] = {label.name: {} for label in labels}
    mean = {}
    for metric in REPORTED:
        columns = [{n: s[metric] for n, s in case["labels"].items()} for case in cases]
        means = mean_dice(columns)  # the mean over what is defined, whatever the metric
        for name, scores in by_label.items():
            scores[metric] = means.get(name, math.nan)
        mean[metric] = mean_dice([{"": value} for value in means.values()]).get("", math.nan)
    return {"labels": by_label, "mean": mean}


def _write(root: Path, weights: Path, document: Mapping[str, Any], ensemble: Sequence[str]) -> None:
    write_json(root / "logs" / FILE, dict(document))
    metadata = json.loads((root / METADATA).read_text(encoding="utf-8"))
    own = {**metadata.get("medseg", {}), "ensemble": list(ensemble)}
    own["postprocessing"] = document["postprocessing"]
    write_json(root / METADATA, {**metadata, "medseg": own})
    # last: weights without an ensemble in the metadata would be those of a training of their own
    with atomic_path(root / "models" / WEIGHTS) as partial:
        shutil.copyfile(weights, partial)
