from types import SimpleNamespace

import numpy as np
import pytest
import torch
from monai.metrics import DiceMetric
from monai.networks.utils import one_hot

from medseg.training import CaseDice


def _engine(cases: list[str], pred: torch.Tensor, label: torch.Tensor) -> SimpleNamespace:
    state = SimpleNamespace(batch={"case": cases}, output={"pred": pred, "label": label})
    return SimpleNamespace(state=state)


def test_it_equals_monais_dice_of_whole_cases() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = CaseDice(["a", "b", "c"]), DiceMetric(include_background=False)
    for number in range(4):
        pred = torch.randn(1, 4, 6, 5, 4, generator=generator)
        label = torch.randint(0, 4, (1, 1, 6, 5, 4), generator=generator)
        ours.update(_engine([f"case {number}"], pred, label))
        theirs(one_hot(pred.argmax(1, keepdim=True), 4), one_hot(label, 4))
    expected = theirs.get_buffer().numpy()
    result = ours.compute()
    assert np.allclose(list(result["cases"].values()), expected, atol=1e-6)
    assert result["mean"] == pytest.approx(expected.mean(0).mean())
    assert list(result["labels"]) == ["a", "b", "c"]


def test_regions_may_overlap() -> None:
    pred = torch.full((1, 2, 4, 4), -1.0)
    pred[0, 0, :2] = 1.0
    pred[0, 1, :1] = 1.0
    label = (pred > 0).to(torch.uint8)
    label[0, 1] = 0
    label[0, 1, 1] = 1
    metric = CaseDice(["whole", "core"], activation="sigmoid")
    metric.update(_engine(["x"], pred, label))
    assert metric.compute()["labels"] == {"whole": 1.0, "core": 0.0}


def test_a_label_that_is_nowhere_has_no_dice_and_a_missed_one_has_zero() -> None:
    pred = torch.zeros(2, 3, 4, 4)
    pred[:, 0] = 1.0  # all background
    label = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    label[1, 0, 0] = 1
    metric = CaseDice()
    metric.update(_engine(["empty", "missed"], pred, label))
    result = metric.compute()
    assert result["labels"]["1"] == 0.0
    assert np.isnan(result["labels"]["2"])
    assert result["mean"] == 0.0


def test_a_case_seen_twice_counts_once() -> None:
    pred, label = torch.zeros(1, 2, 4, 4), torch.ones(1, 1, 4, 4, dtype=torch.uint8)
    metric = CaseDice()
    metric.update(_engine(["x"], pred, label))
    metric.update(_engine(["x"], pred, label))
    assert list(metric.compute()["cases"]) == ["x"]


def test_no_case_is_no_number() -> None:
    assert np.isnan(CaseDice().compute()["mean"])
