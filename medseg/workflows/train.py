"""Train a bundle: its configs on a dataset, fold by fold, to weights and a log."""

import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from medseg.bundle.find import find_bundle
from medseg.bundle.overrides import apply_overrides, merge_configs, parse_overrides
from medseg.errors import BundleError, MedsegError, OutputError, Problem, TrainingError, UsageError
from medseg.io.atomic import atomic_folder, output_errors
from medseg.workflows.launch import leave_processes, rank_of_environment, world_of_environment
from medseg.workflows.run_configs import chain_of, problem_of, quiet_monai, run_configs

if TYPE_CHECKING:  # torch and MONAI take seconds, and a wrong option is told at once
    pass

log = logging.getLogger(__name__)

CONFIGS = ("common", "train")
SEVERAL = "multi_gpu_train"
CHECKPOINTS = ("checkpoint.pt", "checkpoint_previous.pt")
WEIGHTS = "model.pt"
AGREED = (
    "network_def",
    "num_classes",
    "label_values",
    "region_values",
    "spacing_mm",
    "patch_size",
    "preprocessing_transforms",
    "preprocessing",
)
"""What training and inference must agree on: masks would be wrong, and look right, otherwise."""

Fold = int | Literal["all"] | None


class Progress(Protocol):
    """Told how far the work is."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Take steps done, all steps, and what is being done."""


@dataclass(frozen=True)
class TrainOptions:
    """What `train` is asked for.

    Attributes:
        bundle: Folder or name of the bundle.
        dataset: Folder or manifest of the dataset; the bundle's own setting when None.
        output: Folder that gets a copy of the bundle to train in; the bundle itself when None.
        fold: Fold that validates, `all` for each in turn, None for the bundle's own setting.
        resume: Go on from the checkpoint that is there.
        overwrite: Train anew although there are weights or a checkpoint.
        settings: `KEY=VALUE`, over the bundle's configs.
        time_budget_s: Time the command may take, over all folds; s.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        deterministic: The same losses in every run.
    """

    bundle: str
    dataset: Path | None = None
    output: Path | None = None
    fold: Fold = None
    resume: bool = False
    overwrite: bool = False
    settings: tuple[str, ...] = ()
    time_budget_s: float | None = None
    device: str = "auto"
    deterministic: bool = False


@dataclass(frozen=True)
class FoldResult:
    """What came of one fold.

    Attributes:
        fold: Its number; None where the bundle has no folds.
        status: `done`, `interrupted` (a checkpoint was written) or `failed`.
        iterations: Iterations trained, over all runs.
        seconds: Time of this run; s.
        best_dice: Best mean Dice of a validation; None without any.
        waiting: Share of the time spent waiting for data.
        weights: File of the inference weights, None while there is none.
        log: Folder of tables and curves.
        error: Why it failed.
    """

    fold: int | None
    status: Literal["done", "interrupted", "failed"]
    iterations: int
    seconds: float
    best_dice: float | None
    waiting: float
    weights: Path | None
    log: Path
    error: Problem | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the fold as it stands in the JSON document."""
        error = self.error
        return {
            "fold": self.fold,
            "status": self.status,
            "iterations": self.iterations,
            "seconds": round(self.seconds, 1),
            "best_dice": self.best_dice,
            "share_waiting_for_data": self.waiting,
            "weights": str(self.weights) if self.weights else None,
            "log": str(self.log),
            "error": None if error is None else {"code": error.code, "message": error.message},
        }


@dataclass(frozen=True)
class TrainResult:
    """What came of a training.

    Attributes:
        bundle: The bundle's folder.
        folds: What came of each fold.
        cross_validation: Scores over all folds, of `--fold all`.
    """

    bundle: Path
    folds: tuple[FoldResult, ...]
    cross_validation: Mapping[str, Any] | None = None

    @property
    def exit_code(self) -> int:
        """0 when every fold is done or was stopped on demand, else 1."""
        return int(any(fold.status == "failed" for fold in self.folds))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON document."""
        return {
            "schema": 1,
            "bundle": self.bundle.name,
            "folds": [fold.as_json() for fold in self.folds],
            "cross_validation": self.cross_validation,
        }


