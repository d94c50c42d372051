"""What a training leaves to read while it runs: tables, curves, TensorBoard, its present state."""

import csv
import io
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from medseg.io.atomic import atomic_path, output_errors, write_text
from medseg.training.curves import KEY_METRIC, draw_curves, kind_of
from medseg.training.processes import rank
from medseg.training.schedule import Schedule

SMOOTHING = 0.95
"""Share of the old value in the loss that is shown."""
FLUSHED_EVERY_S = 1.0
DRAWN_EVERY_S = 30.0

LOSS_COLUMNS = ("iteration", "loss", "lr")
METRIC_COLUMNS = (
    "epoch",
    "iteration",
    "train_loss",
    KEY_METRIC,
    "lr",
    "seconds",
    "seconds_waiting_for_data",
    "share_waiting",
)


@dataclass(frozen=True)
class TrainingState:
    """How far a training is.

    Attributes:
        iteration: Iterations done.
        share: Share of the training that is done, 0 to 1.
        loss: Smoothed training loss; NaN before the first iteration.
        metric: Name of the key metric, such as `val_mean_dice`.
        score: Its value in the latest validation; NaN before the first.
        best_score: Best value so far; NaN before the first validation.
        eta_s: Time it will take yet; s; NaN while it is unknown.
        waiting: Share of the time spent waiting for data, 0 to 1.
        seconds_per_iteration: Over the last epoch, waiting included; s.
    """

    iteration: int
    share: float
    loss: float
    metric: str
    score: float
    best_score: float
    eta_s: float
    waiting: float
    seconds_per_iteration: float


