"""IoU of a whole data set, each image counted once however many processes share them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medseg.metrics.semantic import SemanticMetrics
from medseg.training.case_metric import CaseMetric


class DatasetIoU(CaseMetric[npt.NDArray[np.int64]]):
    """Key metric of a validation on pictures: mean IoU over the classes, of all pixels together.

    As PASCAL VOC and CamVid are scored: the pixels of all images go into one confusion matrix. A
    class that neither the references nor the predictions hold has no IoU and is left out of the
    mean. The details hold the values by class.

    Args:
        names: Name of each class, in the order of the channels, background included.
        ignore_index: Value of the reference where nothing is scored.
    """

    def __init__(self, names: Sequence[str], ignore_index: int | None = None) -> None:
        super().__init__()
        self.names = tuple(names)
        self.ignore_index = ignore_index

    def count(self, pred: torch.Tensor, label: torch.Tensor) -> npt.NDArray[np.int64]:
        """Return the confusion matrix of one case.

        Args:
            pred: (C, *spatial) logits.
            label: (1, *spatial) class numbers.

        Raises:
            InputError: If the reference holds a value that is no class (`unknown-label`).
        """
        metrics = SemanticMetrics(self.names, self.ignore_index)
        metrics.add(pred.argmax(dim=0).cpu().numpy(), label[0].cpu().numpy())
        return metrics.scores().confusion

    def compute(self) -> dict[str, Any]:
        """Return `mean`, `labels` (name to IoU) and `pixel_accuracy`.

        Every process must call it.
        """
        metrics = SemanticMetrics(self.names, self.ignore_index)
        metrics.add_confusions(list(self.everyones_cases().values()))
        scores = metrics.scores()
        return {
            "mean": scores.mean_iou,
            "labels": dict(zip(self.names, scores.iou.tolist(), strict=True)),
            "pixel_accuracy": scores.pixel_accuracy,
        }
