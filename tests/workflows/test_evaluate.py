"""The evaluate workflow: documents, counts, refusals, and that nothing is dropped."""

import csv
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medseg.errors import UsageError
from medseg.io.labels import write_labels
from medseg.metrics.segmentation import METRICS
from medseg.volume import make_labels
from medseg.workflows.evaluate import EvaluateOptions, evaluate
from tests.real_data import data_folder

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


def _save(array: np.ndarray, path: Path, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def _mask(*boxes: tuple[int, int, int]) -> np.ndarray:
    """Boxes of 4x4x4 voxels: label, first row, shift along the first axis."""
    array = np.zeros((20, 20, 10), np.uint8)
    for label, row, shift in boxes:
        array[2 + shift : 6 + shift, row : row + 4, 3:7] = label
    return array


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three cases in the folders of `segment`, with flat labels."""
    pred, label = tmp_path / "pred", tmp_path / "label"
    _save(_mask((1, 2, 0), (2, 10, 2)), pred / "a" / "segmentation.nii.gz")
    _save(_mask((1, 2, 0), (2, 10, 0)), label / "a.nii.gz")
    _save(_mask((1, 2, 1)), pred / "b" / "segmentation.nii.gz")
    _save(_mask((1, 2, 0), (2, 10, 0)), label / "b.nii.gz")
    _save(_mask((2, 10, 0)), pred / "c" / "segmentation.nii.gz")
    _save(_mask(), label / "c.nii.gz")
    for case in "abc":
        write_labels(make_labels(["organ", "lesion", "cyst"]), pred / case)
    return pred, label


def test_the_document_has_means_over_defined_cases_and_counts(folders: tuple[Path, Path]) -> None:
    result = evaluate(EvaluateOptions(*folders))
    document = result.as_json()
    assert document["schema"] == 1
    assert list(document["labels"]) == ["organ", "lesion", "cyst"]
    organ, lesion, cyst = document["labels"].values()
    # a: 1; b: shifted by 1 of 4; c: absent in both, so it is not averaged in
    assert organ["dice"] == pytest.approx((1 + 0.75) / 2)
    assert organ["counts"] == {
        "cases": 3,
        "scored": 2,
        "missed": 0,
        "false-positive": 0,
        "absent": 1,
    }
    # a: shifted by 2 of 4; b: missed; c: false positive
    assert lesion["dice"] == pytest.approx((0.5 + 0 + 0) / 3)
    assert lesion["hd95_mm"] == pytest.approx(2)
    assert lesion["counts"] == {
        "cases": 3,
        "scored": 1,
        "missed": 1,
        "false-positive": 1,
        "absent": 0,
    }
    assert lesion["defined"]["dice"] == 3
    assert lesion["defined"]["hd95_mm"] == 1
    assert lesion["volume_difference_ml"] == pytest.approx((0 - 0.128 + 0.128) / 3)
    assert all(cyst[metric] is None for metric in METRICS)
    assert cyst["counts"]["absent"] == 3
    assert document["mean"]["dice"] == pytest.approx((0.875 + 0.5 / 3) / 2)
    assert document["cases"][2]["labels"]["organ"]["dice"] is None
    assert document["cases"][2]["labels"]["lesion"]["outcome"] == "false-positive"
    assert [case["case"] for case in document["cases"]] == ["a", "b", "c"]
    assert result.exit_code == 0
    json.dumps(document, allow_nan=False)


def test_files_are_written_and_agree_with_the_result(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = evaluate(EvaluateOptions(*folders, output=out))
    assert sorted(path.name for path in out.iterdir()) == ["metrics.csv", "summary.json"]
    assert json.loads((out / "summary.json").read_text()) == result.as_json()
    assert str(tmp_path) not in (out / "summary.json").read_text()
    with (out / "metrics.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["case"], row["label"]) for row in rows] == [
        (case, label) for case in "abc" for label in ("organ", "lesion", "cyst")
    ]
    assert float(rows[3]["dice"]) == 0.75
    assert rows[4]["outcome"] == "missed"
    assert rows[4]["hd95_mm"] == ""


def test_a_bad_case_is_listed_and_the_others_are_scored(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    pred, label = folders
    _save(_mask()[:, :, :9], pred / "b" / "segmentation.nii.gz")
    _save(_mask() + 0.25, label / "c.nii.gz")
    _save(_mask(), label / "d.nii.gz")
    _save(_mask(), pred / "e" / "segmentation.nii.gz")
    (pred / "f").mkdir()
    (pred / "f" / "segmentation.nii.gz").write_bytes(b"no image")
    _save(_mask(), label / "f.nii.gz")
    result = evaluate(EvaluateOptions(pred, label, output=tmp_path / "out"))
    codes = {case.case: case.error and case.error.code for case in result.cases}
    assert codes.pop("f") in {"unreadable", "truncated"}
    assert codes == {
        "a": None,
        "b": "grid-mismatch",
        "c": "not-a-mask",
        "d": "no-prediction",
        "e": "no-label",
    }
    assert result.exit_code == 1
    document = result.as_json()
    assert document["counts"] == {"cases": 6, "done": 1, "failed": 5}
    assert document["labels"]["organ"]["dice"] == 1
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").read_text().splitlines()))
    assert {row["case"]: row["error"] for row in rows if row["error"]} == {
        case.case: case.error.code for case in result.cases if case.error
    }


def test_another_grid_is_refused_with_a_reason_or_resampled(tmp_path: Path) -> None:
    label = _save(_mask((1, 2, 0)), tmp_path / "label.nii.gz")
    flipped = AFFINE.copy()
    flipped[0] = [-1, 0, 0, 19]
    pred = _save(_mask((1, 2, 0))[::-1], tmp_path / "pred.nii.gz", flipped)
    case = evaluate(EvaluateOptions(pred, label)).cases[0]
    assert case.error is not None
    assert case.error.code == "grid-mismatch"
    assert "LAS against RAS" in case.error.message
    assert "--resample" in case.error.message
    case = evaluate(EvaluateOptions(pred, label, resample=True)).cases[0]
    assert case.scores["1"].dice == 1
    assert [w.code for w in case.warnings] == ["resampled"]


def test_names_come_from_the_caller_the_sidecar_or_the_numbers(tmp_path: Path) -> None:
    pred = _save(_mask((1, 2, 0), (7, 10, 0)), tmp_path / "p" / "x.nii.gz")
    label = _save(_mask((1, 2, 0)), tmp_path / "l" / "x.nii.gz")

    def names(**options: object) -> list[str]:
        return list(evaluate(EvaluateOptions(pred, label, **options)).as_json()["labels"])  # type: ignore[arg-type]

    assert names() == ["1", "7"]
    assert names(labels=["liver"]) == ["liver", "7"]
    assert names(labels={0: "background", 1: "liver", 7: "spleen"}) == ["liver", "spleen"]
    write_labels(make_labels({1: "a", 7: "b"}), tmp_path / "l")
    assert names() == ["a", "b"]
    assert names(labels=tmp_path / "l" / "labels.json") == ["a", "b"]
    case = evaluate(EvaluateOptions(pred, label, labels=["liver"])).cases[0]
    assert [w.code for w in case.warnings] == ["unnamed-label"]
    assert case.scores["7"].outcome == "false-positive"


def test_sidecars_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    pred = _save(_mask((1, 2, 0)), tmp_path / "p" / "x.nii.gz")
    label = _save(_mask((1, 2, 0)), tmp_path / "l" / "x.nii.gz")
    write_labels(make_labels(["liver"]), pred.parent)
    write_labels(make_labels(["spleen"]), label.parent)
    case = evaluate(EvaluateOptions(pred, label)).cases[0]
    assert case.error is not None
    assert case.error.code == "label-mismatch"
    assert evaluate(EvaluateOptions(pred, label, labels=["liver"])).exit_code == 0


def test_ignored_voxels_are_left_out(tmp_path: Path) -> None:
    truth = _mask((1, 2, 0))
    truth[:, 10:] = 255
    pred = _save(_mask((1, 2, 0), (1, 12, 0)), tmp_path / "p.nii.gz")
    label = _save(truth, tmp_path / "l.nii.gz")
    scores = evaluate(EvaluateOptions(pred, label, ignore_index=255)).cases[0].scores
    assert list(scores) == ["1"]
    assert scores["1"].dice == 1


def test_a_2d_mask_without_pixel_size_has_overlap_but_no_distance(tmp_path: Path) -> None:
    array = np.zeros((30, 40), np.uint8)
    array[5:15, 5:15] = 1
    for name, shift in (("p", 5), ("l", 0)):
        Image.fromarray(np.roll(array, shift, 1)).save(tmp_path / f"{name}.png")
    case = evaluate(EvaluateOptions(tmp_path / "p.png", tmp_path / "l.png")).cases[0]
    assert case.scores["1"].dice == pytest.approx(0.5)
    assert math.isnan(case.scores["1"].hd95_mm)
    assert "no-spacing" in [w.code for w in case.warnings]


def test_two_labels_of_one_name_are_refused(tmp_path: Path) -> None:
    pred = _save(_mask((1, 2, 0), (2, 10, 0)), tmp_path / "p.nii.gz")
    case = evaluate(EvaluateOptions(pred, pred, labels={1: "2"})).cases[0]
    assert case.error is not None
    assert case.error.code == "duplicate-name"


@pytest.mark.parametrize("tolerance", [-1.0, math.nan, math.inf])
def test_a_senseless_tolerance_is_wrong_usage(tolerance: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nsd_tolerance_mm"):
        evaluate(EvaluateOptions(tmp_path, tmp_path, nsd_tolerance_mm=tolerance))


def test_progress_reaches_the_number_of_cases(folders: tuple[Path, Path]) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(EvaluateOptions(*folders), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_real_labels_score_one_against_themselves() -> None:
    labels = data_folder("Task04_Hippocampus") / "labelsTr"
    path = min(labels.glob("[!.]*.nii.gz"))
    result = evaluate(EvaluateOptions(path, path, labels=["Anterior", "Posterior"]))
    mean = result.as_json()["mean"]
    assert (mean["dice"], mean["hd95_mm"], mean["nsd"], mean["volume_difference_ml"]) == (
        1,
        0,
        1,
        0,
    )


def test_real_masks_of_61_labels_are_told_from_their_shifted_copy(tmp_path: Path) -> None:
    path = data_folder("totalseg_example") / "example_seg_fast_force_split.nii.gz"
    image = nib.load(path)
    array = np.asarray(image.dataobj)
    moved = np.zeros_like(array)
    moved[..., 1:] = array[..., :-1]
    shifted = _save(moved, tmp_path / "s.nii.gz", image.affine)
    result = evaluate(EvaluateOptions(shifted, path))
    assert len(result.as_json()["labels"]) == 61
    liver = result.cases[0].scores["5"]
    a, b = moved == 5, array == 5
    assert liver.dice == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    assert 0 < liver.hd95_mm <= 3.0001