@dataclass(frozen=True)
class _Run:
    """One fold to train."""

    root: Path
    config: Mapping[str, Any]
    number: int | None
    models: Path
    logs: Path


def train(options: TrainOptions, *, progress: Progress | None = None) -> TrainResult:
    """Train a bundle.

    Equal to `python -m monai.bundle run` on the same configs and settings; started by `torchrun`
    or `srun` it is one of several processes.

    Args:
        options: What is asked for.
        progress: Told how far it is.

    Returns:
        What came of each fold; a fold that fails ends the training.

    Raises:
        MedsegError: If nothing could be started: no such bundle or key, weights that would be
            lost, a dataset with errors.
    """
    started = time.monotonic()
    tell = progress or _silent
    _check(options)
    root = find_bundle(options.bundle)
    world = world_of_environment()
    names = [*CONFIGS, *([SEVERAL] if world > 1 else [])]
    files = [root / "configs" / f"{name}.yaml" for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        msg = f"bundle must have configs/{missing[0]}, got {root.name} without."
        raise BundleError(msg, code="no-train-config")
    merged = merge_configs(files)
    overrides = parse_overrides(options.settings, merged)
    _refuse_disagreement(overrides)
    config = apply_overrides(merged, overrides)
    root = _own_copy(root, options)
    folds = _folds(options.fold, root, config)
    runs = [_run_of(root, config, number, options) for number in folds]
    for run in runs:
        _guard_results(run, options)
    results: list[FoldResult] = []
    for index, run in enumerate(runs):
        rest = None
        if options.time_budget_s is not None:
            spent = time.monotonic() - started
            rest = max(1.0, (options.time_budget_s - spent) / (len(runs) - index))
        results.append(_train_fold(run, replace(options, time_budget_s=rest), tell))
        if results[-1].status != "done":
            break
    return TrainResult(root, tuple(results))


def _silent(done: int, total: int, what: str = "") -> None:
    """Tell nothing."""


def _check(options: TrainOptions) -> None:
    if options.resume and options.overwrite:
        msg = "resume and overwrite must not be given together."
        raise UsageError(msg)
    if options.deterministic and options.time_budget_s is not None:
        msg = (
            "deterministic and time_budget must not be given together: how far a training comes in"
            " a time is not the same twice. Give --set epochs=N."
        )
        raise UsageError(msg)
    if options.time_budget_s is not None and options.time_budget_s <= 0:
        msg = f"time_budget must be positive, got {options.time_budget_s!r} s."
        raise UsageError(msg)
    if options.dataset is not None and not options.dataset.exists():
        msg = f"dataset must be a folder or a manifest, got {str(options.dataset)!r}."
        raise UsageError(msg, code="not-found")


def _refuse_disagreement(overrides: Mapping[str, Any]) -> None:
    changed = [key for key in overrides if key.partition("#")[0] in AGREED]
    if changed:
        msg = (
            f"--set must not change what inference has to agree on, got {', '.join(changed)}."
            " Change configs/common.yaml of the bundle, or plan anew."
        )
        raise UsageError(msg, code="disagrees-with-inference")


def _own_copy(root: Path, options: TrainOptions) -> Path:
    """Return the folder to train in: the bundle, or a copy of it without weights."""
    if options.output is None:
        return root
    output = options.output.absolute()
    if (output / "configs" / "metadata.json").is_file():
        if not (options.resume or options.overwrite):
            msg = (
                f"output must be a new folder, got {str(options.output)!r}, a bundle."
                " Add --resume to go on, or --overwrite."
            )
            raise OutputError(msg, code="output-exists")
        return output
    if output.exists() and any(output.iterdir()):
        msg = f"output must be a new or empty folder, got {str(options.output)!r}."
        raise OutputError(msg, code="output-exists")
    if rank_of_environment() == 0:
        with atomic_folder(output) as partial:
            for name in ("configs", "docs", "LICENSE"):
                source = root / name
                if source.is_dir():
                    shutil.copytree(source, partial / name)
                elif source.is_file():
                    shutil.copy(source, partial / name)
    return output


def _folds(fold: Fold, root: Path, config: Mapping[str, Any]) -> list[int | None]:
    if fold is None:
        return [None]
    if "fold" not in config:
        msg = f"fold must be left out for {root.name}, whose configs have none."
        raise UsageError(msg, code="no-folds")
    count = _number_of_folds(root)
    if fold == "all":
        return list(range(count))
    if not 0 <= fold < count:
        msg = f"fold must be from 0 to {count - 1} or all, got {fold}."
        raise UsageError(msg, code="no-such-fold")
    return [fold]


def _number_of_folds(root: Path) -> int:
    from medseg.data.folds import FOLDS, read_folds  # noqa: PLC0415

    path = root / "configs" / "splits.json"
    return len(read_folds(path)["folds"]) if path.is_file() else FOLDS


def _run_of(
    root: Path, config: Mapping[str, Any], number: int | None, options: TrainOptions
) -> _Run:
    changes: dict[str, Any] = {"bundle_root": str(root)}
    models, logs = root / "models", root / "logs"
    if number is not None:
        models, logs = models / f"fold_{number}", logs / f"fold_{number}"
        changes |= {"fold": number}
    changes |= {"model_dir": str(models), "log_dir": str(logs)}
    if options.dataset is not None:
        changes["dataset_dir"] = str(options.dataset.absolute())
    if options.deterministic:
        changes["deterministic"] = True
    if options.device != "auto":
        changes["device"] = f"$torch.device({options.device!r})"
    absent = sorted(set(changes) - set(config))
    if absent:
        msg = (
            f"configs of {root.name} must state {', '.join(absent)} for medseg train, got none."
            " Train it with python -m monai.bundle run."
        )
        raise BundleError(msg, code="not-trainable")
    return _Run(root, apply_overrides(config, changes), number, models, logs)


def _guard_results(run: _Run, options: TrainOptions) -> None:
    """See that nothing trained before is lost by accident."""
    if rank_of_environment() != 0:
        return
    there = [run.models / name for name in (*CHECKPOINTS, WEIGHTS)]
    there = [path for path in there if path.is_file()]
    checkpoint = any(path.name in CHECKPOINTS for path in there)
    if there and not (options.overwrite or (options.resume and checkpoint)):
        name = there[0].relative_to(run.root)
        advice = "Add --resume to go on, " if checkpoint else "Train a copy with -o FOLDER, "
        msg = f"bundle must not be trained yet, got {name} in {run.root.name}. {advice}"
        msg += "or --overwrite to lose it."
        raise OutputError(msg, code="already-trained")
    if options.overwrite:
        with output_errors(run.models):
            for path in there:
                path.unlink()
            shutil.rmtree(run.logs, ignore_errors=True)


def _train_fold(run: _Run, options: TrainOptions, tell: Progress) -> FoldResult:
    started = time.monotonic()
    error: Problem | None = None
    parts: dict[str, Any] = {}
    title = f"fold {run.number}: " if run.number is not None else ""
    try:
        with quiet_monai():
            run_configs(
                run.config,
                options.time_budget_s,
                parts,
                lambda *a: tell(a[0], a[1], f"{title}{a[2]}"),
            )
    except (UsageError, BundleError):
        raise
    except Exception as raised:
        problem = problem_of(raised)
        if "trainer" not in parts:  # nothing was started
            own = next((e for e in chain_of(raised) if isinstance(e, MedsegError)), None)
            raise own or TrainingError(problem.message, code=problem.code) from raised
        log.debug("training failed", exc_info=True)
        error = problem
    finally:
        leave_processes()
    return _result(run, parts, time.monotonic() - started, error)


def _result(
    run: _Run, parts: Mapping[str, Any], seconds: float, error: Problem | None
) -> FoldResult:
    from medseg.training.stopping import STOP  # noqa: PLC0415

    trainer, best, state = parts.get("trainer"), parts.get("best"), None
    if parts.get("log") is not None:
        state = parts["log"].state
    weights = run.models / WEIGHTS
    status: Literal["done", "interrupted", "failed"] = "interrupted" if STOP.wanted else "done"
    return FoldResult(
        fold=run.number,
        status="failed" if error else status,
        iterations=trainer.state.iteration if trainer else 0,
        seconds=seconds,
        best_dice=best.best if best is not None else None,
        waiting=state.waiting if state is not None else 0.0,
        weights=weights if weights.is_file() else None,
        log=run.logs,
        error=error,
    )