class RunLog:
    """Handler of a trainer: writes `metrics.csv`, `losses.csv`, `curves.png` and TensorBoard.

    Attach it first. Of several processes only the first writes. On a resume, rows of iterations
    that are trained again are dropped.

    Args:
        folder: Where the files go; made when training starts.
        evaluator: The validation's evaluator.
        schedule: Of the training.
        tensorboard: Write TensorBoard's events too.
    """

    def __init__(
        self, folder: str, evaluator: Any, schedule: Schedule, tensorboard: bool = True
    ) -> None:
        self.folder = Path(folder)
        self.evaluator = evaluator
        self.schedule = schedule
        self.tensorboard = tensorboard
        self.listener: Callable[[TrainingState], None] | None = None
        self._writes = rank() == 0
        self._rows: list[dict[str, Any]] = []
        self._pending: list[tuple[int, float, float]] = []
        self._validations: list[tuple[int, dict[str, Any]]] = []
        self._loss = math.nan
        self._score = self._best = math.nan
        self._resumed_at = 0
        self._first_iteration = 0
        self._epoch = _Stretch()
        self._whole = _Stretch()
        self._flushed = self._drawn = 0.0
        self._board: Any = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: The trainer; its output holds `loss`.
        """
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.GET_BATCH_STARTED, self._wait)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._got)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        engine.add_event_handler(Events.COMPLETED, self._complete)
        self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self._validated, engine)

    @property
    def metric(self) -> str:
        """Name of the evaluator's key metric, such as `val_mean_dice` or `val_mean_iou`."""
        return getattr(self.evaluator.state, "key_metric_name", None) or KEY_METRIC

    def start_at(self, iteration: int) -> None:
        """Drop what an earlier run wrote beyond an iteration.

        Args:
            iteration: Iterations that are done.
        """
        self._resumed_at = iteration

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {"loss": self._loss, "dice": self._score, "best": self._best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of an earlier run.

        Args:
            state: What `state_dict` returned.
        """
        self._loss, self._score, self._best = (float(state[k]) for k in ("loss", "dice", "best"))

    @property
    def state(self) -> TrainingState:
        """How far the training is."""
        share = self.schedule.share
        elapsed_s = self.schedule.elapsed_s
        return TrainingState(
            iteration=self._resumed_at + self._whole.iterations,
            share=share,
            loss=self._loss,
            metric=self.metric,
            score=self._score,
            best_score=self._best,
            eta_s=elapsed_s * (1 - share) / share if share > 0 else math.nan,
            waiting=self._whole.share_waiting,
            seconds_per_iteration=self._whole.seconds_per_iteration,
        )

    def _start(self, engine: Engine) -> None:  # noqa: ARG002  # ignite's signature
        self._epoch, self._whole = _Stretch(), _Stretch()
        if not self._writes:
            return
        with output_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        kept = self._resumed_at  # ignite counts a training that is complete from the beginning
        losses = _read(self.folder / "losses.csv", kept)
        write_text(self.folder / "losses.csv", _csv_text(LOSS_COLUMNS, losses))
        self._rows = _read(self.folder / "metrics.csv", kept)
        self._write_metrics()
        if self.tensorboard and self._board is None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  # takes a second

            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=kept + 1)

    def _wait(self, engine: Engine) -> None:  # noqa: ARG002  # ignite's signature
        for stretch in (self._epoch, self._whole):
            stretch.wait()

    def _got(self, engine: Engine) -> None:  # noqa: ARG002
        for stretch in (self._epoch, self._whole):
            stretch.got()

    def _after_iteration(self, engine: Engine) -> None:
        loss = float(engine.state.output["loss"])
        if not math.isnan(loss):
            old = loss if math.isnan(self._loss) else self._loss
            self._loss = SMOOTHING * old + (1 - SMOOTHING) * loss
        for stretch in (self._epoch, self._whole):
            stretch.done(loss)
        if self._writes:
            self._pending.append((engine.state.iteration, loss, self.schedule.lr))
            if self._board is not None:
                self._board.add_scalar("loss", loss, engine.state.iteration)
                self._board.add_scalar("lr", self.schedule.lr, engine.state.iteration)
            if time.monotonic() - self._flushed > FLUSHED_EVERY_S:
                self._flush()
        if self.listener is not None:
            self.listener(self.state)

    def _validated(self, evaluator: Engine, trainer: Engine) -> None:
        name = evaluator.state.key_metric_name
        self._score = float(evaluator.state.metrics[name])
        if not self._score <= self._best and not math.isnan(self._score):
            self._best = self._score
        details = evaluator.state.metric_details.get(name, {})
        self._validations.append((trainer.state.iteration, details.get("labels", {})))
        if self._board is not None:
            self._board.add_scalar(name, self._score, trainer.state.iteration)
            for label, score in details.get("labels", {}).items():
                tag = f"{kind_of(self.metric)}/{label}"
                self._board.add_scalar(tag, score, trainer.state.iteration)
        if trainer.state.iteration and self._writes:
            self._close_row(trainer)

    def _after_epoch(self, engine: Engine) -> None:
        if self._writes and self._epoch.iterations:
            self._close_row(engine)

    def _close_row(self, engine: Engine) -> None:
        """Add or complete the row of what was trained since the last one."""
        iteration = engine.state.iteration
        if self._epoch.iterations:
            self._rows.append(
                {
                    "epoch": engine.state.epoch,
                    "iteration": iteration,
                    "train_loss": self._epoch.mean_loss,
                    "lr": self.schedule.lr,
                    "seconds": self._epoch.seconds,
                    "seconds_waiting_for_data": self._epoch.waited_s,
                    "share_waiting": self._epoch.share_waiting,
                }
            )
            self._epoch = _Stretch()
        if self._validations and self._rows and self._validations[-1][0] == iteration:
            prefix = f"val_{kind_of(self.metric)}_"
            scores = {f"{prefix}{k}": v for k, v in self._validations[-1][1].items()}
            self._rows[-1] |= {self.metric: self._score, **scores}
        self._flush()
        self._write_metrics()
        if time.monotonic() - self._drawn > DRAWN_EVERY_S:
            self._draw()

    def _complete(self, engine: Engine) -> None:
        if self._writes:
            if self._epoch.iterations:
                self._close_row(engine)
            self._flush()
            self._draw()
            if self._board is not None:
                self._board.close()
                self._board = None

    def _flush(self) -> None:
        self._flushed = time.monotonic()
        path = self.folder / "losses.csv"
        with output_errors(path), path.open("a", encoding="utf-8") as file:
            file.writelines(f"{i},{loss!r},{lr:.6g}\n" for i, loss, lr in self._pending)
        self._pending.clear()

    def _write_metrics(self) -> None:
        columns = [self.metric if name == KEY_METRIC else name for name in METRIC_COLUMNS]
        columns += [name for row in self._rows for name in row if name not in columns]
        columns = list(dict.fromkeys(columns))
        write_text(self.folder / "metrics.csv", _csv_text(columns, self._rows))

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        with atomic_path(self.folder / "curves.png") as partial:
            draw_curves(self._rows, partial)


class _Stretch:
    """Time of a stretch of iterations, and how much of it was spent waiting for data."""

    def __init__(self) -> None:
        self.iterations = 0
        self.seconds = 0.0
        self.waited_s = 0.0
        self._losses = 0.0
        self._finite = 0
        self._asked = self._began = time.monotonic()

    def wait(self) -> None:
        self._asked = time.monotonic()

    def got(self) -> None:
        self._began = time.monotonic()

    def done(self, loss: float) -> None:
        now = time.monotonic()
        self.iterations += 1
        self.waited_s += max(0.0, self._began - self._asked)
        self.seconds += now - self._asked
        if not math.isnan(loss):
            self._losses += loss
            self._finite += 1

    @property
    def mean_loss(self) -> float:
        return self._losses / self._finite if self._finite else math.nan

    @property
    def share_waiting(self) -> float:
        return self.waited_s / self.seconds if self.seconds else 0.0

    @property
    def seconds_per_iteration(self) -> float:
        return self.seconds / self.iterations if self.iterations else math.nan


def _read(path: Path, last_iteration: int) -> list[dict[str, Any]]:
    """Return the rows of a table up to an iteration; none where there is no table."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (row.get("iteration") or "").isdigit()]
    return [row for row in rows if int(row["iteration"]) <= last_iteration]


def _csv_text(columns: Any, rows: list[dict[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _short(value) for name, value in row.items() if name in columns})
    return stream.getvalue()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
