"""Train a bundle: its configs on a dataset, fold by fold, to weights and a log."""

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medseg.bundle.find import METADATA, find_bundle
from medseg.bundle.overrides import apply_overrides, merge_configs
from medseg.data.bundle_values import with_values_of
from medseg.errors import BundleError, OutputError, Problem, UsageError
from medseg.io.atomic import atomic_folder, output_errors, write_json
from medseg.workflows.launch import launch_fold
from medseg.workflows.processes import rank_of_environment, world_of_environment
from medseg.workflows.train_fold import WEIGHTS, FoldJob, FoldResult, Progress, train_fold
from medseg.workflows.train_overrides import (
    overrides_of,
    require_buildable,
    require_safe_training,
    require_the_same_network,
    write_choices,
)
from medseg.workflows.train_settings import Fold, TrainOptions, TrainSettings, as_before

__all__ = ["Fold", "TrainOptions", "TrainResult", "train"]

CONFIGS = ("common", "train")
SEVERAL = "multi_gpu_train"
PARTS = ("configs", "docs", "LICENSE")
"""Of a bundle, but for its weights."""
CHECKPOINTS = ("checkpoint.pt", "checkpoint_previous.pt")
FINISHED = "finished.json"
"""In the logs of a fold that was trained to its end; `--fold all --resume` passes over it."""
CHOSEN_BY_FOLDS = ("ensemble", "postprocessing")
"""Entries of `medseg` in the metadata that only hold for the weights of a cross-validation."""
NOT_SETTINGS = ("time_budget_s", "bundle_root", "model_dir", "log_dir")
"""What may differ between a training and one that goes on from it."""
SHARE_FOR_FOLDS = 0.9
"""Of the time budget of all folds; the rest is for predicting every case once."""


