"""Mean IoU of a validation, against torchmetrics' definition written out."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from medseg.errors import InputError
from medseg.training import CaseDice, DatasetIoU

NAMES = ("sky", "road", "car", "sign")


def logits_of(mask: torch.Tensor, classes: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(mask.long(), classes).movedim(-1, 0).float()


def run(metric, pairs, classes: int = len(NAMES)) -> Engine:
    def step(engine: Engine, pair):
        pred, label, name = pair
        engine.state.batch = {"case": [name]}
        return {"pred": logits_of(pred, classes)[None], "label": label[None, None]}

    engine = Engine(step)
    engine.state.metric_details = {}
    metric.attach(engine, "score")
    engine.run(pairs)
    return engine


@pytest.fixture
def pairs():
    rng = torch.Generator().manual_seed(0)
    found = []
    for number, size in enumerate([(9, 11), (5, 4), (30, 2)]):
        label = torch.randint(0, 3, size, generator=rng)
        label[torch.rand(size, generator=rng) < 0.2] = 255
        pred = torch.randint(0, 3, size, generator=rng)
        found.append((pred, label, f"case_{number}"))
    return found


def test_it_is_the_iou_of_all_pixels_together(pairs) -> None:
    engine = run(DatasetIoU(NAMES, ignore_index=255), pairs)
    pred = np.concatenate([p.numpy().ravel() for p, _, _ in pairs])
    label = np.concatenate([t.numpy().ravel() for _, t, _ in pairs])
    pred, label = pred[label != 255], label[label != 255]
    ious = [
        np.sum((pred == c) & (label == c)) / np.sum((pred == c) | (label == c)) for c in range(3)
    ]
    details = engine.state.metric_details["score"]
    assert engine.state.metrics["score"] == pytest.approx(np.mean(ious))
    assert [details["labels"][name] for name in NAMES[:3]] == pytest.approx(ious)
    assert np.isnan(details["labels"]["sign"])  # nowhere
    assert details["pixel_accuracy"] == pytest.approx(np.mean(pred == label))


def test_a_case_that_comes_twice_counts_once_and_epochs_start_anew(pairs) -> None:
    metric = DatasetIoU(NAMES, ignore_index=255)
    once = run(metric, pairs).state.metrics["score"]
    again = run(metric, [*pairs, pairs[0]]).state.metrics["score"]
    assert again == once


def test_a_value_that_is_no_class_is_refused(pairs) -> None:
    with pytest.raises(InputError, match="255"):
        run(DatasetIoU(NAMES), pairs)


def test_dice_leaves_ignored_voxels_out() -> None:
    label = torch.tensor([[1, 1, 255, 255], [0, 0, 255, 0]])
    pred = torch.tensor([[1, 0, 1, 1], [1, 0, 1, 0]])
    engine = run(CaseDice(["thing"], ignore_index=255), [(pred, label, "a")], classes=2)
    assert engine.state.metrics["score"] == pytest.approx(2 * 1 / (2 + 2))


def test_decollated_cases_are_counted_alike(pairs) -> None:
    def step(engine: Engine, pair):
        pred, label, name = pair
        engine.state.batch = [{"case": name}]
        return [{"pred": logits_of(pred, 4), "label": label[None]}]

    engine = Engine(step)
    engine.state.metric_details = {}
    metric = DatasetIoU(NAMES, ignore_index=255)
    metric.attach(engine, "score")
    engine.run(pairs)
    assert engine.state.metrics == run(metric, pairs).state.metrics
