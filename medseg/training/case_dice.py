"""Dice of whole cases, each counted once however many processes share them."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from medseg.training.case_metric import CaseMetric


class CaseDice(CaseMetric[list[float]]):
    """Key metric of a validation: mean Dice over the cases, a label at a time, then over labels.

    A label that neither the reference nor the prediction holds has no Dice: its case is left out
    of that label's mean. The details hold the values by label and by case.

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
        super().__init__()
        self.names = tuple(names)
        self.activation = activation
        self.ignore_index = ignore_index

    def compute(self) -> dict[str, Any]:
        """Return `mean`, `labels` (name to mean) and `cases` (id to Dice by label).

        Every process must call it.
        """
        cases = self.everyones_cases()
        if not cases:
            return {"mean": float("nan"), "labels": {}, "cases": {}}
        table = np.array(list(cases.values()), np.float64)
        labels = [_mean(column) for column in table.T]
        names = self.names or [str(number) for number in range(1, len(labels) + 1)]
        return {
            "mean": _mean(np.array(labels)),
            "labels": dict(zip(names, labels, strict=True)),
            "cases": cases,
        }

    def count(self, pred: torch.Tensor, label: torch.Tensor) -> list[float]:
        """Return the Dice of each label of one case.

        Args:
            pred: (C, *spatial) logits.
            label: (1, *spatial) class numbers, or (C, *spatial) regions.
        """
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


def _mean(values: np.ndarray[Any, Any]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")
