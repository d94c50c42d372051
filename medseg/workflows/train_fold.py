"""Train one fold in this process: what `python -m monai.bundle run` does, with an ear on it."""

import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from medseg.errors import MedsegError, Problem, SampleError, TrainingError
from medseg.workflows.processes import world_of_environment

if TYPE_CHECKING:  # torch and MONAI take seconds
    from medseg.training import TrainingState

log = logging.getLogger(__name__)

WEIGHTS = "model.pt"
KEY_METRIC = "val_mean_dice"
METRIC_NAMES = {KEY_METRIC: "Dice", "val_mean_iou": "IoU", "val_mean_ap50": "AP50"}
"""What key metrics are called on the screen."""
STEPS = 1000
"""Steps in which the progress of a fold is told."""
LEAST_BUDGET_S = 1.0

Status = Literal["done", "interrupted", "failed"]


class Progress(Protocol):
    """Told how far the work is."""

    def __call__(self, done: int, total: int, what: str = "") -> None:
        """Take steps done, all steps, and what is being done."""


class Stopped(Exception):  # noqa: N818  # a signal, not an error
    """The process was asked to stop while there was nothing to keep yet."""


@dataclass(frozen=True)
class FoldJob:
    """One fold to train.

    Attributes:
        root: The bundle's folder.
        config: Its merged configs with all overrides; nothing evaluated.
        number: Of the fold; None where the bundle says itself.
        models: Folder of weights and checkpoints.
        logs: Folder of tables and curves.
        time_budget_s: Time it may take, preparing included, earlier runs too; s.
    """

    root: Path
    config: Mapping[str, Any]
    number: int | None
    models: Path
    logs: Path
    time_budget_s: float | None = None

    @property
    def title(self) -> str:
        """What stands before its progress."""
        return "" if self.number is None else f"fold {self.number}: "


@dataclass(frozen=True)
class FoldResult:
    """What came of one fold.

    Attributes:
        fold: Its number; None where the bundle says itself.
        status: `done`, `interrupted` (stopped on demand, with a checkpoint) or `failed`.
        iterations: Iterations trained, over all runs.
        seconds: Time of training, over all runs; s.
        best_score: Best value of the key metric in a validation; None without any.
        waiting: Share of this run's time spent waiting for data.
        weights: File of the inference weights, None while there is none.
        logs: Folder of tables and curves.
        error: Why it failed.
        metric: Name of the key metric.
    """

    fold: int | None
    status: Status
    iterations: int
    seconds: float
    best_score: float | None
    waiting: float
    weights: Path | None
    logs: Path
    error: Problem | None = None
    metric: str = KEY_METRIC

    def as_json(self) -> dict[str, Any]:
        """Return the fold as it stands in the JSON document."""
        error = self.error
        return {
            "fold": self.fold,
            "status": self.status,
            "iterations": self.iterations,
            "seconds": round(self.seconds, 1),
            "best": {self.metric: self.best_score},
            "share_waiting": round(self.waiting, 4),
            "weights": str(self.weights) if self.weights else None,
            "log": str(self.logs),
            "error": None if error is None else {"code": error.code, "message": error.message},
        }


@dataclass
class _Parts:
    """What a result is read off."""

    trainer: Any = None
    log: Any = None
    best: Any = None
    schedule: Any = None
    stopped: bool = False


def train_fold(job: FoldJob, tell: Progress) -> FoldResult:
    """Train one fold in this process, which may be one of several.

    Args:
        job: The fold.
        tell: Told how far it is.

    Returns:
        What came of it; a training that failed on the way is a result too.

    Raises:
        MedsegError: If it could not be started.
    """
    from medseg.training.failures import problem_of  # noqa: PLC0415
    from medseg.training.processes import leave_processes  # noqa: PLC0415
    from medseg.training.stopping import STOP  # noqa: PLC0415

    parts = _Parts()
    error: Problem | None = None
    STOP.listen()
    try:
        with quiet_monai():
            _run_configs(job, parts, _titled(tell, job.title))
    except Stopped:
        parts.stopped = True
    except Exception as raised:
        error = problem_of(raised)
        if _not_started(parts, raised):
            kind = type(raised) if isinstance(raised, MedsegError) else TrainingError
            raise kind(error.message, code=error.code) from raised
        log.debug("training failed", exc_info=True)
    finally:
        STOP.ignore()
        if error is None:  # a process that failed leaves without waiting for the others
            leave_processes()
    return _result(job, parts, error)


def _not_started(parts: _Parts, raised: BaseException) -> bool:
    """Whether a training ended for what it was given, before its first sample."""
    from medseg.training.failures import causes  # noqa: PLC0415

    if parts.trainer is None:
        return True
    own = [one for one in causes(raised) if isinstance(one, MedsegError)]
    of_input = any(not isinstance(one, SampleError) for one in own)
    return of_input and not parts.trainer.state.iteration


