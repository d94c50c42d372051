"""evaluate on 2D masks: the data set as a whole, ignored pixels, names, pictures, bad masks."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medseg.cli.main import app
from medseg.data import open_dataset
from medseg.errors import InputError, UsageError
from medseg.io.labels import write_labels
from medseg.io.masks import read_mask
from medseg.io.raster import write_palette_png, write_png
from medseg.volume import make_labels
from medseg.workflows.evaluate import EvaluateOptions, evaluate
from medseg.workflows.segment import SegmentOptions, segment
from tests.data.picture_sets import write_voc
from tests.picture_bundle import write_picture_bundle
from tests.real_data import data_folder

RNG = np.random.default_rng(8)
NAMES = ("road", "tree", "car")
SIZES = {"a": (20, 30), "b": (33, 17), "c": (8, 9)}


def truth_and_prediction(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Blocks of classes 0 to 3, some wrong in the prediction; a rim of the truth is 255."""
    blocks = RNG.integers(0, 4, (-(-shape[0] // 4), -(-shape[1] // 4))).astype(np.uint8)
    truth = np.kron(blocks, np.ones((4, 4), np.uint8))[: shape[0], : shape[1]]
    pred = np.where(RNG.random(shape) < 0.2, RNG.integers(0, 4, shape), truth).astype(np.uint8)
    truth[0] = 255
    return truth, pred


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Palette PNG in `pred` and `label`, colour images in `images`."""
    masks = {}
    for case, shape in SIZES.items():
        truth, pred = masks[case] = truth_and_prediction(shape)
        for name, array in (("label", truth), ("pred", pred)):
            (tmp_path / name).mkdir(exist_ok=True)
            write_palette_png(array, make_labels(NAMES), tmp_path / name / f"{case}.png")
        (tmp_path / "images").mkdir(exist_ok=True)
        image = RNG.integers(0, 256, (*shape, 3)).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / f"{case}.jpg")
    return masks


def confusion_matrix(truth: np.ndarray, pred: np.ndarray, classes: int) -> np.ndarray:
    return np.array(
        [[((truth == a) & (pred == b)).sum() for b in range(classes)] for a in range(classes)]
    )


def options(folder: Path, **asked) -> EvaluateOptions:
    given = {"labels": NAMES, "ignore_index": 255, **asked}
    return EvaluateOptions(folder / "pred", folder / "label", **given)


def test_the_scores_are_their_definitions_over_all_pixels(tmp_path, folders) -> None:
    semantic = evaluate(options(tmp_path)).as_json()["semantic"]
    truth, pred = (np.concatenate([m[i].ravel() for m in folders.values()]) for i in (0, 1))
    counted = truth != 255
    truth, pred = truth[counted], pred[counted]
    matrix = confusion_matrix(truth, pred, 4)
    assert semantic["confusion"] == matrix.tolist()
    assert semantic["ignored_pixels"] == sum(shape[1] for shape in SIZES.values())
    either, both = np.logical_or, np.logical_and
    iou = np.array(
        [both(truth == n, pred == n).sum() / either(truth == n, pred == n).sum() for n in range(4)]
    )
    assert list(semantic["labels"]) == ["background", *NAMES]
    assert [s["iou"] for s in semantic["labels"].values()] == pytest.approx(iou.tolist())
    assert semantic["mean_iou"] == pytest.approx(iou.mean())
    assert semantic["pixel_accuracy"] == pytest.approx((truth == pred).mean())
    assert semantic["mean_accuracy"] == pytest.approx((np.diag(matrix) / matrix.sum(1)).mean())
    weights = matrix.sum(1) / matrix.sum()
    assert semantic["frequency_weighted_iou"] == pytest.approx((weights * iou).sum())
    assert 0 < semantic["mean"]["boundary_f1"] < 1


def test_ignored_pixels_change_nothing_whatever_is_predicted_there(tmp_path, folders) -> None:
    before = evaluate(options(tmp_path)).as_json()
    for case, (truth, pred) in folders.items():
        other = np.where(truth == 255, 3 - pred, pred).astype(np.uint8)
        write_palette_png(other, (), tmp_path / "pred" / f"{case}.png")
    after = evaluate(options(tmp_path)).as_json()
    assert before["labels"] == after["labels"]
    for name in ("confusion", "mean_iou", "ignored_pixels", "pixels"):
        assert before["semantic"][name] == after["semantic"][name]


def test_an_ignored_value_that_is_predicted_counts_as_wrong(tmp_path, folders) -> None:
    truth, pred = folders["a"]
    pred = pred.copy()
    pred[5] = 255
    write_palette_png(pred, (), tmp_path / "pred" / "a.png")
    semantic = evaluate(options(tmp_path)).as_json()["semantic"]
    assert list(semantic["labels"]) == ["background", *NAMES, "255"]
    assert semantic["labels"]["255"]["index"] == 255
    assert semantic["labels"]["255"]["iou"] == 0
    assert semantic["labels"]["255"]["predicted_pixels"] == (truth[5] != 255).sum() == 30


def test_values_with_gaps_keep_their_numbers(tmp_path) -> None:
    for name in ("pred", "label"):
        (tmp_path / name).mkdir()
    label = np.array([[0, 7, 7], [300, 300, 0]], np.uint16)
    pred = np.array([[0, 7, 300], [300, 300, 0]], np.uint16)
    Image.fromarray(label).save(tmp_path / "label" / "x.png")
    Image.fromarray(pred).save(tmp_path / "pred" / "x.png")
    semantic = evaluate(EvaluateOptions(tmp_path / "pred", tmp_path / "label")).as_json()[
        "semantic"
    ]
    found = {name: (s["index"], s["iou"]) for name, s in semantic["labels"].items()}
    assert found == {
        "background": (0, 1.0), "7": (7, 0.5), "300": (300, pytest.approx(2 / 3)),
    }  # fmt: skip


@pytest.mark.usefixtures("folders")
def test_the_pictures_and_tables_are_written(tmp_path) -> None:
    result = evaluate(options(tmp_path, output=tmp_path / "out", images=tmp_path / "images"))
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "metrics.csv", "summary.json", "confusion.csv", "confusion.png", "class_iou.png",
        "predictions.png",
    }  # fmt: skip
    assert result.problems == ()
    document = json.loads((tmp_path / "out" / "summary.json").read_text())
    with (tmp_path / "out" / "confusion.csv").open() as stream:
        rows = list(csv.reader(stream))
    assert rows[0][1:] == ["background", *NAMES]
    assert [[int(v) for v in row[1:]] for row in rows[1:]] == document["semantic"]["confusion"]
    for name in ("confusion", "class_iou", "predictions"):
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10
    assert document["warnings"] == []


@pytest.mark.usefixtures("folders")
def test_images_that_do_not_fit_are_said_and_the_others_drawn(tmp_path) -> None:
    (tmp_path / "images" / "a.jpg").unlink()
    Image.new("RGB", (5, 5)).save(tmp_path / "images" / "b.jpg")
    result = evaluate(options(tmp_path, output=tmp_path / "out", images=tmp_path / "images"))
    assert sorted(problem.code for problem in result.problems) == ["grid-mismatch", "no-image"]
    assert (tmp_path / "out" / "predictions.png").is_file()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="named as the cases") as caught:
        evaluate(options(tmp_path, output=tmp_path / "out", images=tmp_path / "empty"))
    assert caught.value.code == "no-images"
    with pytest.raises(UsageError, match="--output"):
        evaluate(options(tmp_path, images=tmp_path / "images"))


def test_a_mask_of_another_size_and_a_broken_one_fail_alone(tmp_path, folders) -> None:
    truth, _ = folders["a"]
    write_palette_png(truth[:, :-1] % 4, (), tmp_path / "pred" / "a.png")
    (tmp_path / "label" / "b.png").write_bytes(b"no png")
    result = evaluate(options(tmp_path))
    codes = {case.case: case.error and case.error.code for case in result.cases}
    assert codes == {"a": "grid-mismatch", "b": "unreadable", "c": None}
    assert "20x29 against 20x30" in str(result.cases[0].error.message)
    assert result.semantic is not None
    assert result.semantic.scores.images == 1
    assert result.exit_code == 1


@pytest.mark.usefixtures("folders")
def test_names_and_background_come_from_a_bundle(tmp_path) -> None:
    bundle = write_picture_bundle(tmp_path / "bundle", colors={1: [5, 6, 7]})
    result = evaluate(options(tmp_path, labels=None, bundle=str(bundle)))
    semantic = result.as_json()["semantic"]
    assert list(semantic["labels"]) == ["background", "grass", "sea", "3"]
    assert result.semantic is not None
    assert result.semantic.classes.palette.tolist()[:3] == [[0, 0, 0], [5, 6, 7], [0, 128, 0]]
    path = bundle / "configs" / "metadata.json"
    path.write_text(path.read_text().replace('"background"', '"Sky"'))
    again = evaluate(options(tmp_path, labels=None, bundle=str(bundle)))
    assert next(iter(again.as_json()["semantic"]["labels"])) == "Sky"
    with pytest.raises(UsageError, match="labels and bundle"):
        evaluate(options(tmp_path, bundle=str(bundle)))


def test_tables_beside_masks_that_disagree_are_not_mixed(tmp_path) -> None:
    for case, name in (("a", "cat"), ("b", "dog")):
        for folder in ("pred", "label"):
            (tmp_path / folder / case).mkdir(parents=True)
            path = tmp_path / folder / case / "segmentation.png"
            write_palette_png(np.eye(4, dtype=np.uint8), (), path)
        write_labels(make_labels([name]), tmp_path / "pred" / case)
    result = evaluate(EvaluateOptions(tmp_path / "pred", tmp_path / "label"))
    assert result.semantic is None
    assert [problem.code for problem in result.problems] == ["label-mismatch"]
    with pytest.raises(InputError, match="same names"):
        evaluate(EvaluateOptions(tmp_path / "pred", tmp_path / "label", semantic=True))


def test_what_segment_wrote_is_scored_against_picture_labels(tmp_path) -> None:
    bundle = write_picture_bundle(tmp_path / "bundle")
    (tmp_path / "in").mkdir()
    (tmp_path / "label").mkdir()
    for name in "ab":
        rgb = RNG.integers(0, 256, (14, 19, 3)).astype(np.uint8)
        Image.fromarray(rgb).save(tmp_path / "in" / f"{name}.png")
    asked = SegmentOptions((tmp_path / "in",), str(bundle), tmp_path / "out", backend="torch")
    for case in segment(asked).cases:
        with Image.open(case["outputs"]["png"]) as image:
            mask = np.asarray(image).copy()
        mask[mask == 2] = 255
        write_palette_png(mask, (), tmp_path / "label" / f"{case['case']}.png")
    paths = tmp_path / "out", tmp_path / "label"
    document = evaluate(EvaluateOptions(*paths, ignore_index=255)).as_json()
    assert document["counts"] == {"cases": 2, "done": 2, "failed": 0}
    assert document["semantic"]["pixel_accuracy"] == 1
    assert document["semantic"]["ignored_pixels"] > 0
    assert document["labels"]["grass"]["dice"] == 1


def test_volumes_are_scored_as_a_data_set_only_when_asked(tmp_path) -> None:
    for name in ("pred", "label"):
        (tmp_path / name).mkdir()
    label = RNG.integers(0, 3, (6, 7, 8)).astype(np.uint8)
    pred = np.where(RNG.random(label.shape) < 0.3, 1, label).astype(np.uint8)
    for name, array in (("pred", pred), ("label", label)):
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / name / "x.nii.gz")
    paths = tmp_path / "pred", tmp_path / "label"
    assert evaluate(EvaluateOptions(*paths)).as_json()["semantic"] is None
    semantic = evaluate(EvaluateOptions(*paths, semantic=True)).as_json()["semantic"]
    assert semantic["confusion"] == confusion_matrix(label, pred, 3).tolist()
    assert semantic["mean"]["boundary_f1"] is None
    images = tmp_path / "images"
    images.mkdir()
    (images / "x.png").write_bytes(b"")
    asked = EvaluateOptions(*paths, semantic=True, images=images, output=tmp_path / "out")
    assert [problem.code for problem in evaluate(asked).problems] == ["not-drawn"]


@pytest.mark.usefixtures("folders")
def test_pictures_are_not_scored_as_a_data_set_when_not_wanted(tmp_path) -> None:
    result = evaluate(options(tmp_path, semantic=False, output=tmp_path / "out"))
    assert result.semantic is None
    assert not (tmp_path / "out" / "confusion.csv").exists()


@pytest.mark.usefixtures("folders")
def test_the_command_shows_classes_and_overall_scores(tmp_path) -> None:
    paths = [str(tmp_path / "pred"), str(tmp_path / "label")]
    arguments = ["evaluate", *paths, "--ignore", "255", "--labels", ",".join(NAMES)]
    shown = CliRunner().invoke(app, arguments)
    assert "boundary" in shown.stdout
    assert "frequency weighted iou" in shown.stdout
    document = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert f"{document['semantic']['mean_iou']:.3f}" in shown.stdout


def test_real_masks_against_themselves_are_perfect(tmp_path) -> None:
    folder = data_folder("camvid") / "valannot"
    for name in ("pred", "label"):
        (tmp_path / name).mkdir()
        for file in sorted(folder.glob("*.png"))[:2]:
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    paths = tmp_path / "pred", tmp_path / "label"
    semantic = evaluate(EvaluateOptions(*paths, ignore_index=11)).as_json()["semantic"]
    assert semantic["mean_iou"] == semantic["mean"]["boundary_f1"] == 1
    assert "11" not in semantic["labels"]


def test_a_dataset_says_itself_what_it_leaves_out(tmp_path: Path) -> None:
    voc = data_folder("voc_subset") / "VOCdevkit" / "VOC2011"
    (tmp_path / "pred").mkdir()
    for path in (voc / "SegmentationClass").glob("*.png"):
        mask = np.asarray(Image.open(path))
        write_palette_png(np.where(mask == 255, 7, mask), (), tmp_path / "pred" / path.name)
    result = evaluate(EvaluateOptions(tmp_path / "pred", voc))
    assert [case.status for case in result.cases] == ["done"] * 3
    assert result.semantic is not None
    assert result.semantic.scores.ignored > 0
    assert result.semantic.scores.pixel_accuracy == 1


def test_annotations_beside_images_are_the_truth_not_the_images(tmp_path: Path) -> None:
    labelme = data_folder("labelme") / "semantic_segmentation" / "data_annotated"
    dataset = open_dataset(labelme)
    for case in dataset.cases:
        assert case.label is not None
        mask = read_mask(case.label).array[0]
        write_palette_png(mask, (), tmp_path / f"{case.case_id}.png")
    result = evaluate(EvaluateOptions(tmp_path, labelme))
    assert [case.status for case in result.cases] == ["done"] * len(dataset.cases)
    assert result.semantic is not None
    assert result.semantic.scores.pixel_accuracy == 1


def write_masks(folder: Path, **masks: Sequence[Sequence[int]]) -> Path:
    folder.mkdir(parents=True)
    for name, rows in masks.items():
        write_palette_png(np.array(rows, np.uint8), (), folder / f"{name}.png")
    return folder


def test_a_bundle_says_what_its_label_files_leave_out(tmp_path: Path) -> None:
    pred = write_masks(tmp_path / "pred", a=[[0, 3, 3, 5]])
    truth = write_masks(tmp_path / "label", a=[[0, 3, 11, 11]])
    options = EvaluateOptions(pred, truth, bundle="camvid_semantic")
    semantic = evaluate(options).semantic
    assert semantic is not None
    assert (semantic.scores.ignored, semantic.scores.pixel_accuracy) == (2, 1)
    assert "11" not in semantic.as_json()["labels"]
    more = evaluate(replace(options, ignore_index=3)).as_json()["semantic"]
    assert (more["ignored_pixels"], more["pixel_accuracy"]) == (3, 1)


def test_a_value_that_the_bundle_does_not_know_fails_its_case(tmp_path: Path) -> None:
    pred = write_masks(tmp_path / "pred", a=[[0, 3]], b=[[0, 3]])
    truth = write_masks(tmp_path / "label", a=[[0, 3]], b=[[0, 255]])
    result = evaluate(EvaluateOptions(pred, truth, bundle="camvid_semantic"))
    done, failed = result.cases
    assert done.status == "done"
    assert failed.error is not None
    assert failed.error.code == "unknown-label"
    assert "255 in b.png" in failed.error.message


def recoded(root: Path, text: str) -> Path:
    """Write a dataset whose classes.txt gives 0 to what is left out."""
    write_masks(root / "masks", a=[[0, 0, 1, 1, 2, 2]])
    (root / "images").mkdir()
    write_png(np.zeros((1, 6, 3), np.uint8), root / "images" / "a.png")
    (root / "classes.txt").write_text(text)
    return root


def test_masks_of_a_dataset_with_values_of_its_own_go_by_the_dataset(tmp_path: Path) -> None:
    """There 0 is void, 1 road (class 0 of a bundle) and 2 car (class 1)."""
    root = recoded(tmp_path / "data", "void\nroad\ncar\n")
    pred = write_masks(tmp_path / "pred", a=[[1, 0, 0, 1, 1, 1]])
    semantic = evaluate(EvaluateOptions(pred, root)).as_json()["semantic"]
    assert (semantic["ignored_pixels"], semantic["pixel_accuracy"]) == (2, 0.75)
    assert list(semantic["labels"]) == ["road", "car"]
    for options in (
        EvaluateOptions(pred, root / "masks"),
        EvaluateOptions(pred, root / "masks", ignore_index=0),
        EvaluateOptions(pred, root, ignore_index=0),
    ):
        with pytest.raises(UsageError) as caught:
            evaluate(options)
        assert caught.value.code == "dataset-says"


def test_what_classes_beside_the_masks_leave_out_is_left_out(tmp_path: Path) -> None:
    root = recoded(tmp_path / "data", "background\ncar\nvoid\n")
    pred = write_masks(tmp_path / "pred", a=[[0, 0, 1, 1, 1, 0]])
    semantic = evaluate(EvaluateOptions(pred, root / "masks")).as_json()["semantic"]
    assert (semantic["ignored_pixels"], semantic["pixel_accuracy"]) == (2, 1)


def test_classes_go_by_their_names_and_not_by_their_values(tmp_path: Path) -> None:
    """The truth has b alone, as 1; the predictions have a as 1 and b as 2."""
    root = recoded(tmp_path / "data", "background\nb\nvoid\n")
    pred = write_masks(tmp_path / "pred", a=[[0, 1, 2, 2, 1, 0]])
    result = evaluate(EvaluateOptions(pred, root, labels=("a", "b")))
    assert result.semantic is not None
    assert result.semantic.scores.pixel_accuracy == 0.75
    assert result.labels()["b"]["dice"] == 1
    with pytest.raises(UsageError, match="got 'b'") as caught:
        evaluate(EvaluateOptions(pred, root, labels=("a", "c")))
    assert caught.value.code == "label-mismatch"


def test_parts_of_a_split_without_predictions_are_not_scored_and_said(tmp_path: Path) -> None:
    voc = write_voc(tmp_path)
    val = (voc / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    for name in val:
        mask = np.asarray(Image.open(voc / "SegmentationClass" / f"{name}.png"))
        (tmp_path / "pred").mkdir(exist_ok=True)
        write_palette_png(np.where(mask == 255, 7, mask), (), tmp_path / "pred" / f"{name}.png")
    result = evaluate(EvaluateOptions(tmp_path / "pred", voc))
    assert sorted(case.case for case in result.cases) == sorted(val)
    assert {case.status for case in result.cases} == {"done"}
    assert [problem.code for problem in result.problems] == ["not-predicted"]
    assert "training" in result.problems[0].message


def test_a_picture_s_mask_as_nifti_is_scored_too(tmp_path: Path) -> None:
    truth = write_masks(tmp_path / "label", a=[[0, 1, 2], [2, 2, 1]])
    mask = np.array([[0, 1, 2], [2, 2, 0]], np.uint8)
    (tmp_path / "pred").mkdir()
    nib.save(nib.Nifti1Image(mask.T[..., None], np.eye(4)), tmp_path / "pred" / "a.nii.gz")
    semantic = evaluate(EvaluateOptions(tmp_path / "pred", truth)).semantic
    assert semantic is not None
    assert semantic.scores.pixel_accuracy == 5 / 6


def test_a_class_of_several_values_is_one_class(tmp_path: Path) -> None:
    """Left out are several values too; predicted masks have the first value of a class."""
    write_masks(tmp_path / "data" / "labels", a=[[0, 4, 6, 7, 250, 251]])
    (tmp_path / "data" / "images").mkdir()
    write_png(np.zeros((1, 6, 3), np.uint8), tmp_path / "data" / "images" / "a.png")
    text = "name: x\nimages: images\nmasks: labels\nlabels: {a: [4, 6], b: 7}\nignored: [250, 251]"
    (tmp_path / "data" / "dataset.yaml").write_text(text)
    pred = write_masks(tmp_path / "pred", a=[[0, 4, 4, 7, 7, 4]])
    for label in (tmp_path / "data", tmp_path / "data" / "dataset.yaml"):
        result = evaluate(EvaluateOptions(pred, label))
        assert result.semantic is not None
        assert (result.semantic.scores.ignored, result.semantic.scores.pixel_accuracy) == (2, 1)
    assert {name: score["dice"] for name, score in result.labels().items()} == {"a": 1, "b": 1}