@dataclass(frozen=True)
class TrainResult:
    """What came of a training.

    Attributes:
        bundle: The bundle's folder.
        folds: What came of each fold.
        cross_validation: Document of `cross_validation.json`, of `--fold all`.
        warnings: What was met on the way.
    """

    bundle: Path
    folds: tuple[FoldResult, ...]
    cross_validation: Mapping[str, Any] | None = None
    warnings: tuple[Problem, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 when every fold is done or was stopped on demand, else 1."""
        unscored = (self.cross_validation or {}).get("failed", ())
        return int(bool(unscored) or any(fold.status == "failed" for fold in self.folds))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "schema": 1,
            "bundle": str(self.bundle),
            "folds": [fold.as_json() for fold in self.folds],
            "cross_validation": self.cross_validation,
            "warnings": [{"code": w.code, "message": w.message} for w in self.warnings],
        }


def train(options: TrainOptions, *, progress: Progress | None = None) -> TrainResult:
    """Train a bundle.

    Equal to `python -m monai.bundle run` on the same configs and settings; started by `torchrun`
    or `srun` it is one of several processes.

    Args:
        options: What is asked for.
        progress: Told how far it is.

    Returns:
        What came of each fold; one that fails or is stopped ends the training.

    Raises:
        MedsegError: If nothing was started: no such bundle or key, configs that may run anything
            without `trust` (`needs-trust`), weights that would be lost, a dataset with errors.
    """
    started = time.monotonic()
    tell = progress or _silent
    _check(options)
    source, root = _folders(options)
    options, changed = as_before(options, root)
    _check(options)
    config = _configs(source, options)
    if not options.trust:
        require_safe_training(config, source)
    count, warnings = _processes(options)
    warnings += changed
    asked = _asked(source, root, config, options)
    jobs = [
        _job(source, root, config, number, options)
        for number in _folds(options.fold, source, asked)
    ]
    if rank_of_environment() == 0:
        from medseg.workflows.training_data import check_training_data  # noqa: PLC0415

        _refuse_loss(root, jobs, options)
        checked = None
        if options.resume and _has_checkpoint(jobs):
            require_the_same_network(config, root)
        else:
            require_buildable(config, source)
            checked = check_training_data(asked, _metadata(source), tell, strict=options.strict)
            warnings += checked.warnings
        _clear(root, jobs, options)
        if source != root:
            _copy(source, root)
        write_choices(root, config, options.settings)
        if checked is not None:
            checked.remember()
        for job in jobs:
            TrainSettings.of(options).write(job.logs)
    results: list[FoldResult] = []
    prepared_s = time.monotonic() - started
    for index, job in enumerate(jobs):
        budget_s = _budget_s(options, prepared_s, results, len(jobs) - index)
        results.append(_train_or_pass(replace(job, time_budget_s=budget_s), count, options, tell))
        if results[-1].status != "done":
            return TrainResult(root, tuple(results), warnings=warnings)
    if options.fold != "all":
        return TrainResult(root, tuple(results), warnings=warnings)
    from medseg.workflows.cross_validation import cross_validate  # noqa: PLC0415

    scores = cross_validate(root, jobs, options.device, tell, trust=options.trust)
    return TrainResult(root, tuple(results), scores, warnings)


def _silent(done: int, total: int, what: str = "") -> None:
    """Tell nothing."""


def _check(options: TrainOptions) -> None:
    msg, code = "", None
    if options.resume and options.overwrite:
        msg = "resume and overwrite must not be given together."
    elif options.deterministic and options.time_budget_s is not None:
        msg = (
            "deterministic and time_budget must not be given together: how far a training comes in"
            " a time is not the same twice. Give --set epochs=N."
        )
    elif options.time_budget_s is not None and not options.time_budget_s > 0:
        msg = f"time_budget must be positive, got {options.time_budget_s!r} s."
    elif options.gpus is not None and options.gpus < 1:
        msg = f"gpus must be at least 1, got {options.gpus}."
    elif options.dataset is not None and not options.dataset.exists():
        msg = f"dataset must be a folder or a manifest, got {str(options.dataset)!r}."
        code = "not-found"
    elif options.fold == "all" and world_of_environment() > 1:
        msg = (
            "fold must be a number under torchrun or srun, got all."
            " Use medseg train --gpus N --fold all, or a job for each fold."
        )
    if msg:
        raise UsageError(msg, code=code)


def _processes(options: TrainOptions) -> tuple[int, tuple[Problem, ...]]:
    """Return how many processes to start, 1 for this one, and a note where they have no GPU."""
    count = options.gpus or 1
    if count > 1 and world_of_environment() > 1:
        msg = f"gpus must be left out under torchrun or srun, got {options.gpus}."
        raise UsageError(msg)
    if count > 1 and options.device not in ("auto", "cpu", "cuda"):
        msg = f"device must be auto, cpu or cuda for several processes, got {options.device!r}."
        raise UsageError(msg)
    from medseg.inference.predictor import resolve_device  # noqa: PLC0415

    device = resolve_device(options.device)
    if count == 1:
        return 1, ()
    if device.type == "cpu":
        note = f"{count} processes share the CPU and its cores; one is usually as fast"
        return count, (Problem("no-gpu", note, "warning"),)
    import torch  # noqa: PLC0415

    there = torch.cuda.device_count()
    if count > there:
        msg = f"gpus must be at most {there}, the GPUs of this machine, got {count}."
        raise UsageError(msg)
    return count, ()


def _configs(root: Path, options: TrainOptions) -> dict[str, Any]:
    """Merge the configs and the settings, as `monai.bundle run` does."""
    several = max(options.gpus or 1, world_of_environment()) > 1
    names = [*CONFIGS, *([SEVERAL] if several else [])]
    files = [root / "configs" / f"{name}.yaml" for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        msg = f"bundle must have configs/{missing[0]}, got {root.name} without."
        raise BundleError(msg, code="no-train-config")
    merged = merge_configs(files)
    return apply_overrides(merged, overrides_of(options.settings, merged))


def _folders(options: TrainOptions) -> tuple[Path, Path]:
    """Return the bundle whose configs are trained, and the folder that it is trained in.

    A training that is resumed goes on with the configs that it was started with: those of its own
    folder.
    """
    source = find_bundle(options.bundle)
    if options.output is None:
        return source, source
    output = options.output.absolute()
    if (output / METADATA).is_file():
        if options.resume:
            return output, output
        # of several processes the first one may have made it by now
        if not options.overwrite and rank_of_environment() == 0:
            msg = (
                f"output must be a new folder, got {str(options.output)!r}, a bundle."
                " Add --resume to go on, or --overwrite."
            )
            raise OutputError(msg, code="output-exists")
    elif output.exists() and (not output.is_dir() or _others_than_cache(output)):
        msg = f"output must be a new or empty folder, got {str(options.output)!r}."
        raise OutputError(msg, code="output-exists")
    return source, output


def _others_than_cache(folder: Path) -> bool:
    """Say whether a folder holds more than what a training leaves whose dataset was refused."""
    return any(path.name != "cache" for path in folder.iterdir())


def _copy(source: Path, root: Path) -> None:
    """Copy a bundle without its weights; what was there of it is replaced."""
    if (root / METADATA).is_file():
        with output_errors(root):
            for name in PARTS:
                _remove(root / name)
                if (source / name).exists():
                    _copy_part(source / name, root / name)
            _forget_folds(root)
        return
    with atomic_folder(root) as partial:
        for name in PARTS:
            if (source / name).exists():
                _copy_part(source / name, partial / name)
        _forget_folds(partial)


def _copy_part(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copy(source, target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _has_checkpoint(jobs: list[FoldJob]) -> bool:
    return any((job.models / name).is_file() for job in jobs for name in CHECKPOINTS)


def _folds(fold: Fold, root: Path, config: Mapping[str, Any]) -> list[int | None]:
    if fold is None:
        return [None]
    if "fold" not in config:
        msg = f"fold must be left out for {root.name}, whose configs have none."
        raise UsageError(msg, code="no-folds")
    from medseg.workflows.training_data import training_data  # noqa: PLC0415

    data = training_data(config)
    if data is None:
        msg = f"fold must be left out for {root.name}, which finds its cases in its own way."
        raise UsageError(msg, code="no-folds")
    count = len(data.folds)
    if fold == "all":
        return list(range(count))
    if not 0 <= fold < count:
        msg = f"fold must be from 0 to {count - 1} or all, got {fold}."
        raise UsageError(msg, code="no-such-fold")
    return [fold]


def _job(
    source: Path,
    root: Path,
    config: Mapping[str, Any],
    number: int | None,
    options: TrainOptions,
) -> FoldJob:
    changes: dict[str, Any] = {"bundle_root": str(root)}
    models, logs = root / "models", root / "logs"
    if number is not None:
        models, logs = models / f"fold_{number}", logs / f"fold_{number}"
        changes["fold"] = number
    changes |= {"model_dir": str(models), "log_dir": str(logs)}
    if options.dataset is not None:
        dataset = with_values_of(options.dataset.absolute(), source / METADATA)
        changes["dataset_dir"] = str(dataset)
    if options.deterministic:
        changes["deterministic"] = True
    if options.time_budget_s is not None:
        changes["time_budget_s"] = options.time_budget_s
    changes |= _device_changes(options.device, config)
    absent = sorted(set(changes) - set(config))
    if absent:
        msg = (
            f"configs of {root.name} must state {', '.join(absent)} for medseg train, got none."
            " Train it with python -m monai.bundle run."
        )
        raise BundleError(msg, code="not-trainable")
    return FoldJob(root, apply_overrides(config, changes), number, models, logs)


def _asked(
    source: Path, root: Path, config: Mapping[str, Any], options: TrainOptions
) -> dict[str, Any]:
    """Return the configs as they can be asked before the bundle is copied: only its cache is."""
    result = dict(_job(source, source, config, None, options).config)
    if "@bundle_root" in str(config.get("cache_dir")):
        result["cache_dir"] = str(root / "cache")
    return result


def _device_changes(device: str, config: Mapping[str, Any]) -> dict[str, Any]:
    if "has_gpu" in config:  # of several processes each takes the GPU of its number, or none
        return {"has_gpu": False} if device == "cpu" else {}
    return {} if device == "auto" else {"device": f"$torch.device({device!r})"}


def _refuse_loss(root: Path, jobs: list[FoldJob], options: TrainOptions) -> None:
    """See that nothing trained before is lost by accident."""
    if options.overwrite:
        return
    for folder in dict.fromkeys([*(job.models for job in jobs), *_shared(root, options)]):
        there = [path for path in _trained(folder) if path.is_file()]
        checkpoint = any(path.name in CHECKPOINTS for path in there)
        of_folds = folder == root / "models" and options.fold == "all"
        resumable = options.resume and (_is_of_folds(root) if of_folds else checkpoint)
        if there and not resumable:
            name = there[0].relative_to(root)
            advice = "Train a copy with -o FOLDER, "
            if checkpoint and not of_folds:
                advice = "Add --resume to go on, "
            msg = f"bundle must not be trained yet, got {name} in {root.name}. {advice}"
            msg += "or --overwrite to lose it."
            raise OutputError(msg, code="already-trained")


def _shared(root: Path, options: TrainOptions) -> list[Path]:
    """Return the folder that `--fold all` writes into beside those of the folds."""
    return [root / "models"] if options.fold == "all" else []


def _trained(folder: Path) -> list[Path]:
    return [folder / name for name in (*CHECKPOINTS, WEIGHTS)]


def _is_of_folds(root: Path) -> bool:
    return bool(_metadata(root).get("medseg", {}).get("ensemble"))


def _metadata(root: Path) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads((root / METADATA).read_text(encoding="utf-8"))
    return metadata


def _clear(root: Path, jobs: list[FoldJob], options: TrainOptions) -> None:
    """Remove what is trained anew, and what the metadata say of it."""
    if not options.overwrite:
        return
    for folder in dict.fromkeys([*(job.models for job in jobs), *_shared(root, options)]):
        with output_errors(folder):
            for path in _trained(folder):
                path.unlink(missing_ok=True)
    for job in jobs:
        shutil.rmtree(job.logs, ignore_errors=True)
    if (root / METADATA).is_file():  # else nothing was trained there
        _forget_folds(root)


def _forget_folds(root: Path) -> None:
    """Take out of the metadata what a cross-validation of other weights has chosen."""
    metadata = _metadata(root)
    own = metadata.get("medseg", {})
    if any(name in own for name in CHOSEN_BY_FOLDS):
        metadata["medseg"] = {k: v for k, v in own.items() if k not in CHOSEN_BY_FOLDS}
        write_json(root / METADATA, metadata)


def _budget_s(
    options: TrainOptions, prepared_s: float, results: list[FoldResult], left: int
) -> float | None:
    if options.time_budget_s is None:
        return None
    share = SHARE_FOR_FOLDS if options.fold == "all" else 1.0
    spent_s = prepared_s + sum(result.seconds for result in results)
    return max(1.0, (share * options.time_budget_s - spent_s) / left)


def _train_or_pass(job: FoldJob, count: int, options: TrainOptions, tell: Progress) -> FoldResult:
    """Train a fold, or take what an earlier run with the same configs has made of it."""
    mark = job.logs / FINISHED
    settings = _digest(job.config)
    if options.resume and options.fold == "all" and (job.models / WEIGHTS).is_file():
        result = _finished(mark, settings, job)
        if result is not None:
            return result
    result = launch_fold(job, count, tell) if count > 1 else train_fold(job, tell)
    if result.status == "done" and rank_of_environment() == 0:
        write_json(mark, {"settings": settings, **result.as_json()})
    return result


def _finished(mark: Path, settings: str, job: FoldJob) -> FoldResult | None:
    if not mark.is_file():
        return None
    document = json.loads(mark.read_text(encoding="utf-8"))
    if document["settings"] != settings:
        return None
    ((metric, score),) = document["best"].items()
    return FoldResult(
        fold=document["fold"],
        status="done",
        iterations=document["iterations"],
        seconds=document["seconds"],
        best_score=score,
        waiting=document["share_waiting"],
        weights=job.models / WEIGHTS,
        logs=job.logs,
        metric=metric,
    )


def _digest(config: Mapping[str, Any]) -> str:
    """Return what identifies the settings of a training, wherever its folder lies."""
    stated = {key: value for key, value in config.items() if key not in NOT_SETTINGS}
    return hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).hexdigest()
