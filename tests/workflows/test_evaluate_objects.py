"""Objects that segment found, scored against a dataset."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from medseg.cli.main import app
from medseg.errors import InputError, UsageError
from medseg.io.coco_results import read_coco_results, write_coco
from medseg.io.raster import write_label_map, write_png
from medseg.objects import ObjectInstances, ObjectSegmentation
from medseg.volume import Source, Volume, make_labels
from medseg.workflows import results
from medseg.workflows.evaluate_objects import evaluate_objects
from tests.inference.test_object_tiles import discs
from tests.workflows.test_object_outputs import CONTEXT


def dataset(root: Path, count: int = 3) -> tuple[Path, dict[str, np.ndarray]]:
    """Write pictures with maps of object numbers; return the folder and the maps."""
    maps = {f"p{n}": discs((50, 64), 4, n, (4, 8)) for n in range(count)}
    maps["p2"] = np.zeros((50, 64), np.int32)  # no object
    for name, numbers in maps.items():
        (root / "images").mkdir(parents=True, exist_ok=True)
        shown = np.stack([(numbers > 0) * np.uint8(200)] * 3, axis=-1)
        shown[0, 0] = 2 * int(name[1:]) + 1  # no two pictures are the same
        write_png(shown, root / "images" / f"{name}.png")
        (root / "masks").mkdir(exist_ok=True)
        write_label_map(numbers, root / "masks" / f"{name}.png")
    (root / "dataset.yaml").write_text("name: x\nlabels: {disc: 1-}\n")
    return root, maps


def predict(root: Path, case: str, objects: ObjectInstances, names: tuple[str, ...]) -> None:
    sure = objects.chosen(objects.scores >= 0.5)
    found = ObjectSegmentation(
        sure.painted(sure.classes).astype(np.uint8), np.eye(3), make_labels(names),
        Source(format="raster", has_spacing=False), slices=(sure,),
        numbers=(np.arange(1, len(sure) + 1, dtype=np.int32),), candidates=(objects,),
    )  # fmt: skip
    image = Volume(np.zeros((3, *objects.size), np.uint8), np.eye(3), found.source)
    results.write(root / case, image, found, (), CONTEXT)


def test_what_equals_the_truth_scores_1_and_a_miss_less(tmp_path: Path) -> None:
    root, maps = dataset(tmp_path / "data")
    for case, numbers in maps.items():
        predict(tmp_path / "pred", case, ObjectInstances.of_label_map(numbers), ("disc",))
    result = evaluate_objects(tmp_path / "pred", root, output=tmp_path / "out")
    document = result.as_json()
    assert document["counts"] == {"cases": 3, "done": 3, "failed": 0}
    for name in ("ap", "ap50", "f1", "pq", "aji"):
        assert document["labels"]["disc"][name] == pytest.approx(1)
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == document
    less = ObjectInstances.of_label_map(np.where(maps["p0"] == 1, 0, maps["p0"]))
    predict(tmp_path / "pred", "p0", less, ("disc",))
    scores = evaluate_objects(tmp_path / "pred", root).as_json()["labels"]["disc"]
    assert scores["recall"] == pytest.approx(7 / 8)
    assert scores["precision"] == 1


def test_candidates_of_low_scores_count_for_ap_alone(tmp_path: Path) -> None:
    root, maps = dataset(tmp_path / "data")
    for case, numbers in maps.items():
        objects = ObjectInstances.of_label_map(numbers)
        scores = np.where(np.arange(len(objects)) == 0, 0.2, 0.9).astype(np.float32)
        predict(tmp_path / "pred", case, replace(objects, scores=scores), ("disc",))
    scores = evaluate_objects(tmp_path / "pred", root).as_json()["labels"]["disc"]
    assert scores["ap50"] == pytest.approx(1)
    assert scores["recall"] == pytest.approx(6 / 8)


def test_classes_go_by_name(tmp_path: Path) -> None:
    root, maps = dataset(tmp_path / "data")
    for case, numbers in maps.items():
        objects = ObjectInstances.of_label_map(numbers, 2)
        predict(tmp_path / "pred", case, objects, ("square", "disc"))
    scores = evaluate_objects(tmp_path / "pred", root).as_json()["labels"]
    assert scores["disc"]["ap"] == pytest.approx(1)
    assert scores["square"]["ap"] is None
    predict(tmp_path / "other", "p0", ObjectInstances((50, 64)), ("square",))
    with pytest.raises(UsageError, match="got disc") as caught:
        evaluate_objects(tmp_path / "other", root)
    assert caught.value.code == "label-mismatch"


def test_a_case_without_prediction_or_of_another_size_fails_alone(tmp_path: Path) -> None:
    root, maps = dataset(tmp_path / "data")
    predict(tmp_path / "pred", "p0", ObjectInstances.of_label_map(maps["p0"]), ("disc",))
    predict(tmp_path / "pred", "p1", ObjectInstances((50, 63)), ("disc",))
    result = evaluate_objects(tmp_path / "pred", root, output=tmp_path / "out")
    assert {case: p.code for case, p in result.failed.items()} == {
        "p1": "grid-mismatch",
        "p2": "no-prediction",
    }
    assert result.exit_code == 1
    rows = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["case", "p0", "p1", "p2"]


def test_masks_of_classes_are_no_truth_for_objects(tmp_path: Path) -> None:
    root, maps = dataset(tmp_path / "data")
    (root / "dataset.yaml").write_text("name: x\nlabels: {disc: [1, 2, 3, 4]}\n")
    predict(tmp_path / "pred", "p0", ObjectInstances.of_label_map(maps["p0"]), ("disc",))
    with pytest.raises(InputError) as caught:
        evaluate_objects(tmp_path / "pred", root)
    assert caught.value.code == "no-objects"


def test_the_command_scores_objects_where_there_are_some(tmp_path: Path) -> None:
    root, maps = dataset(tmp_path / "data")
    for case, numbers in maps.items():
        predict(tmp_path / "pred", case, ObjectInstances.of_label_map(numbers), ("disc",))
    shown = CliRunner().invoke(app, ["evaluate", str(tmp_path / "pred"), str(root)])
    assert shown.exit_code == 0
    assert "ap50" in shown.stdout
    assert "1.000" in shown.stdout


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    objects = ObjectInstances.of_label_map(discs((20, 30), 2, 0, (3, 5)))
    write_coco(tmp_path / "a.json", [("x", objects)], ["disc"])
    [(name, again)] = read_coco_results(tmp_path / "a.json")
    assert (name, again.masks, again.size) == ("x", objects.masks, objects.size)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(InputError, match="KeyError"):
        read_coco_results(tmp_path / "a.json")
