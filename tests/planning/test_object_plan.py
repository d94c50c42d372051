"""A bundle that finds objects, from the sizes of a dataset's objects."""

from pathlib import Path

import pytest

from medseg.bundle import load_bundle
from medseg.errors import InputError
from medseg.workflows.plan import PlanOptions, PlanResult, plan
from medseg.workflows.train import TrainOptions, train
from tests.workflows.test_evaluate_objects import dataset


@pytest.fixture
def planned(tmp_path: Path) -> PlanResult:
    root, _ = dataset(tmp_path / "data", 6)
    return plan(PlanOptions(root, tmp_path / "discs", network="mask_rcnn", folds=2))


def test_small_objects_are_enlarged_and_anchors_reach_over_their_sizes(planned: PlanResult) -> None:
    """The discs have sides of 9 to 15 pixels."""
    spec = planned.plan.spec
    assert tuple(spec.spacing_mm) == (0.5, 0.5)
    assert [edge % 32 for edge in spec.patch_size] == [0, 0]
    anchors = [size for [size] in spec.network_def["anchor_sizes"]]
    assert anchors == sorted(anchors)
    assert 12 <= anchors[0] <= 20  # about twice the smallest; some discs are cut off at an edge
    assert anchors[-1] >= 30
    assert len(anchors) == spec.network_def["levels"] + 1
    assert load_bundle(planned.bundle).finds_objects


def test_masks_of_classes_make_no_plan_for_objects(tmp_path: Path) -> None:
    root, _ = dataset(tmp_path / "data")
    (root / "dataset.yaml").write_text("name: x\nlabels: {disc: [1, 2, 3, 4]}\n")
    with pytest.raises(InputError) as caught:
        plan(PlanOptions(root, tmp_path / "discs", network="mask_rcnn"))
    assert caught.value.code == "no-objects"


@pytest.mark.slow
def test_what_is_planned_is_trained(planned: PlanResult, tmp_path: Path) -> None:
    settings = ("epochs=1", "iterations_per_epoch=2", "batch_size=2", "val_interval=1",
                "num_workers=0")  # fmt: skip
    options = TrainOptions(str(planned.bundle), tmp_path / "data", settings=settings, device="cpu")
    [fold] = train(options).folds
    assert (fold.status, fold.metric, fold.iterations) == ("done", "val_mean_ap50", 2)
    assert 0 <= fold.best_score <= 1
    assert load_bundle(planned.bundle).has_weights