def _titled(tell: Progress, title: str) -> Progress:
    def titled(done: int, total: int, what: str = "") -> None:
        from medseg.training.stopping import STOP  # noqa: PLC0415

        tell(done, total, f"{title}{what}")
        if STOP.wanted and what.startswith("preprocessing"):
            raise Stopped

    return titled


def _run_configs(job: FoldJob, parts: _Parts, tell: Progress) -> None:
    from monai.bundle import ConfigParser  # noqa: PLC0415

    from medseg.training.stopping import STOP  # noqa: PLC0415

    began = time.monotonic()
    parser = ConfigParser(deepcopy(dict(job.config)))  # it resolves nested values in place
    parser.parse(reset=True)
    if world_of_environment() == 1:  # several first have to know each other: in initialize
        _prepare(parser, tell)
    tell(0, STEPS, "starting")
    parser.get_parsed_content("initialize", default=None)
    if world_of_environment() > 1:
        _prepare(parser, tell)
        STOP.agree(parser.get_parsed_content("device"))
        if STOP.wanted:
            raise Stopped
    if job.time_budget_s is not None:
        parser["time_budget_s"] = _common_budget_s(job.time_budget_s - time.monotonic() + began)
    trainer = parser.get_parsed_content("train#trainer")
    parts.log, parts.best = _part(parser, "train#log"), _part(parser, "validate#best")
    parts.schedule = _part(parser, "schedule")
    if parts.log is not None:
        parts.log.listener = _Listener(tell)
    parts.trainer = trainer
    parser.get_parsed_content("run")
    parts.stopped = STOP.wanted
    if "finalize" in parser and world_of_environment() == 1:  # of several it ends the process
        parser.get_parsed_content("finalize")


class _Listener:
    """Hands on the state of the run log."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell

    def __call__(self, state: "TrainingState") -> None:
        self._tell(int(STEPS * state.share), STEPS, describe_state(state))


def _common_budget_s(own_s: float) -> float:
    """Return the shortest budget of all processes: they must finish in the same iteration."""
    from medseg.training.processes import gathered  # noqa: PLC0415

    shortest_s: float = min(gathered(own_s))
    return max(LEAST_BUDGET_S, shortest_s)


def _part(parser: Any, name: str) -> Any:
    return parser.get_parsed_content(name) if name in parser else None


def _prepare(parser: Any, tell: Progress) -> None:
    for name, what in (("train#source", "training"), ("validate#dataset", "validation")):
        dataset = _part(parser, name)
        if hasattr(dataset, "prepare"):
            dataset.prepare(_preparing(tell, what), _left)


def _left() -> bool:
    """Whether this one of several processes leaves the rest of its cases; all stop after that."""
    from medseg.training.stopping import STOP  # noqa: PLC0415

    return STOP.asked and world_of_environment() > 1


def _preparing(tell: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: tell(done, total, f"preprocessing {what} cases")


def describe_state(state: "TrainingState") -> str:
    """Say in one line how far a training is.

    Args:
        state: Of the run log.

    Returns:
        For example `it 120  loss 0.412  Dice 0.713 (best 0.720)  ETA 1:05:10  waiting 0.4 %
        1.52 s/it`.
    """
    text = f"it {state.iteration}  loss {state.loss:.3f}"
    if not math.isnan(state.score):
        name = METRIC_NAMES.get(state.metric, state.metric)
        text += f"  {name} {state.score:.3f} (best {state.best_score:.3f})"
    if not math.isnan(state.eta_s):
        minutes, seconds = divmod(round(state.eta_s), 60)
        hours, minutes = divmod(minutes, 60)
        text += f"  ETA {hours}:{minutes:02}:{seconds:02}"
    return f"{text}  waiting {100 * state.waiting:.1f} %  {state.seconds_per_iteration:.2f} s/it"


def _result(job: FoldJob, parts: _Parts, error: Problem | None) -> FoldResult:
    weights = job.models / WEIGHTS
    status: Status = "interrupted" if parts.stopped else "done"
    return FoldResult(
        fold=job.number,
        status="failed" if error else status,
        iterations=parts.trainer.state.iteration if parts.trainer else 0,
        seconds=parts.schedule.elapsed_s if parts.schedule is not None else 0.0,
        best_score=parts.best.best if parts.best is not None else None,
        waiting=parts.log.state.waiting if parts.log is not None else 0.0,
        weights=weights if weights.is_file() else None,
        logs=job.logs,
        error=error,
        metric=parts.log.metric if parts.log is not None else KEY_METRIC,
    )


@contextmanager
def quiet_monai() -> Iterator[None]:
    """Keep MONAI's notes on its own defaults, and that configs are code, from the screen."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="parsing config_file")
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        warnings.simplefilter("ignore", FutureWarning)
        yield
