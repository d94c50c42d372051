"""What the metrics of a validation share: cases, each counted once, from all processes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import torch
from ignite.engine import Engine, Events

from medseg.training.processes import gathered

Counted = TypeVar("Counted")


class CaseMetric(ABC, Generic[Counted]):
    """A key metric made of what is counted case by case.

    `compute` returns a dict with the metric itself under `mean`; the whole of it is in
    `engine.state.metric_details[name]`.
    """

    def __init__(self) -> None:
        self._cases: dict[str, Counted] = {}

    def attach(self, engine: Engine, name: str) -> None:
        """Attach to an evaluator.

        Args:
            engine: The evaluator; its output holds `pred` (1, C, *spatial) and `label`, or is a
                list of cases without the first axis.
            name: Name of the metric.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish, name)

    def reset(self) -> None:
        """Forget all cases."""
        self._cases.clear()

    def update(self, engine: Engine) -> None:
        """Count the cases of one batch.

        Args:
            engine: The evaluator, after an iteration.

        Raises:
            InputError: As `count` does.
        """
        for case, pred, label in _cases_of(engine, len(self._cases)):
            self._cases[case] = self.count(pred, label)

    @abstractmethod
    def count(self, pred: Any, label: torch.Tensor) -> Counted:
        """Return what counts of one case.

        Args:
            pred: (C, *spatial) logits, or the objects that were found.
            label: Its reference.
        """

    @abstractmethod
    def compute(self) -> dict[str, Any]:
        """Return the metric as `mean`, and what it is made of; every process must call it."""

    def everyones_cases(self) -> dict[str, Counted]:
        """Return what all processes counted, by case in the order of the ids."""
        cases: dict[str, Counted] = {}
        for part in gathered(self._cases):
            cases.update(part)
        return dict(sorted(cases.items()))

    def _finish(self, engine: Engine, name: str) -> None:
        result = self.compute()
        engine.state.metrics[name] = result["mean"]
        engine.state.metric_details[name] = result


def _cases_of(engine: Engine, seen: int) -> Iterator[tuple[str, Any, torch.Tensor]]:
    """Yield name, logits and reference of each case of an iteration."""
    batch, output = engine.state.batch, engine.state.output
    if isinstance(output, list):  # decollated
        for number, (case, one) in enumerate(zip(batch, output, strict=True), seen):
            yield str(case.get("case", f"#{number}")), one["pred"], one["label"]
        return
    names = batch.get("case") or [f"#{seen + i}" for i in range(len(output["pred"]))]
    for name, pred, label in zip(names, output["pred"], output["label"], strict=True):
        yield str(name), pred, label
