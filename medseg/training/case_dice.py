"""Dice of whole cases, each counted once however many processes share them."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from ignite.engine import Engine, Events

from medseg.training.processes import gathered


class CaseDice:
    """Key metric of a validation: mean Dice over the cases, a label at a time, then over labels.

    A label that neither the reference nor the prediction holds has no Dice: its case is left out
    of that label's mean. The values by label and by case are in
    `engine.state.metric_details[name]`.

    Args:
        names: Names of the labels, background left out; numbered when left out.
        activation: `softmax`: the largest of the channels wins, channel 0 is background and the
            reference holds class numbers; `sigmoid`: a channel a region, positive logits are
            inside, and the reference has as many channels of 0 and 1.
        ignore_index: Value of the reference where nothing is scored; with `softmax` alone.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        activation: Literal["softmax", "sigmoid"] = "softmax",
        ignore_index: int | None = None,
    ) -> None:
        self.names = tuple(names)
        self.activation = activation
        self.ignore_index = ignore_index
        self._cases: dict[str, list[float]] = {}

    def attach(self, engine: Engine, name: str) -> None:
        """Attach to an evaluator.

        Args:
            engine: The evaluator; its output holds `pred` (1, C, *spatial) and `label`.
            name: Name of the metric.
        """
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish, name)

    def reset(self) -> None:
        """Forget all cases."""
        self._cases.clear()

    def update(self, engine: Engine) -> None:
        """Score the cases of one batch.

        Args:
            engine: The evaluator, after an iteration.
        """
        batch, output = engine.state.batch, engine.state.output
        ids = batch.get("case") or [f"#{len(self._cases) + i}" for i in range(len(output["pred"]))]
        for case, pred, label in zip(ids, output["pred"], output["label"], strict=True):
            self._cases[str(case)] = self._dice(pred, label)

    def compute(self) -> dict[str, Any]:
        """Return `mean`, `labels` (name to mean) and `cases` (id to Dice by label).

        Every process must call it.
        """
        cases: dict[str, list[float]] = {}
        for part in gathered(self._cases):
            cases.update(part)
        if not cases:
            return {"mean": float("nan"), "labels": {}, "cases": {}}
        table = np.array([cases[case] for case in sorted(cases)], np.float64)
        labels = [_mean(column) for column in table.T]
        names = self.names or [str(number) for number in range(1, len(labels) + 1)]
        return {
            "mean": _mean(np.array(labels)),
            "labels": dict(zip(names, labels, strict=True)),
            "cases": {case: cases[case] for case in sorted(cases)},
        }

    def _dice(self, pred: torch.Tensor, label: torch.Tensor) -> list[float]:
        if self.activation == "sigmoid":
            pairs = [(p > 0, t > 0) for p, t in zip(pred, label, strict=True)]
        else:
            found = pred.argmax(dim=0)
            if self.ignore_index is not None:
                found = found.masked_fill(label[0] == self.ignore_index, 0)
            pairs = [(found == number, label[0] == number) for number in range(1, len(pred))]
        result = []
        for inside, reference in pairs:
            size = int(inside.sum()) + int(reference.sum())
            both = int((inside & reference).sum())
            result.append(2 * both / size if size else float("nan"))
        return result

    def _finish(self, engine: Engine, name: str) -> None:
        result = self.compute()
        engine.state.metrics[name] = result["mean"]
        engine.state.metric_details[name] = result


def _mean(values: np.ndarray[Any, Any]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
