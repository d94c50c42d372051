import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from medseg.training import HausdorffDistanceMm


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI of itself
def test_distances_are_in_mm_of_each_case() -> None:
    cases = []
    for spacing in ((1.0, 1.0, 5.0), (2.0, 2.0, 1.0)):
        affine = torch.from_numpy(np.diag([*spacing, 1.0]))
        pair = torch.zeros(2, 2, 12, 12, 12)
        pair[0, 1, 4:8, 4:8, 3] = 1
        pair[1, 1, 4:8, 4:8, 6] = 1  # three slices away
        cases.append({"pred": pair[0], "label": MetaTensor(pair[1], affine=affine)})
    engine = Engine(lambda _, batch: batch)
    metric = HausdorffDistanceMm(
        percentile=95,
        output_transform=lambda batch: ([i["pred"] for i in batch], [i["label"] for i in batch]),
    )
    metric.attach(engine, "hd95_mm")
    engine.run([[case] for case in cases])
    assert engine.state.metric_details["hd95_mm"].flatten().tolist() == [15.0, 3.0]
    assert engine.state.metrics["hd95_mm"] == pytest.approx(9.0)
