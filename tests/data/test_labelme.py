import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.data import check_dataset, make_folds, open_dataset
from medseg.errors import InputError
from medseg.io.masks import read_mask
from medseg.io.read import read
from tests.data.picture_sets import COLUMNS, ROWS, photo, save
from tests.real_data import data_folder


def write_labelme(root: Path, count: int = 3, labels: tuple[str, ...] = ("cat", "dog")) -> Path:
    """Write images and their files; return the folder."""
    for number in range(count):
        save(photo(number), root / f"p{number}.png")
        shapes = [
            {"label": label, "points": [[n, n], [n + 4, n + 4]], "shape_type": "rectangle"}
            for n, label in enumerate(labels)
        ]
        _change(root / f"p{number}.json", shapes=shapes, imagePath=f"p{number}.png")
    return root


def _change(path: Path, **more: Any) -> None:
    known = json.loads(path.read_text()) if path.is_file() else {}
    size = {"imageHeight": ROWS, "imageWidth": COLUMNS}
    path.write_text(json.dumps(size | known | more))


def test_labels_that_occur_are_the_classes(tmp_path: Path) -> None:
    dataset = open_dataset(write_labelme(tmp_path, labels=("dog", "cat", "__ignore__")))
    assert dataset.kind == "labelme"
    assert [(s.name, s.values) for s in dataset.structures] == [("cat", (1,)), ("dog", (2,))]
    assert dataset.ignored == (255,)
    assert check_dataset(dataset, splits=make_folds(dataset.cases)) == ()
    label = dataset.cases[0].label
    assert label is not None
    assert set(np.unique(read_mask(label).array)) == {0, 1, 2, 255}


def test_a_file_of_labels_gives_their_order(tmp_path: Path) -> None:
    write_labelme(tmp_path / "data")
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\nhorse\ncat\n")
    for root in (tmp_path, tmp_path / "data"):
        dataset = open_dataset(root)
        assert dataset.class_values == [[0], [1], [2], [3]]
        assert [s.name for s in dataset.structures] == ["dog", "horse", "cat"]
        assert dataset.ignored == (255,)
    problems = check_dataset(dataset)
    assert [(p.code, p.severity) for p in problems] == [("absent-class", "warning")]
    assert "horse" in problems[0].message


def test_every_fault_of_the_files_is_listed(tmp_path: Path) -> None:
    write_labelme(tmp_path, count=5)
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    rectangle = {"label": "cat", "shape_type": "rectangle"}
    shapes = [{**rectangle, "points": [[1, 1], [4, 4]]}, {**rectangle, "points": []}]
    _change(tmp_path / "p0.json", shapes=shapes)
    _change(
        tmp_path / "p1.json", shapes=[{**rectangle, "label": "cow", "points": [[1, 1], [2, 2]]}]
    )
    _change(tmp_path / "p2.json", imageHeight=ROWS + 1)
    save(photo(7), tmp_path / "p7.png")
    (tmp_path / "other.json").write_text("[1]")
    found = {(p.code, p.case): p for p in check_dataset(open_dataset(tmp_path))}
    errors = {key for key, problem in found.items() if problem.severity == "error"}
    assert errors == {("unknown-label", "p1"), ("grid-mismatch", "p2")}
    assert "'cow' in p1.json" in found["unknown-label", "p1"].message
    assert "shape 2 (cat, rectangle) of p0.json" in found["shape-without-points", "p0"].message
    assert "p7.png" in found["not-annotated", tmp_path.name].message
    assert "other.json" in found["not-used", tmp_path.name].message


def test_two_files_of_one_image_are_refused(tmp_path: Path) -> None:
    write_labelme(tmp_path)
    _change(tmp_path / "p1.json", imagePath="p0.png")
    with pytest.raises(InputError, match=r"got several for p0\.png"):
        open_dataset(tmp_path)


def test_a_damaged_file_is_an_error_and_not_passed_over(tmp_path: Path) -> None:
    write_labelme(tmp_path)
    path = tmp_path / "p1.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(InputError, match=r"p1\.json must be a file of Labelme"):
        open_dataset(tmp_path)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    write_labelme(tmp_path)
    (tmp_path / "p1.png").unlink()
    with pytest.raises(InputError, match=r"got 'p1\.png' in p1\.json"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("folder", "count"),
    [("semantic_segmentation", 3), ("bbox_detection", 3), ("video_annotation", 5),
     ("instance_segmentation/data_annotated", 3), ("primitives", 1), ("tutorial", 1)],
)  # fmt: skip
def test_real_folders_open_and_have_no_error(folder: str, count: int) -> None:
    dataset = open_dataset(data_folder("labelme") / folder)
    assert (dataset.kind, len(dataset.cases)) == ("labelme", count)
    assert not [p for p in check_dataset(dataset) if p.severity == "error"]
    for case in dataset.cases:
        assert case.label is not None
        mask = read_mask(case.label)
        assert mask.shape == read(case.images[0]).shape
        assert len(np.unique(mask.array)) > 1


def test_files_in_folders_below_the_others_are_left_out_and_said(tmp_path: Path) -> None:
    write_labelme(tmp_path / "upper")
    write_labelme(tmp_path / "upper" / "lower", count=2)
    for root in (tmp_path / "upper", tmp_path):
        dataset = open_dataset(root)
        assert len(dataset.cases) == 3
        [problem] = [p for p in dataset.problems if p.code == "not-used"]
        assert problem.message.startswith("2 files of Labelme lie in folders below the others")
        assert "lower/p0.json" in problem.message
    assert not open_dataset(tmp_path / "upper" / "lower").problems
