"""IoU of a whole data set, each image counted once however many processes share them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ignite.engine import Engine, Events

from medseg.metrics.semantic import SemanticMetrics
from medseg.training.processes import gathered


class DatasetIoU:
    """Key metric of a validation on pictures: mean IoU over the classes, of all pixels together.

    As PASCAL VOC and CamVid are scored: the pixels of all images go into one confusion matrix. A
    class that neither the references nor the predictions hold has no IoU and is left out of the
    mean. The values by class are in `engine.state.metric_details[name]`.

    Args:
        names: Name of each class, in the order of the channels, background included.
        ignore_index: Value of the reference where nothing is scored.
    """

    def __init__(self, names: Sequence[str], ignore_index: int | None = None) -> None:
        self.names = tuple(names)
        self.ignore_index = ignore_index
        self._cases: dict[str, npt.NDArray[np.int64]] = {}

    def attach(self, engine: Engine, name: str) -> None:
        """Attach to an evaluator.

        Args:
            engine: The evaluator; its output holds `pred` (1, C, *spatial) logits and `label`
                (1, 1, *spatial) class numbers, or is a list of cases without the first axis.
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
            InputError: If a reference holds a value that is no class (`unknown-label`).
        """
        for case, pred, label in _cases_of(engine, len(self._cases)):
            metrics = SemanticMetrics(self.names, self.ignore_index)
            found = pred.argmax(dim=0).cpu().numpy()
            metrics.add(found, label[0].cpu().numpy())
            self._cases[str(case)] = metrics.scores().confusion

    def compute(self) -> dict[str, Any]:
        """Return `mean`, `labels` (name to IoU) and `pixel_accuracy`.

        Every process must call it.
        """
        cases: dict[str, npt.NDArray[np.int64]] = {}
        for part in gathered(self._cases):
            cases.update(part)
        metrics = SemanticMetrics(self.names, self.ignore_index)
        metrics.add_confusions(list(cases.values()))
        scores = metrics.scores()
        return {
            "mean": scores.mean_iou,
            "labels": dict(zip(self.names, scores.iou.tolist(), strict=True)),
            "pixel_accuracy": scores.pixel_accuracy,
        }

    def _finish(self, engine: Engine, name: str) -> None:
        result = self.compute()
        engine.state.metrics[name] = result["mean"]
        engine.state.metric_details[name] = result


def _cases_of(engine: Engine, seen: int) -> Iterator[tuple[str, Any, Any]]:
    """Yield name, logits and reference of each case of an iteration."""
    batch, output = engine.state.batch, engine.state.output
    if isinstance(output, list):  # decollated
        for number, (case, one) in enumerate(zip(batch, output, strict=True), seen):
            yield str(case.get("case", f"#{number}")), one["pred"], one["label"]
        return
    names = batch.get("case") or [f"#{seen + i}" for i in range(len(output["pred"]))]
    for name, pred, label in zip(names, output["pred"], output["label"], strict=True):
        yield str(name), pred, label
