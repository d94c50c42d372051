"""evaluate against the labels of a dataset: segments by name, cases by id."""

import json
from pathlib import Path

import numpy as np
import pytest

from medseg.data import open_dataset
from medseg.errors import UsageError
from medseg.io.labels import write_labels
from medseg.io.nifti import write_nifti_mask
from medseg.io.read import read
from medseg.volume import Label, Segmentation, make_labels
from medseg.workflows.evaluate import EvaluateOptions, EvaluateResult, evaluate
from tests.data.datasets import write_image, write_msd
from tests.data.dicom_sets import write_dicom_set


def _predict(root: Path, out: Path, names: dict[int, str], *, table: bool = True) -> Path:
    """Write the labels of a dataset as predictions: values by name, the first box one too short."""
    value_of = {name: value for value, name in names.items()}
    dataset = open_dataset(root)
    for case in dataset.cases:
        label = read(case.label)
        array = np.zeros(label.shape, np.uint8)
        for structure in dataset.structures:
            array[np.isin(label.array[0], structure.values)] = value_of[structure.name]
        array[2] = 0
        labels = make_labels(names)
        folder = out / case.case_id
        write_nifti_mask(Segmentation(array, label.affine, labels), folder / "segmentation.nii.gz")
        if table:
            write_labels(labels, folder)
    return out


def _dice(result: EvaluateResult) -> dict[str, float]:
    assert result.exit_code == 0
    return {name: scores["dice"] for name, scores in result.labels().items()}


TWO_OF_THREE = 2 * 2 / (2 + 3)


def test_segments_are_scored_by_name_whatever_their_values(tmp_path: Path) -> None:
    root = write_dicom_set(tmp_path / "set")
    pred = _predict(root, tmp_path / "pred", {1: "right", 5: "left"})
    result = evaluate(EvaluateOptions(pred, root))
    assert len(result.cases) == 4
    assert _dice(result) == pytest.approx({"right": 1.0, "left": TWO_OF_THREE})


def test_without_names_of_the_predictions_segments_are_not_scored(tmp_path: Path) -> None:
    root = write_dicom_set(tmp_path / "set", count=2)
    pred = _predict(root, tmp_path / "pred", {1: "right", 2: "left"}, table=False)
    with pytest.raises(UsageError, match="has left, right") as caught:
        evaluate(EvaluateOptions(pred, root))
    assert caught.value.code == "no-values"
    result = evaluate(EvaluateOptions(pred, root, labels=("right", "left")))
    assert _dice(result) == pytest.approx({"right": 1.0, "left": TWO_OF_THREE})


REGIONS = {"whole": [1, 2, 3], "core": [1, 3], "enhancing": [3]}


@pytest.mark.parametrize("against", ["dataset", "masks", "dataset without table"])
def test_a_region_is_scored_with_what_lies_within_it(tmp_path: Path, against: str) -> None:
    truth = np.zeros((10, 10, 10), np.uint8)
    truth[1:9, 1:9, 1:9], truth[2:6, 2:6, 2:6], truth[3:5, 3:5, 3:5] = 2, 1, 3
    pred = truth.copy()
    pred[1:9, 1:9, 8] = 0  # a plane of the whole is missed
    pred[2, 2:6, 2:6] = 2  # one of the core is taken for the rest of the whole
    write_image(tmp_path / "set/images/a.nii.gz", truth.astype(np.float32))
    write_image(tmp_path / "set/labels/a.nii.gz", truth)
    document = {
        "labels": REGIONS, "regions": True,
        "cases": [{"case": "a", "image": "images/a.nii.gz", "label": "labels/a.nii.gz"}],
    }  # fmt: skip
    manifest = tmp_path / "set/manifest.json"
    manifest.write_text(json.dumps(document))
    folder = tmp_path / "pred/a"
    write_image(folder / "segmentation.nii.gz", pred)
    colors = ((9, 9, 9), (99, 9, 9), (9, 99, 9))
    labels = [
        Label(value, name, color, tuple(REGIONS[name]))
        for value, name, color in zip((2, 1, 3), REGIONS, colors, strict=True)
    ]
    if against != "dataset without table":
        write_labels(labels, folder)
    label = manifest
    if against == "masks":
        label = tmp_path / "truth"
        write_image(label / "a.nii.gz", truth)
    result = evaluate(EvaluateOptions(tmp_path / "pred", label))
    expected = {}
    for name, values in REGIONS.items():
        a, b = np.isin(pred, values), np.isin(truth, values)
        expected[name] = 2 * (a & b).sum() / (a.sum() + b.sum())
    assert _dice(result) == pytest.approx(expected)
    assert expected["whole"] > 0.9
    assert [score.index for score in result.cases[0].scores.values()] == [1, 2, 3]


def test_a_case_of_the_dataset_without_a_prediction_is_listed(tmp_path: Path) -> None:
    root = write_dicom_set(tmp_path / "set")
    pred = _predict(root, tmp_path / "pred", {1: "left", 2: "right"})
    folder = next(pred.iterdir())
    (folder / "segmentation.nii.gz").unlink()
    result = evaluate(EvaluateOptions(pred, root))
    assert result.exit_code == 1
    problems = {case.case: case.error.code for case in result.cases if case.error}
    assert problems == {folder.name: "no-prediction"}


def test_a_manifest_or_a_described_folder_gives_labels_and_their_names(tmp_path: Path) -> None:
    root = write_msd(tmp_path / "set", count=3)
    pred = _predict(root, tmp_path / "pred", {1: "thing 1", 2: "thing 2"})
    expected = pytest.approx({"thing 1": TWO_OF_THREE, "thing 2": 1.0})
    assert _dice(evaluate(EvaluateOptions(pred, root))) == expected
    rows = [f"toy_{n:03d}" for n in range(3)]
    lines = [f"{row},imagesTr/{row}.nii.gz,labelsTr/{row}.nii.gz" for row in rows]
    (root / "set.csv").write_text("\n".join(["case,image,label", *lines]))
    assert _dice(evaluate(EvaluateOptions(pred, root / "set.csv"))) == expected
    declared = {"labels": {"thing 2": 1, "thing 1": 2}}  # the other way round than predicted
    (root / "set.json").write_text(json.dumps(declared))
    assert _dice(evaluate(EvaluateOptions(pred, root / "set.csv"))) == {"thing 1": 0, "thing 2": 0}
    (root / "set.json").write_text(json.dumps({"labels": {"thing 2": 1, "thing 3": 2}}))
    with pytest.raises(UsageError, match="got 'thing 3'") as caught:
        evaluate(EvaluateOptions(pred, root / "set.csv"))
    assert caught.value.code == "label-mismatch"


def test_a_folder_that_is_neither_masks_nor_dataset_is_refused(tmp_path: Path) -> None:
    root = write_dicom_set(tmp_path / "set", count=1)
    pred = _predict(root, tmp_path / "pred", {1: "left", 2: "right"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as caught:
        evaluate(EvaluateOptions(pred, tmp_path / "empty"))
    assert caught.value.code == "no-cases"
