"""Average precision of object instances, each image counted once however many processes share."""

from collections.abc import Sequence
from typing import Any

import torch

from medseg.metrics.objects import ObjectMetrics
from medseg.objects import ObjectInstances
from medseg.training.case_metric import CaseMetric


class ObjectPrecision(CaseMetric[tuple[ObjectInstances, ObjectInstances]]):
    """Key metric of a validation of object instances: AP of masks at IoU 0.5, mean over classes.

    The details hold AP, AP75, F1, panoptic quality and AJI too, and AP50 by class.

    Args:
        names: Name of each class, from class 1 on.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)

    def count(
        self, pred: ObjectInstances, label: torch.Tensor
    ) -> tuple[ObjectInstances, ObjectInstances]:
        """Return the objects of one image, found and true.

        Args:
            pred: As `ObjectInferer` finds them.
            label: (layers, rows, columns), as `ObjectInstances.layers` makes them.
        """
        return pred, ObjectInstances.of_layers(label.cpu().numpy())

    def compute(self) -> dict[str, Any]:
        """Return `mean` (AP50), `labels` (name to AP50) and the other scores by their names."""
        metrics = ObjectMetrics(self.names)
        for case, (pred, truth) in self.everyones_cases().items():
            metrics.add(case, pred, truth)
        scores = metrics.scores()
        others = {name: scores.mean[name] for name in ("ap", "ap75", "f1", "pq", "aji")}
        return {
            "mean": scores.mean["ap50"],
            "labels": dict(zip(self.names, scores.of_class["ap50"].tolist(), strict=True)),
            **others,
        }
