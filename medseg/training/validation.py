"""When a training is validated, and when it is over."""

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from ignite.engine import Engine, Events

from medseg.training.processes import largest, several_processes
from medseg.training.schedule import Schedule
from medseg.training.stopping import STOP

log = logging.getLogger(__name__)

BY_TIME = 20
"""Validations of a training under a time budget."""
LARGEST_SHARE = 0.15
"""Of the time of a training under a budget, what its validations may take at most."""


class Validation:
    """Handler of a trainer: validates every few epochs, or evenly over a time budget.

    Ends the training when its schedule is finished or when the score has stopped rising, always
    with a validation of the last weights. Attach it before `CheckpointKeeper`.

    Args:
        evaluator: MONAI evaluator with a key metric.
        schedule: Of the training.
        interval: Epochs between validations when there is no time budget.
        patience: Validations without a new best after which training ends; never when None.
        shortest_s: Validations of a time budget lie at least this far apart; s.
    """

    def __init__(
        self,
        evaluator: Any,
        schedule: Schedule,
        interval: int = 5,
        patience: int | None = None,
        shortest_s: float = 20.0,
    ) -> None:
        self.evaluator = evaluator
        self.schedule = schedule
        self.interval = interval
        self.patience = patience
        self.shortest_s = shortest_s
        self.best: float | None = None
        self._since_best = 0
        self._validated_at = 0
        self._next_share = 1 / BY_TIME
        self._spent_s = 0.0
        self._unfinished = False
        self._spent_budget_s = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer.

        Args:
            engine: The trainer.
        """
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._after_iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._after_epoch)
        engine.add_event_handler(Events.COMPLETED, self._complete)
        self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, _stop_evaluator)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resume needs."""
        return {
            "best": self.best,
            "since_best": self._since_best,
            "validated_at": self._validated_at,
            "next_share": self._next_share,
            "spent_s": self._spent_s,
            "reserve_s": self.schedule.reserve_s,
            "unfinished": self._unfinished,
            "spent_budget_s": self._spent_budget_s,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of an earlier run.

        Args:
            state: What `state_dict` returned.
        """
        self.best = state["best"]
        self._since_best = int(state["since_best"])
        self._validated_at = int(state["validated_at"])
        self._next_share = float(state["next_share"])
        self._spent_s = float(state["spent_s"])
        self.schedule.reserve_s = float(state["reserve_s"])
        self._unfinished = bool(state["unfinished"])
        self._spent_budget_s = float(state.get("spent_budget_s", 0.0))

    @property
    def _complete_before(self) -> bool:
        # a last validation quicker than foreseen leaves time over: not a reason to train again
        budget_s = self.schedule.time_budget_s
        return self.schedule.finished or (budget_s is not None and budget_s <= self._spent_budget_s)

    @property
    def _stopped_rising(self) -> bool:
        return self.patience is not None and self._since_best >= self.patience

    def _start(self, engine: Engine) -> None:
        self.schedule.start()
        STOP.listen()
        if self._complete_before or self._stopped_rising:  # a resume of what is complete
            engine.terminate()
        elif self._unfinished:  # the earlier run was stopped in the middle of a validation
            self._validate(engine)

    def _after_iteration(self, engine: Engine) -> None:
        if self.schedule.time_budget_s is None:
            # what the end of the epoch would start, a stop leaves to the resume
            self._unfinished = STOP.wanted and self._ends_stretch(engine)
            return
        if STOP.wanted:
            return
        finished = self.schedule.finished
        if finished or self._due(engine.state.device):
            self._next_share = max(self.schedule.share, self._next_share) + 1 / BY_TIME
            self._validate(engine)
        if finished and not STOP.wanted:
            self._spent_budget_s = self.schedule.time_budget_s
        if finished:
            engine.terminate()

    def _due(self, device: Any) -> bool:
        if self.schedule.share < self._next_share:
            return False
        # what one validation takes decides how many the budget allows
        once = self.schedule.reserve_s
        affordable = self._spent_s + once <= LARGEST_SHARE * self.schedule.elapsed_s
        due = self.schedule.elapsed_s >= self.shortest_s and (affordable or self._spent_s == 0)
        return largest([float(due)], device)[0] > 0  # clocks differ; processes must not

    def _after_epoch(self, engine: Engine) -> None:
        if STOP.wanted or self.schedule.time_budget_s is not None:
            return
        if self._ends_stretch(engine):
            self._validate(engine)

    def _ends_stretch(self, engine: Engine) -> bool:
        """Whether this iteration is the last before a validation."""
        return int(engine.state.iteration % (self.interval * engine.state.epoch_length)) == 0

    def _complete(self, engine: Engine) -> None:
        if not STOP.wanted and self._validated_at != engine.state.iteration:
            self._validate(engine)

    def _validate(self, engine: Engine) -> None:
        started = time.monotonic()
        self._unfinished = True
        self.evaluator.run(max(1, engine.state.epoch))
        if STOP.wanted:
            return
        self._unfinished = False
        self._validated_at = engine.state.iteration
        seconds = largest([time.monotonic() - started], engine.state.device)[0]
        self._spent_s += seconds
        self.schedule.reserve_s = 1.1 * seconds
        score = float(self.evaluator.state.metrics[self.evaluator.state.key_metric_name])
        if not math.isnan(score) and (self.best is None or score > self.best):
            self.best, self._since_best = score, 0
        else:
            self._since_best += 1
        if self._stopped_rising:
            log.info("no better for %d validations: training ends", self._since_best)
            engine.terminate()


def _stop_evaluator(engine: Engine) -> None:
    # of several processes, which have different numbers of cases, none may leave the others alone
    if STOP.wanted and not several_processes():
        engine.terminate()
