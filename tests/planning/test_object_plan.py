"""A bundle that finds objects, from the sizes of a dataset's objects."""

import json
from pathlib import Path

import numpy as np
import pytest

from medseg.bundle import load_bundle
from medseg.cli.main import call
from medseg.errors import InputError
from medseg.io.raster import write_png
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
    assert tuple(spec.spacing) == (0.5, 0.5)
    assert [edge % 32 for edge in spec.patch_size] == [0, 0]
    anchors = [size for [size] in spec.network_def["anchor_sizes"]]
    assert anchors == sorted(anchors)
    assert 12 <= anchors[0] <= 20  # about twice the smallest; some discs are cut off at an edge
    assert anchors[-1] >= 30
    assert len(anchors) == spec.network_def["levels"] + 1
    assert load_bundle(planned.bundle).finds_objects


def test_a_tile_may_hold_more_objects_than_any_image(planned: PlanResult) -> None:
    choice = planned.plan.choices["most_objects"]
    tile = planned.plan.choices["tiles"].value["tile_size"]
    shapes = {case.case: case.shape for case in planned.plan.fingerprint.cases}
    [area] = {rows * columns for rows, columns in shapes.values()}
    most = choice.numbers["most_in_an_image"]
    expected = most * tile[0] * tile[1] * 0.25 / area  # half a pixel of the file each way
    assert expected > most
    assert choice.numbers["most_in_a_tile"] == pytest.approx(expected, abs=1)
    assert choice.value == min(1000, 2 * choice.numbers["most_in_a_tile"])
    common = (planned.bundle / "configs/common.yaml").read_text()
    assert f"tile_size: {tile}, overlap: {planned.plan.choices['tiles'].value['overlap']}" in common
    assert f"most_objects: {choice.value}\n" in common


def test_masks_of_classes_make_no_plan_for_objects(tmp_path: Path) -> None:
    root, _ = dataset(tmp_path / "data")
    (root / "dataset.yaml").write_text("name: x\nlabels: {disc: [1, 2, 3, 4]}\n")
    with pytest.raises(InputError) as caught:
        plan(PlanOptions(root, tmp_path / "discs", network="mask_rcnn"))
    assert caught.value.code == "no-objects"


@pytest.fixture
def with_bad_annotations(tmp_path: Path) -> Path:
    """Return a COCO folder of good objects, and of one annotation for each way to be bad."""
    images, annotations = [], []
    rng = np.random.default_rng(0)
    for number in range(1, 6):
        shown = rng.integers(0, 60, (60, 80, 3)).astype(np.uint8)
        shown[20:40, 10:40] += 120
        write_png(shown, tmp_path / "coco" / "images" / f"i{number}.png")
        images.append({"id": number, "file_name": f"i{number}.png", "height": 60, "width": 80})
        square = [[10, 20, 40, 20, 40, 40, 10, 40]]
        annotations.append({"image_id": number, "category_id": 1, "segmentation": square})
    images.append({"id": 50, "file_name": "gone.png", "height": 60, "width": 80})
    triangle = [[1, 1, 9, 1, 9, 9]]
    annotations += [
        {"image_id": 50, "category_id": 1, "segmentation": triangle},
        {"image_id": 99, "category_id": 1, "segmentation": triangle},
        {"image_id": 1, "category_id": 7, "segmentation": triangle},
        {"image_id": 1, "category_id": 1, "segmentation": [[1, 1, 5, 1]]},
        {"image_id": 2, "category_id": 1, "segmentation": {"size": [5, 6], "counts": [10, 20]}},
    ]
    listed = [{"id": place, "iscrowd": 0, **one} for place, one in enumerate(annotations, 1)]
    categories = [{"id": 1, "name": "part"}]
    document = {"images": images, "categories": categories, "annotations": listed}
    (tmp_path / "coco" / "annotations.json").write_text(json.dumps(document))
    return tmp_path / "coco"


def test_bad_annotations_are_left_out_and_said(with_bad_annotations: Path, tmp_path: Path) -> None:
    result = plan(PlanOptions(with_bad_annotations, tmp_path / "parts", network="mask_rcnn"))
    codes = {problem.code for problem in result.problems}
    assert codes >= {
        "missing-image", "unknown-image", "unknown-label", "shape-without-area", "bad-annotation",
    }  # fmt: skip
    assert result.plan.choices["objects"].value["objects"] == 5


def test_strict_refuses_what_would_be_left_out(with_bad_annotations: Path, tmp_path: Path) -> None:
    output = tmp_path / "parts"
    command = ["plan", str(with_bad_annotations), "-o", str(output), "--strict"]
    options = PlanOptions(with_bad_annotations, output, network="mask_rcnn", strict=True)
    with pytest.raises(
        InputError, match=r"got \d+ warnings:\n(.*\n)*.*image 99.*\n.*\[left-out\]"
    ) as caught:
        plan(options)
    assert caught.value.code == "bad-dataset"
    assert call([*command, "--network", "mask_rcnn"]) == 2
    assert not output.exists()


def test_a_dataset_without_an_object_is_refused(with_bad_annotations: Path, tmp_path: Path) -> None:
    file = with_bad_annotations / "annotations.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    with pytest.raises(InputError, match="no-objects"):
        plan(PlanOptions(with_bad_annotations, tmp_path / "parts", network="mask_rcnn"))


@pytest.mark.slow
def test_what_is_planned_is_trained(planned: PlanResult, tmp_path: Path) -> None:
    settings = ("epochs=1", "iterations_per_epoch=2", "batch_size=2", "val_interval=1",
                "num_workers=0")  # fmt: skip
    options = TrainOptions(str(planned.bundle), tmp_path / "data", settings=settings, device="cpu")
    [fold] = train(options).folds
    assert (fold.status, fold.metric, fold.iterations) == ("done", "val_mean_ap50", 2)
    assert 0 <= fold.best_score <= 1
    assert load_bundle(planned.bundle).has_weights
