import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.data import check_dataset, make_folds, open_dataset
from medseg.errors import InputError
from medseg.io.masks import read_mask
from tests.data.picture_sets import COLUMNS, ROWS, photo, save
from tests.real_data import data_folder

CATEGORIES = [{"id": 90, "name": "dog"}, {"id": 3, "name": "cat"}, {"id": 0, "name": "background"}]


def _document(names: list[str], **more: Any) -> dict[str, Any]:
    box = [[2, 2, 10, 2, 10, 8, 2, 8]]
    return {
        "images": [
            {"id": n, "file_name": name, "height": ROWS, "width": COLUMNS}
            for n, name in enumerate(names)
        ],
        "categories": CATEGORIES,
        "annotations": [
            {"id": 10 * n + c, "image_id": n, "category_id": category, "iscrowd": 0,
             "segmentation": [[v + c * 4 for v in box[0]]]}
            for n in range(len(names))
            for c, category in enumerate((3, 90))
        ],
    } | more  # fmt: skip


def _write(path: Path, names: list[str], folder: Path, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        save(photo(sum(name.encode())), folder / name)
    path.write_text(json.dumps(_document(names, **more)))


def test_categories_with_gaps_are_numbered_without(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "c.png"]
    _write(tmp_path / "annotations.json", names, tmp_path / "images")
    for path in (tmp_path, tmp_path / "annotations.json"):
        dataset = open_dataset(path)
        assert (dataset.kind, dataset.ignored) == ("coco", ())
        assert [(s.name, s.values) for s in dataset.structures] == [("cat", (1,)), ("dog", (2,))]
        assert [case.case_id for case in dataset.cases] == ["a", "b", "c"]
        assert check_dataset(dataset, splits=make_folds(dataset.cases)) == ()
    label = dataset.cases[0].label
    assert label is not None
    mask = read_mask(label).array[0]
    assert (mask[4, 4], mask[9, 9], mask[0, 0]) == (1, 2, 0)


def test_crowds_are_left_out(tmp_path: Path) -> None:
    document = _document(["a.png"])
    document["annotations"][0]["iscrowd"] = 1
    _write(tmp_path / "annotations.json", ["a.png"], tmp_path, annotations=document["annotations"])
    dataset = open_dataset(tmp_path)
    assert dataset.ignored == (255,)
    label = dataset.cases[0].label
    assert label is not None
    assert set(np.unique(read_mask(label).array)) == {0, 2, 255}


@pytest.mark.parametrize("layout", ["coco", "roboflow"])
def test_parts_in_files_of_their_own_are_the_split(layout: str, tmp_path: Path) -> None:
    for part, names in (("train", ["a.png", "b.png"]), ("val", ["c.png"])):
        if layout == "coco":
            path = tmp_path / "annotations" / f"instances_{part}2017.json"
            _write(path, names, tmp_path / f"{part}2017")
        else:
            folder = tmp_path / part.replace("val", "valid")
            _write(folder / "_annotations.coco.json", names, folder)
    dataset = open_dataset(tmp_path)
    assert {case.case_id: case.split for case in dataset.cases} == {
        "a": "training",
        "b": "training",
        "c": "validation",
    }
    assert check_dataset(dataset, splits=make_folds(dataset.cases)) == ()


def test_files_with_other_categories_are_refused(tmp_path: Path) -> None:
    _write(tmp_path / "train" / "_annotations.coco.json", ["a.png"], tmp_path / "train")
    other = [{**category, "name": category["name"] + "s"} for category in CATEGORIES]
    path = tmp_path / "valid" / "_annotations.coco.json"
    _write(path, ["b.png"], tmp_path / "valid", categories=other)
    with pytest.raises(InputError, match="categories must be the same"):
        open_dataset(tmp_path)


def test_every_missing_image_is_named(tmp_path: Path) -> None:
    _write(tmp_path / "annotations.json", ["a.png", "b.png", "c.png"], tmp_path)
    (tmp_path / "a.png").unlink()
    (tmp_path / "c.png").unlink()
    with pytest.raises(InputError, match=r"annotations\.json .*2 not there: a\.png, c\.png"):
        open_dataset(tmp_path)


def test_images_without_annotations_are_counted(tmp_path: Path) -> None:
    annotations = _document(["a.png"])["annotations"]
    _write(tmp_path / "annotations.json", ["a.png", "b.png"], tmp_path, annotations=annotations)
    codes = [(p.code, p.severity) for p in check_dataset(open_dataset(tmp_path))]
    assert sorted(codes) == [("empty-label", "warning"), ("not-annotated", "warning")]


def test_a_size_that_is_not_that_of_the_image_is_an_error(tmp_path: Path) -> None:
    _write(tmp_path / "annotations.json", ["a.png", "b.png"], tmp_path)
    save(photo(3, ROWS, COLUMNS + 1), tmp_path / "b.png")
    codes = [(p.code, p.case, p.severity) for p in check_dataset(open_dataset(tmp_path))]
    assert codes == [("grid-mismatch", "b", "error")]


def test_the_real_export_opens_without_error() -> None:
    folder = data_folder("labelme") / "instance_segmentation" / "data_dataset_coco"
    dataset = open_dataset(folder)
    assert [s.values for s in dataset.structures] == [(value,) for value in range(1, 21)]
    assert [problem.code for problem in check_dataset(dataset)] == ["absent-class"]
