"""Datasets opened for their objects, checked and counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medseg.data import check_dataset, make_folds, open_dataset
from medseg.data.check_objects import check_objects
from medseg.data.object_statistics import (
    QUANTILES,
    object_statistics,
    statistics_of_objects,
)
from medseg.errors import InputError
from medseg.io.atomic import json_text
from medseg.io.locator import Locator
from medseg.io.masks import read_mask
from medseg.io.objects import read_objects
from medseg.objects import ObjectInstances
from tests.data.picture_sets import COLUMNS, ROWS, index_mask, photo, save, write_folders, write_voc
from tests.data.test_labelme import write_labelme
from tests.real_data import data_folder

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


def _annotation(identity: int, image: int = 1, category: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "id": identity, "image_id": image, "category_id": category, "segmentation": [SQUARE],
        "iscrowd": 0, **more,
    }  # fmt: skip


def write_coco(
    root: Path,
    *annotations: dict[str, Any] | None,
    images: int = 2,
    names: tuple[str, ...] = ("cat", "dog"),
) -> Path:
    for number in range(1, images + 1):
        save(photo(number), root / f"p{number}.png")
    document = {
        "images": [
            {"id": n, "file_name": f"p{n}.png", "height": ROWS, "width": COLUMNS}
            for n in range(1, images + 1)
        ],
        "categories": [{"id": n, "name": name} for n, name in enumerate(names, start=1)],
        "annotations": list(annotations),
    }
    (root / "annotations.json").write_text(json.dumps(document))
    return root


def write_numbers(root: Path, *, text: str = "labels: {nucleus: 1-}\n", most: int = 4) -> Path:
    for number in range(3):
        save(photo(number), root / "images" / f"p{number}.png")
        save(index_mask(number, range(most + 1)), root / "masks" / f"p{number}.png")
    (root / "dataset.yaml").write_text(text)
    return root


def _counts(root: Path) -> list[list[int]]:
    """Classes of the objects of each case, crowds left aside."""
    found = []
    for case in open_dataset(root, objects=True).cases:
        assert case.label is not None
        objects, _ = read_objects(case.label)
        found.append(objects.classes[~objects.crowd].tolist())
    return found


def _codes(root: Path) -> list[tuple[str, str]]:
    problems = check_objects(open_dataset(root, objects=True))
    return sorted((problem.code, problem.severity) for problem in problems)


# Layouts


def test_coco_opens_for_its_objects(tmp_path: Path) -> None:
    write_coco(tmp_path, _annotation(1), _annotation(2, category=2), _annotation(3))
    dataset = open_dataset(tmp_path, objects=True)
    assert (dataset.kind, dataset.objects) == ("coco", True)
    assert _counts(tmp_path) == [[1, 2, 1], []]
    assert _codes(tmp_path) == [("not-annotated", "warning")]
    assert not open_dataset(tmp_path).objects


def test_labelme_opens_for_its_objects(tmp_path: Path) -> None:
    write_labelme(tmp_path, labels=("dog", "cat", "dog", "__ignore__"))
    assert _counts(tmp_path) == [[2, 1, 2]] * 3
    assert _codes(tmp_path) == []


def test_a_mask_of_each_object_opens_for_its_objects(tmp_path: Path) -> None:
    for number in range(2):
        save(photo(number), tmp_path / f"c{number}" / "images" / f"c{number}.png")
        for place in range(number + 1):
            mask = np.zeros((ROWS, COLUMNS), np.uint8)
            mask[4 * place : 4 * place + 3] = 255
            save(mask, tmp_path / f"c{number}" / "masks" / f"{place}.png")
    assert _counts(tmp_path) == [[1], [1, 1]]
    assert _codes(tmp_path) == []


def test_voc_opens_for_its_objects(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    objects = {}
    for path in sorted((folder / "SegmentationClass").iterdir()):
        classes = np.asarray(Image.open(path))
        objects[path.stem] = np.where(classes == 5, 3, np.where(classes == 15, 7, 0))
        save(objects[path.stem].astype(np.uint8), folder / "SegmentationObject" / path.name)
    dataset = open_dataset(tmp_path, objects=True)
    assert _counts(tmp_path) == [[5, 15]] * 5
    assert make_folds(dataset.cases) == make_folds(open_dataset(tmp_path).cases)
    for case, plain in zip(dataset.cases, open_dataset(tmp_path).cases, strict=True):
        assert case.label is not None
        assert plain.label is not None
        found, problems = read_objects(case.label, strict=True)
        assert problems == ()
        assert found.areas[0] == np.count_nonzero(objects[case.case_id] == 3)
        assert np.array_equal(read_mask(case.label).array, read_mask(plain.label).array)


def test_voc_without_masks_of_objects_is_refused(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    with pytest.raises(InputError, match="got 5 of 5 without: 2012_0, 2012_1") as caught:
        open_dataset(tmp_path, objects=True)
    assert caught.value.code == "no-objects"
    (folder / "SegmentationObject").mkdir()
    save(np.zeros((ROWS, COLUMNS), np.uint8), folder / "SegmentationObject" / "2012_3.png")
    with pytest.raises(InputError, match="got 4 of 5 without: 2012_0"):
        open_dataset(tmp_path, objects=True)


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("labels: {nucleus: 1-}\n", [1, 1, 1, 1]),
        ("labels: {nucleus: 1-}\nobjects: true\n", [1, 1, 1, 1]),
        ("labels: {a: 1-2, b: [3, 4]}\nobjects: true\n", [1, 1, 2, 2]),
        ("labels: {a: 1, b: 2-3}\nignored: 4\nobjects: true\n", [1, 2, 2]),
        ("labels: {a: 2-}\nbackground: [0, 1]\n", [1, 1, 1]),
    ],
)
def test_dataset_yaml_says_that_values_are_numbers_of_objects(
    text: str, classes: list[int], tmp_path: Path
) -> None:
    write_numbers(tmp_path, text=text)
    assert _counts(tmp_path) == [classes] * 3
    assert _codes(tmp_path) == []
    dataset = open_dataset(tmp_path, objects=True)
    label = dataset.cases[0].label
    assert label is not None
    assert set(np.unique(read_mask(label).array)) <= dataset.known_values


@pytest.mark.parametrize(
    "text",
    [
        "labels: {a: 1, b: 2, c: 3, d: 4}\n",
        "labels: {a: 1-4}\n",
        "labels: {a: 1, b: 2-}\n",
        "labels: {a: 1-2, b: 3-}\n",
    ],
)
def test_values_of_which_nobody_says_so_are_no_objects(text: str, tmp_path: Path) -> None:
    write_numbers(tmp_path, text=text)
    assert len(open_dataset(tmp_path).cases) == 3
    with pytest.raises(InputError, match=r"got masks of 3 cases.*`objects: true`") as caught:
        open_dataset(tmp_path, objects=True)
    assert caught.value.code == "no-objects"


def test_the_key_objects_is_true_or_not_there(tmp_path: Path) -> None:
    write_numbers(tmp_path, text="labels: {a: 1-}\nobjects: false\n")
    with pytest.raises(InputError, match="objects must be true, or not be there, got False"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (0, 1, 2)])
def test_masks_of_classes_are_not_taken_apart_into_pieces(
    values: tuple[int, ...], tmp_path: Path
) -> None:
    write_folders(tmp_path, values)
    with pytest.raises(InputError, match="must tell objects apart") as caught:
        open_dataset(tmp_path, objects=True)
    assert caught.value.code == "no-objects"


def test_a_range_that_one_value_of_alone_occurs_is_no_number(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 255))
    (tmp_path / "dataset.yaml").write_text("labels: {cell: 1-}\n")
    assert _codes(tmp_path) == [("one-number", "error")]
    (tmp_path / "dataset.yaml").write_text("labels: {cell: 1-}\nobjects: true\n")
    assert _codes(tmp_path) == []


@pytest.mark.parametrize(("name", "cases"), [("camvid", 149), ("Task04_Hippocampus", 220)])
def test_real_masks_of_classes_are_refused(name: str, cases: int) -> None:
    with pytest.raises(InputError, match=f"masks of {cases} cases that hold classes") as caught:
        open_dataset(data_folder(name), objects=True)
    assert caught.value.code == "no-objects"


def test_real_numbers_without_a_declaration_are_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"write a file dataset\.yaml") as caught:
        open_dataset(data_folder("dsb2018_nuclei"), objects=True)
    assert caught.value.code == "object-numbers"


@pytest.mark.parametrize(
    ("name", "objects", "classes"),
    [
        ("voc_subset", 12, 6),
        ("labelme/instance_segmentation/data_annotated", 12, 6),
        ("labelme/instance_segmentation/data_dataset_coco", 12, 6),
        ("dsb2018_nuclei/original_layout", 34, 1),
        ("labelme/primitives", 5, 4),
        ("labelme/video_annotation", 15, 2),
    ],
)
def test_real_datasets_have_the_objects_that_were_drawn(
    name: str, objects: int, classes: int
) -> None:
    folder = data_folder(name.split("/", maxsplit=1)[0]).joinpath(*name.split("/")[1:])
    dataset = open_dataset(folder, objects=True)
    assert not [one for one in check_objects(dataset) if one.severity == "error"]
    found = object_statistics(dataset)
    assert found.all.objects == objects
    assert sum(sizes.objects > 0 for sizes in found.classes.values()) == classes


# Faults


def test_bad_annotations_are_named_counted_and_survived(tmp_path: Path) -> None:
    write_coco(
        tmp_path,
        _annotation(1),
        _annotation(2, category=2),
        _annotation(3, category=9),
        _annotation(4, segmentation=[[1, 1, 5, 5]]),
        _annotation(5, image=77),
        _annotation(6, image=2, segmentation={"size": [3, 3], "counts": [0, 9]}),
        _annotation(7, image=2, segmentation=[[1, 1, 5, 5]]),
        None,
    )
    dataset = open_dataset(tmp_path, objects=True)
    problems = check_objects(dataset)
    named = {problem.message.split(" of ")[0]: problem for problem in problems}
    assert {
        name: (one.code, one.case) for name, one in named.items() if name[:10] == "annotation"
    } == {
        "annotation 3": ("unknown-label", "p1"),
        "annotation 4": ("shape-without-area", "p1"),
        "annotation 5": ("unknown-image", dataset.name),
        "annotation 7": ("shape-without-area", "p2"),
    }
    bad = [problem.message for problem in problems if problem.code == "bad-annotation"]
    assert len(bad) == 2
    assert any("annotation 6 of annotations.json" in message for message in bad)
    assert any("entry 8 of the annotations of annotations.json" in message for message in bad)
    (total,) = (problem for problem in problems if problem.code == "left-out")
    assert total.message.startswith("6 faults of annotations beside 2 objects: 2 ")
    assert not any(problem.severity == "error" for problem in problems)
    assert check_dataset(dataset) == problems
    with pytest.raises(InputError, match="annotation 5 of annotations"):
        check_objects(dataset, strict=True)
    with pytest.raises(
        InputError, match=r"3 annotations of no known image or category, ids \[3, 5, 'entry 8'\]"
    ):
        open_dataset(tmp_path)


def test_the_first_bad_annotation_is_an_error_when_strict(tmp_path: Path) -> None:
    write_coco(tmp_path, _annotation(1), _annotation(2, segmentation=[[1, 1, 5, 5]]))
    dataset = open_dataset(tmp_path, objects=True)
    with pytest.raises(InputError, match=r"annotation 2 of annotations\.json") as caught:
        check_objects(dataset, strict=True)
    assert caught.value.code == "shape-without-area"


def test_an_image_that_is_not_there_is_left_out_and_named(tmp_path: Path) -> None:
    write_coco(tmp_path, _annotation(1), _annotation(2, image=2), _annotation(3, category=2))
    (tmp_path / "p2.png").unlink()
    dataset = open_dataset(tmp_path, objects=True)
    assert [case.case_id for case in dataset.cases] == ["p1"]
    problems = check_objects(dataset)
    assert [(problem.code, problem.severity) for problem in problems] == [
        ("missing-image", "warning"), ("left-out", "warning"),
    ]  # fmt: skip
    assert "p2.png" in problems[0].message
    with pytest.raises(InputError, match=r"image p2\.png"):
        check_objects(dataset, strict=True)
    (tmp_path / "p1.png").unlink()
    with pytest.raises(InputError, match=r"2 not there: p1\.png, p2\.png"):
        open_dataset(tmp_path, objects=True)


def test_files_that_vanish_later_and_sizes_that_differ_are_errors(tmp_path: Path) -> None:
    write_coco(tmp_path, *(_annotation(n, image=n, category=n) for n in (1, 2)))
    dataset = open_dataset(tmp_path, objects=True)
    save(photo(1, ROWS + 1), tmp_path / "p1.png")
    (tmp_path / "p2.png").unlink()
    problems = check_objects(dataset)
    assert [(one.code, one.case, one.severity) for one in problems][:2] == [
        ("grid-mismatch", "p1", "error"),
        ("missing-file", "p2", "error"),
    ]
    assert "12x17 for 13x17" in problems[0].message


def test_a_damaged_shape_is_named_and_the_others_are_used(tmp_path: Path) -> None:
    write_labelme(tmp_path, labels=("cat", "dog"))
    path = tmp_path / "p1.json"
    document = json.loads(path.read_text())
    document["shapes"].append({"label": "cat", "points": [[1, 2], [3, None], [4, 9]]})
    path.write_text(json.dumps(document))
    assert _codes(tmp_path) == [("bad-annotation", "warning"), ("left-out", "warning")]
    assert _counts(tmp_path) == [[1, 2]] * 3
    with pytest.raises(InputError, match=r"p1\.json must be a file of Labelme"):
        open_dataset(tmp_path)


def test_a_file_whose_image_is_not_there_is_left_out_and_named(tmp_path: Path) -> None:
    write_labelme(tmp_path, labels=("cat",))
    (tmp_path / "p1.png").unlink()
    dataset = open_dataset(tmp_path, objects=True)
    assert [case.case_id for case in dataset.cases] == ["p0", "p2"]
    problems = check_objects(dataset)
    assert [one.code for one in problems] == ["missing-image", "left-out"]
    assert "'p1.png' in p1.json" in problems[0].message
    with pytest.raises(InputError, match=r"'p1\.png' in p1\.json"):
        check_objects(dataset, strict=True)
    for number in (0, 2):
        (tmp_path / f"p{number}.png").unlink()
    with pytest.raises(InputError, match="imagePath must lead to an image"):
        open_dataset(tmp_path, objects=True)


def test_images_without_objects_are_fine_unless_all_are(tmp_path: Path) -> None:
    write_coco(tmp_path, _annotation(1), images=3, names=("cat",))
    assert _codes(tmp_path) == [("not-annotated", "warning")]
    write_coco(tmp_path, images=3, names=("cat",))
    assert ("no-objects", "error") in _codes(tmp_path)
    write_coco(tmp_path, _annotation(1, iscrowd=1), images=3, names=("cat",))
    assert ("no-objects", "error") in _codes(tmp_path)


def test_a_class_without_an_object_is_named(tmp_path: Path) -> None:
    write_coco(tmp_path, _annotation(1), _annotation(2, image=2, category=2, iscrowd=1))
    problems = check_objects(open_dataset(tmp_path, objects=True))
    assert [(one.code, one.severity) for one in problems] == [("absent-class", "warning")]
    assert "1 of 2 classes have no object, and cannot be learned: dog" in problems[0].message


def test_equal_images_in_two_parts_of_a_split_are_an_error(tmp_path: Path) -> None:
    write_coco(tmp_path, *(_annotation(n, image=n) for n in (1, 2)), names=("cat",))
    save(photo(1), tmp_path / "p2.png")
    dataset = open_dataset(tmp_path, objects=True)
    splits = {"folds": [{"training": ["p1"], "validation": ["p2"]}]}
    seen: list[tuple[int, int]] = []
    problems = check_objects(
        dataset, splits=splits, progress=lambda done, of: seen.append((done, of))
    )
    assert [(one.code, one.severity) for one in problems] == [("duplicate-image", "error")]
    assert seen == [(1, 2), (2, 2)]


def test_a_dataset_of_classes_is_not_checked_for_objects(tmp_path: Path) -> None:
    dataset = open_dataset(write_coco(tmp_path, _annotation(1)))
    with pytest.raises(InputError, match="must be opened for its objects"):
        check_objects(dataset)


# Statistics


def test_statistics_are_those_of_the_boxes() -> None:
    rng = np.random.default_rng(0)
    cases, sides, ratios, areas, per_class = [], [], [], [], []
    for number, count in enumerate((5, 0, 9)):
        masks = np.zeros((count, 40, 60), bool)
        for mask in masks:
            top, left = rng.integers(0, 25), rng.integers(0, 45)
            height, width = rng.integers(1, 15, 2)
            mask[top : top + height, left : left + width] = True
            mask[top, left : left + max(1, width - 3)] = height == 1
            rows, columns = np.nonzero(mask)
            box = np.ptp(rows) + 1, np.ptp(columns) + 1
            sides.append((box[0] * box[1]) ** 0.5)
            ratios.append(box[0] / box[1])
            areas.append(mask.sum())
        classes = rng.integers(1, 3, count)
        per_class.append(tuple(int((classes == n).sum()) for n in (1, 2, 3)))
        crowd = np.zeros((2, 40, 60), bool)
        crowd[:, 3:5] = True  # one region, a crowd of two classes
        objects = ObjectInstances.of(
            [*masks, *crowd], [*classes, 1, 2], size=(40, 60), crowd=[False] * count + [True] * 2
        )
        cases.append((f"c{number}", objects))
    found = statistics_of_objects(iter(cases), ["a", "b", "c"])
    assert found.all.objects == 14
    assert found.all.images == 2
    assert found.all.most_in_an_image == 9
    assert np.allclose(found.all.sides, np.quantile(sides, QUANTILES))
    assert np.allclose(found.all.ratios, np.quantile(ratios, QUANTILES))
    assert np.allclose(found.all.areas, np.quantile(areas, QUANTILES))
    assert list(found.counts.values()) == per_class
    assert found.classes["a"].objects + found.classes["b"].objects == 14
    assert set(found.crowds.values()) == {1}
    pairs = [
        sum(bool((a.mask(i) & a.mask(j)).any()) for i in range(len(a)) for j in range(i))
        for a in (objects.chosen(~objects.crowd) for _, objects in cases)
    ]
    assert list(found.overlapping.values()) == pairs
    assert sum(pairs) > 0
    document = json.loads(json_text(found.as_json()))
    assert document["classes"]["c"]["area_pixels"]["p50"] is None
    assert document["images_without_object"] == 1
    with pytest.raises(InputError, match="got class 2 in c0"):
        statistics_of_objects(iter(cases), ["a"])


def test_statistics_of_the_real_nuclei(tmp_path: Path) -> None:
    folder = data_folder("dsb2018_nuclei")
    (tmp_path / "few.yaml").write_text("labels: {nucleus: 1-}\n")
    numbers = {}
    for path in sorted((folder / "masks").iterdir())[::30]:
        for kind in ("images", "masks"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / kind / path.name).write_bytes((folder / kind / path.name).read_bytes())
        numbers[path.stem] = (int(np.asarray(Image.open(path)).max()),)
    dataset = open_dataset(tmp_path / "few.yaml", objects=True)
    found = object_statistics(dataset)
    assert dict(found.counts) == numbers
    assert found.all.most_in_an_image == max(counts[0] for counts in numbers.values())
    assert set(found.overlapping.values()) == {0}
    assert check_objects(dataset) == ()


def test_a_manifest_says_that_values_are_numbers_of_objects(tmp_path: Path) -> None:
    for number in range(3):
        save(photo(number), tmp_path / f"i{number}.png")
        save(index_mask(number, (0, 1, 5, 200)), tmp_path / f"m{number}.png")
    rows = [f"i{n}.png,m{n}.png,{part}" for n, part in enumerate(("training", "training", "test"))]
    (tmp_path / "cells.csv").write_text("\n".join(["image,label,split", *rows]) + "\n")
    declared = {"labels": {"nucleus": 1}, "objects": True}
    (tmp_path / "cells.json").write_text(json.dumps(declared))
    assert _counts(tmp_path / "cells.csv") == [[1, 1, 1]] * 3
    dataset = open_dataset(tmp_path / "cells.csv", objects=True)
    assert [case.split for case in dataset.cases] == ["training", "training", "test"]
    assert check_objects(dataset) == ()
    assert check_dataset(open_dataset(tmp_path / "cells.csv")) == ()
    for change in ({"labels": {"a": 1, "b": 2}}, {"ignored": [5]}, {"objects": "yes"}):
        (tmp_path / "cells.json").write_text(json.dumps(declared | change))
        with pytest.raises(InputError, match="must have `objects` true, with one label"):
            open_dataset(tmp_path / "cells.csv")


def test_a_label_in_a_manifest_may_be_a_locator(tmp_path: Path) -> None:
    save(photo(0), tmp_path / "a.png")
    save(index_mask(0, (0, 1, 2, 3)), tmp_path / "m.png")
    label = Locator(Path("m.png"), kind="numbers", codes=(("0", 0), ("1-65535", 1))).as_path()
    cases = [{"image": "a.png", "label": str(label), "split": "training"}]
    document = {"cases": cases, "labels": {"nucleus": 1}}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    assert _counts(tmp_path) == [[1, 1, 1]]


def test_sizes_of_images_of_other_pixels_are_stated_in_the_same_ones() -> None:
    coarse = np.zeros((20, 30), np.int32)
    coarse[4:10, 5:13] = 1
    fine = coarse.repeat(8, axis=0).repeat(4, axis=1)
    cases = [(name, ObjectInstances.of_label_map(m)) for name, m in (("a", coarse), ("b", fine))]
    found = statistics_of_objects(cases, ["cell"], {"a": (1.0, 1.0), "b": (1 / 8, 1 / 4)})
    assert found.all.sides == pytest.approx((48**0.5,) * len(found.all.sides))
    assert found.all.areas == pytest.approx((48,) * len(found.all.areas))
    assert found.all.ratios == pytest.approx((6 / 8,) * len(found.all.ratios))
