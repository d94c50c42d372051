"""Objects of every kind of label: against pycocotools, Pillow, brute force and real exports."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from scipy import ndimage

from medseg.errors import InputError, UsageError
from medseg.io.locator import Codes, Locator
from medseg.io.masks import read_mask
from medseg.io.objects import read_objects, tells_objects_apart
from medseg.io.raster import write_label_map
from medseg.objects import ObjectInstances
from tests.data.picture_sets import save
from tests.real_data import data_folder

ROWS, COLUMNS = 30, 44
CODES: Codes = (("3", 1), ("7", 2))
NUMBERS: Codes = (("0", 0), ("1-65535", 1))


def box(top: int, left: int, rows: int, columns: int) -> np.ndarray:
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[top : top + rows, left : left + columns] = True
    return mask


def masks_of(objects: ObjectInstances) -> list[np.ndarray]:
    return [objects.mask(number) for number in range(len(objects))]


def _counts(mask: np.ndarray) -> list[int]:
    """Run lengths by brute force: column by column, zeros first."""
    counts, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return counts


def _runs(mask: np.ndarray) -> dict[str, Any]:
    return {"size": list(mask.shape), "counts": _counts(mask)}


def _packed(mask: np.ndarray) -> dict[str, Any]:
    packed = run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": packed["size"], "counts": packed["counts"].decode()}


def _annotation(identity: int, category: int, outline: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": identity, "image_id": 5, "category_id": category, "segmentation": outline,
        "iscrowd": 0, **more,
    }  # fmt: skip


def write_annotations(folder: Path, *annotations: dict[str, Any], codes: Codes = CODES) -> Path:
    document = {
        "images": [{"id": 5, "file_name": "a.png", "height": ROWS, "width": COLUMNS}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": list(annotations),
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(document))
    return Locator(path, kind="coco", entry="5", codes=codes).as_path()


def write_shapes(
    folder: Path, *shapes: dict[str, Any], codes: Codes = (("cat", 1), ("dog", 2))
) -> Path:
    path = folder / "a.json"
    entries = [{"group_id": None, "shape_type": "polygon", **shape} for shape in shapes]
    document = {"shapes": entries, "imageHeight": ROWS, "imageWidth": COLUMNS, "imagePath": "a.png"}
    path.write_text(json.dumps(document))
    return Locator(path, kind="labelme", codes=codes).as_path()


# COCO


def test_runs_in_both_forms_and_crowds_stay_apart_though_they_overlap(tmp_path: Path) -> None:
    large, small, crowd = box(5, 5, 10, 10), box(8, 8, 3, 4), box(0, 0, 20, 20)
    path = write_annotations(
        tmp_path,
        _annotation(1, 7, _packed(small), score=0.25),
        _annotation(2, 3, _runs(large)),
        _annotation(3, 3, _runs(crowd), iscrowd=1),
    )
    objects, problems = read_objects(path)
    assert problems == ()
    assert np.array_equal(masks_of(objects), [small, large, crowd])
    assert objects.classes.tolist() == [2, 1, 1]
    assert objects.crowd.tolist() == [False, False, True]
    assert objects.scores.tolist() == [0.25, 1, 1]


def test_split_runs_are_made_one_so_that_boxes_are_right(tmp_path: Path) -> None:
    whole = box(4, 6, 5, 2)
    counts = _counts(whole)
    split = [counts[0], 2, 0, counts[1] - 2, *counts[2:], 0, 0]
    objects, _ = read_objects(
        write_annotations(tmp_path, _annotation(1, 3, {"size": [ROWS, COLUMNS], "counts": split}))
    )
    assert objects.boxes.tolist() == [[6, 4, 8, 9]]
    assert (
        objects.masks[0] == run_lengths.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"]
    )


def test_polygons_of_several_parts_are_one_object_as_pillow_draws_it(tmp_path: Path) -> None:
    parts = [[4, 4, 20, 6, 14, 22], [30, 10, 40, 10, 40, 25, 30, 25]]
    objects, problems = read_objects(write_annotations(tmp_path, _annotation(1, 7, parts)))
    drawn = Image.new("1", (COLUMNS, ROWS))
    for part in parts:
        ImageDraw.Draw(drawn).polygon(part, fill=1)
    (mask,) = masks_of(objects)
    assert problems == ()
    full = np.asarray(drawn)
    assert not (mask & ~ndimage.binary_dilation(full)).any()
    assert mask[
        ndimage.binary_erosion(full, np.ones((3, 3)))
    ].all()  # Pillow draws the border as well
    assert abs(mask.sum() - (134 + 150)) < 5  # triangle and box, by hand


def test_real_annotations_are_those_of_pycocotools() -> None:
    path = data_folder("labelme") / "instance_segmentation/data_dataset_coco/annotations.json"
    reference = COCO(str(path))
    codes = tuple((str(number), number) for number in range(1, 21))
    seen = 0
    for image in reference.getImgIds():
        place = Locator(path, kind="coco", entry=str(image), codes=codes).as_path()
        objects, problems = read_objects(place)
        truth = reference.loadAnns(reference.getAnnIds(imgIds=[image]))
        assert problems == ()
        assert objects.classes.tolist() == [one["category_id"] for one in truth]
        assert np.array_equal(masks_of(objects), [reference.annToMask(one) for one in truth])
        seen += len(objects)
    assert seen == 12


def test_what_is_left_out_is_one_crowd_of_any_class(tmp_path: Path) -> None:
    codes: Codes = (("3", 255), ("7", 2), ("1", 1))
    annotations = [
        _annotation(1, 3, _runs(box(0, 0, 4, 4))),
        _annotation(2, 7, _runs(box(9, 9, 2, 2))),
    ]
    path = write_annotations(tmp_path, *annotations, codes=codes)
    objects, problems = read_objects(path, strict=True)
    assert problems == ()
    assert objects.classes.tolist() == [0, 2]
    assert objects.crowd.tolist() == [True, False]
    assert objects.areas.tolist() == [16, 4]


def test_of_very_many_classes_255_is_one_like_any_other(tmp_path: Path) -> None:
    codes: Codes = (("3", 255), ("7", 300))
    path = write_annotations(tmp_path, _annotation(1, 3, _runs(box(0, 0, 4, 4))), codes=codes)
    objects, _ = read_objects(path)
    assert (objects.classes.tolist(), objects.crowd.tolist()) == ([255], [False])


BAD_ANNOTATIONS = [
    (_annotation(8, 3, [[1, 1, 5, 5]]), "shape-without-area"),
    (_annotation(8, 3, []), "shape-without-area"),
    (_annotation(8, 3, [[90, 90, 99, 90, 99, 99]]), "shape-outside"),
    (_annotation(8, 3, [[2.1, 2, 2.9, 2, 2.9, 20, 2.1, 20]]), "degenerate-object"),
    (_annotation(8, 3, {"size": [ROWS, COLUMNS], "counts": [ROWS * COLUMNS]}), "shape-outside"),
    (_annotation(8, 3, {"size": [2, 2], "counts": [0, 4]}), "bad-annotation"),
    (_annotation(8, 3, {"size": [ROWS, COLUMNS], "counts": [0, 4]}), "bad-annotation"),
    (_annotation(8, 3, {"size": [ROWS, COLUMNS], "counts": "0o"}), "bad-annotation"),
    (_annotation(8, 3, [[1, 1, 5, 1, 5]]), "bad-annotation"),
    (_annotation(8, 3, [[1, 1, 5, 1, "x", 5]]), "bad-annotation"),
    (_annotation(8, 3, None, bbox=[1, 1, 5, 5]), "bad-annotation"),
    (_annotation(8, 3, _runs(box(0, 0, 4, 4)), score=2), "bad-annotation"),
    (_annotation(8, 3, _runs(box(0, 0, 4, 4)), score="high"), "bad-annotation"),
    (_annotation(8, 3, _runs(box(0, 0, 4, 4)), iscrowd="0"), "bad-annotation"),
    (_annotation(8, 3, [[1e30, 1, 5, 1, 5, 5]]), "bad-annotation"),
    (_annotation(8, 4, _runs(box(0, 0, 4, 4))), "unknown-label"),
]


@pytest.mark.parametrize(("bad", "code"), BAD_ANNOTATIONS)
def test_a_bad_annotation_is_named_and_the_others_stay(
    bad: dict[str, Any], code: str, tmp_path: Path
) -> None:
    good = _annotation(1, 7, _runs(box(3, 3, 5, 5)))
    path = write_annotations(tmp_path, bad, good)
    objects, problems = read_objects(path)
    assert objects.areas.tolist() == [25]
    assert [(problem.code, problem.severity) for problem in problems] == [(code, "warning")]
    assert "annotation 8 of annotations.json" in problems[0].message
    with pytest.raises(InputError, match=r"annotation 8 of annotations\.json") as caught:
        read_objects(path, strict=True)
    assert caught.value.code == code


def test_a_part_of_two_points_is_named_and_the_other_parts_stay(tmp_path: Path) -> None:
    square = [10, 10, 20, 10, 20, 20, 10, 20]
    path = write_annotations(tmp_path, _annotation(8, 3, [[1, 1, 5, 5], square]))
    objects, problems = read_objects(path)
    assert objects.areas.tolist() == [100]
    assert [problem.code for problem in problems] == ["part-without-area"]


def test_an_object_of_the_background_is_none(tmp_path: Path) -> None:
    codes: Codes = (("3", 0), ("7", 1))
    path = write_annotations(tmp_path, _annotation(8, 3, _runs(box(0, 0, 4, 4))), codes=codes)
    objects, problems = read_objects(path)
    assert len(objects) == 0
    assert [problem.code for problem in problems] == ["background-object"]


def test_an_image_without_annotations_has_its_size_and_no_object(tmp_path: Path) -> None:
    objects, problems = read_objects(write_annotations(tmp_path), strict=True)
    assert (objects.size, len(objects), problems) == ((ROWS, COLUMNS), 0, ())
    other = Locator(tmp_path / "annotations.json", kind="coco", entry="9", codes=CODES).as_path()
    with pytest.raises(InputError, match="entry must be the id of an image, got 9"):
        read_objects(other)


# Labelme


def _png(mask: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, format="PNG")
    return base64.b64encode(stream.getvalue()).decode()


def test_every_shape_with_an_area_is_an_object_as_pillow_draws_it(tmp_path: Path) -> None:
    corners = [[2.0, 3.0], [12.5, 4.0], [8.0, 14.0]]
    stamp = np.random.default_rng(0).random((6, 5)) < 0.6
    path = write_shapes(
        tmp_path,
        {"label": "cat", "points": corners},
        {"label": "dog", "points": [[20, 2], [30, 9]], "shape_type": "rectangle"},
        {"label": "cat", "points": [[30, 20], [33, 24]], "shape_type": "circle"},
        {"label": "dog", "points": [[3, 20], [7, 25]], "shape_type": "mask", "mask": _png(stamp)},
    )
    objects, problems = read_objects(path, strict=True)
    drawn = [Image.new("1", (COLUMNS, ROWS)) for _ in range(3)]
    ImageDraw.Draw(drawn[0]).polygon([tuple(p) for p in corners], fill=1, outline=1)
    ImageDraw.Draw(drawn[1]).rectangle([20, 2, 30, 9], fill=1)
    ImageDraw.Draw(drawn[2]).ellipse([25, 15, 35, 25], fill=1)
    last = np.zeros((ROWS, COLUMNS), bool)
    last[20:26, 3:8] = stamp
    assert problems == ()
    assert np.array_equal(masks_of(objects), [*map(np.asarray, drawn), last])
    assert objects.classes.tolist() == [1, 2, 1, 2]


def test_hundreds_of_shapes_leave_nothing_behind_for_the_next(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    shapes, expected = [], []
    for number in range(300):
        points = rng.uniform(-3, 47, (int(rng.integers(3, 7)), 2)).round(2)
        drawn = Image.new("1", (COLUMNS, ROWS))
        draw = ImageDraw.Draw(drawn)
        if number % 3:
            draw.polygon([tuple(point) for point in points], fill=1, outline=1)
            shapes.append({"label": "cat", "points": points.tolist()})
        else:
            (x, y), radius = points[0], float(np.linalg.norm(points[0] - points[1]))
            draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1, outline=1)
            circle = {"label": "dog", "points": points[:2].tolist(), "shape_type": "circle"}
            shapes.append(circle)
        mask = np.asarray(drawn)
        expected += [mask] if mask.any() else []
    objects, problems = read_objects(write_shapes(tmp_path, *shapes))
    assert {problem.code for problem in problems} <= {"shape-clipped", "shape-outside"}
    assert len(expected) > 290
    assert np.array_equal(masks_of(objects), expected)


def _rectangle(label: str, x0: int, y0: int, x1: int, y1: int, **more: Any) -> dict[str, Any]:
    return {"label": label, "points": [[x0, y0], [x1, y1]], "shape_type": "rectangle", **more}


def test_shapes_of_one_group_and_label_are_one_object(tmp_path: Path) -> None:
    path = write_shapes(
        tmp_path,
        _rectangle("cat", 0, 0, 3, 3, group_id=0),
        _rectangle("cat", 10, 10, 12, 12),
        _rectangle("dog", 20, 0, 23, 3, group_id=0),
        _rectangle("cat", 2, 2, 5, 5, group_id=0),
        _rectangle("cat", 30, 20, 32, 22),
    )
    objects, _ = read_objects(path)
    first = box(0, 0, 4, 4) | box(2, 2, 4, 4)
    expected = [first, box(10, 10, 3, 3), box(0, 20, 4, 4), box(20, 30, 3, 3)]
    assert np.array_equal(masks_of(objects), expected)
    assert objects.classes.tolist() == [1, 1, 2, 1]


def test_background_cuts_a_hole_into_what_was_drawn_before(tmp_path: Path) -> None:
    codes: Codes = (("_background_", 0), ("cat", 1), ("__ignore__", 255))
    path = write_shapes(
        tmp_path,
        _rectangle("cat", 0, 0, 9, 9),
        _rectangle("cat", 20, 20, 23, 23),
        _rectangle("_background_", 2, 3, 5, 12),
        _rectangle("cat", 4, 4, 7, 7),
        _rectangle("__ignore__", 30, 0, 33, 3),
        codes=codes,
    )
    objects, problems = read_objects(path)
    expected = [
        box(0, 0, 10, 10) & ~box(3, 2, 10, 4), box(20, 20, 4, 4), box(4, 4, 4, 4),
        box(0, 30, 4, 4),
    ]  # fmt: skip
    assert problems == ()
    assert np.array_equal(masks_of(objects), expected)
    assert objects.crowd.tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        ({"label": "cat", "points": [[1, 1], [9, 9]], "shape_type": "line"}, "shape-without-area"),
        ({"label": "cat", "points": [[1, 1]], "shape_type": "point"}, "shape-without-area"),
        ({"label": "cat", "points": [[1, 1], [9, 9]]}, "shape-without-area"),
        ({"label": "cat", "points": []}, "shape-without-points"),
        (_rectangle("cat", 60, 0, 70, 5), "shape-outside"),
        ({"label": "cat", "points": [[1e12, 1], [9, 9], [3, 8]]}, "shape-outside"),
        ({"label": "cat", "points": [[1, 1], [1e9, 9]], "shape_type": "circle"}, "shape-outside"),
        ({"label": "cat", "points": [[4, 4], [4.3, 9], [4, 20]]}, "degenerate-object"),
        ({"label": "cat", "points": [[1, 1], [9, float("nan")], [3, 8]]}, "bad-annotation"),
        ({"points": [[1, 1], [9, 9], [3, 8]]}, "bad-annotation"),
        ({"label": "cow", "points": [[1, 1], [9, 9], [3, 8]]}, "unknown-label"),
        ({"label": "cat", "points": [[1, 1]], "shape_type": "star"}, "unknown-shape"),
        (
            {"label": "cat", "points": [[1, 1], [4, 4]], "shape_type": "mask", "mask": "?"},
            "bad-annotation",
        ),
    ],
)
def test_a_bad_shape_is_named_and_the_others_stay(
    bad: dict[str, Any], code: str, tmp_path: Path
) -> None:
    path = write_shapes(tmp_path, _rectangle("dog", 0, 0, 4, 4), bad)
    objects, problems = read_objects(path)
    assert objects.areas.tolist() == [25]
    assert [(problem.code, problem.severity) for problem in problems] == [(code, "warning")]
    assert "shape 2" in problems[0].message
    assert "a.json" in problems[0].message
    with pytest.raises(InputError, match="shape 2") as caught:
        read_objects(path, strict=True)
    assert caught.value.code == code


def test_a_shape_over_the_border_is_cut_off_and_listed(tmp_path: Path) -> None:
    path = write_shapes(tmp_path, _rectangle("dog", -5, 0, 4, 4))
    objects, problems = read_objects(path, strict=True)
    assert objects.areas.tolist() == [25]
    assert [problem.code for problem in problems] == ["shape-clipped"]


def test_labelme_its_export_to_coco_and_its_export_to_voc_agree() -> None:
    drawn = data_folder("labelme") / "instance_segmentation"
    voc = data_folder("voc_subset") / "VOCdevkit/VOC2011/SegmentationClass"
    names = (data_folder("voc_subset") / "class_names.txt").read_text().splitlines()
    by_name: Codes = (*((name, number) for number, name in enumerate(names)), ("__ignore__", 255))
    by_value: Codes = (*((str(n), n) for n in range(len(names))), ("255", 255))
    for stem in ("2011_000003", "2011_000006", "2011_000025"):
        path = Locator(drawn / "data_annotated" / f"{stem}.json", kind="labelme", codes=by_name)
        ours, _ = read_objects(path.as_path())
        entry = f"../SegmentationObject/{stem}.png"
        place = Locator(voc / f"{stem}.png", kind="voc-objects", entry=entry, codes=by_value)
        theirs, problems = read_objects(place.as_path(), strict=True)
        assert problems == ()
        assert ours.crowd.sum() == theirs.crowd.sum()
        a, b = ours.chosen(~ours.crowd), theirs.chosen(~theirs.crowd)
        assert np.array_equal(a.classes, b.classes)
        assert np.diag(a.iou(b)).min() > 0.9  # the export paints later ones over earlier ones


# Maps of numbers


@pytest.mark.parametrize("kind", ["numbers", "values"])
@pytest.mark.parametrize("name", ["m8.png", "m16.png", "m16.tif", "m32.tif", "palette.png"])
def test_every_number_is_an_object_in_any_type(kind: Any, name: str, tmp_path: Path) -> None:
    dtype = {"m8.png": np.uint8, "m32.tif": np.uint32, "palette.png": np.uint8}.get(name, np.uint16)
    random = np.random.default_rng(0).choice(np.array([0, 1, 2, 7, 200]), (ROWS, COLUMNS))
    labels = np.kron(random, np.ones((2, 3), int)).astype(dtype)
    if name == "m32.tif":
        labels *= 1000  # beyond 65535
    path = tmp_path / name
    save(labels, path, bytes(range(256)) * 3 if name == "palette.png" else None)
    objects, problems = read_objects(Locator(path, kind=kind, codes=NUMBERS).as_path(), strict=True)
    numbers = np.unique(labels)[1:]
    assert problems == ()
    assert np.array_equal(masks_of(objects), [labels == number for number in numbers])
    assert objects.classes.tolist() == [1] * len(numbers)


def test_ranges_give_the_classes_and_what_is_left_out(tmp_path: Path) -> None:
    labels = np.array([[0, 5, 5, 0, 1200], [9, 9, 3, 3, 77]], np.uint16)
    path = save(labels, tmp_path / "m.png")
    codes: Codes = (("0", 0), ("3", 0), ("4-10", 1), ("1000-65535", 2), ("77", 255))
    place = Locator(path, kind="numbers", codes=codes).as_path()
    objects, problems = read_objects(place, strict=True)
    assert problems == ()
    assert objects.classes.tolist() == [1, 1, 2, 0]
    assert objects.crowd.tolist() == [False, False, False, True]
    assert objects.areas.tolist() == [2, 2, 1, 1]
    assert read_mask(place).array.tolist() == [[[0, 1, 1, 0, 2], [1, 1, 0, 0, 255]]]


def test_the_number_0_may_be_an_object_where_background_is_another(tmp_path: Path) -> None:
    path = save(np.array([[0, 255, 4], [0, 255, 255]], np.uint8), tmp_path / "m.png")
    codes: Codes = (("255", 0), ("0-254", 1))
    objects, _ = read_objects(Locator(path, kind="numbers", codes=codes).as_path())
    assert objects.areas.tolist() == [2, 1]


def test_a_number_of_no_class_is_named(tmp_path: Path) -> None:
    path = save(np.array([[0, 1, 40]], np.uint8), tmp_path / "m.png")
    codes: Codes = (("0", 0), ("1-9", 1))
    place = Locator(path, kind="numbers", codes=codes).as_path()
    objects, problems = read_objects(place)
    assert objects.areas.tolist() == [1]
    assert [problem.code for problem in problems] == ["unknown-label"]
    with pytest.raises(InputError, match=r"number 40 of m\.png is of no class"):
        read_objects(place, strict=True)


@pytest.mark.parametrize(
    "place",
    [
        Locator(Path("m.png")),
        Locator(Path("m.png"), kind="colors", codes=(("ff0000", 1),)),
        Locator(Path("m.png"), kind="values", codes=(("0", 0), ("255", 1))),
        Locator(Path("m.png"), kind="values", codes=(("0-127", 0), ("128-255", 1))),
        Locator(Path("m.png"), kind="values", codes=(("0", 0), ("1", 1), ("2-65535", 2))),
    ],
)
def test_masks_of_classes_are_refused_whatever_their_pieces(place: Locator) -> None:
    assert not tells_objects_apart(place.as_path())
    with pytest.raises(InputError, match=r"got a mask of classes: m\.png.*dataset\.yaml") as caught:
        read_objects(place.as_path())
    assert caught.value.code == "no-objects"


@pytest.mark.parametrize(
    ("array", "name", "code"),
    [
        (np.zeros((4, 4), np.uint8), "m.jpg", "lossy-labels"),
        (np.zeros((4, 4, 3), np.uint8) + np.array([1, 2, 3], np.uint8), "m.png", "not-a-mask"),
        (np.full((4, 4), 0.5, np.float32), "m.tif", "not-a-mask"),
        (np.full((4, 4), -1, np.int32), "m.tif", "not-a-mask"),
    ],
)
def test_what_holds_no_numbers_is_refused(
    array: np.ndarray, name: str, code: str, tmp_path: Path
) -> None:
    place = Locator(save(array, tmp_path / name), kind="numbers", codes=NUMBERS).as_path()
    with pytest.raises(InputError) as caught:
        read_objects(place)
    assert caught.value.code == code


def test_real_maps_are_read_number_by_number() -> None:
    folder = data_folder("dsb2018_nuclei") / "masks"
    for path in sorted(folder.iterdir())[::40]:
        labels = np.asarray(Image.open(path))
        objects, problems = read_objects(Locator(path, kind="values", codes=NUMBERS).as_path())
        assert problems == ()
        assert objects.areas.tolist() == np.bincount(labels.ravel())[1:].tolist()
        assert np.array_equal(objects.label_map(), labels)


# PASCAL VOC


def _voc(folder: Path, classes: Any, objects: Any, dtype: Any = np.uint8) -> Path:
    save(np.array(classes, np.uint8), folder / "SegmentationClass/a.png", bytes(768))
    save(np.array(objects, dtype), folder / "SegmentationObject/a.png")
    codes: Codes = (("0", 0), ("1", 1), ("2", 2), ("255", 255))
    place = folder / "SegmentationClass/a.png"
    return Locator(
        place, kind="voc-objects", entry="../SegmentationObject/a.png", codes=codes
    ).as_path()


def test_voc_gives_objects_their_classes_and_void_to_crowds(tmp_path: Path) -> None:
    path = _voc(
        tmp_path,
        [[1, 1, 255, 2, 2, 0], [1, 1, 255, 2, 2, 0], [0, 0, 0, 255, 1, 1]],
        [[1, 1, 255, 4, 4, 0], [2, 2, 255, 4, 4, 0], [0, 0, 0, 0, 5, 5]],
    )
    objects, problems = read_objects(path, strict=True)
    assert problems == ()
    assert objects.classes.tolist() == [1, 1, 2, 1, 0]
    assert objects.areas.tolist() == [2, 2, 4, 2, 3]
    assert objects.crowd.tolist() == [False] * 4 + [True]
    assert len(objects.layers()) == 1  # void is one layer with the objects, however many classes
    assert read_mask(path).array[0, 0].tolist() == [1, 1, 255, 2, 2, 0]


def test_in_more_bits_255_is_an_object_of_voc_like_any_other(tmp_path: Path) -> None:
    path = _voc(tmp_path, [[1, 1, 0, 2]], [[255, 255, 0, 300]], np.uint16)
    objects, _ = read_objects(path, strict=True)
    assert (objects.classes.tolist(), objects.areas.tolist()) == ([1, 2], [2, 1])


@pytest.mark.parametrize(
    ("classes", "objects", "code", "areas"),
    [
        ([[0, 0, 1]], [[1, 1, 2]], "unknown-label", [1]),
        ([[9, 9, 1]], [[1, 1, 2]], "unknown-label", [1]),
        ([[1, 1, 2]], [[1, 1, 1]], "mixed-classes", [3]),
        ([[1, 1, 2]], [[1, 1, 0]], "class-without-object", [2]),
    ],
)
def test_masks_of_voc_that_disagree_are_listed(
    classes: Any, objects: Any, code: str, areas: list[int], tmp_path: Path
) -> None:
    path = _voc(tmp_path, classes, objects)
    found, problems = read_objects(path)
    assert found.areas.tolist() == areas
    assert [problem.code for problem in problems] == [code]
    assert "SegmentationObject/a.png" in problems[0].message
    with pytest.raises(InputError) as caught:
        read_objects(path, strict=True)
    assert caught.value.code == code


def test_masks_of_voc_of_two_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 1x3 for 1x2") as caught:
        read_objects(_voc(tmp_path, [[1, 1]], [[1, 1, 1]]))
    assert caught.value.code == "grid-mismatch"


# A mask of each


def _folder(root: Path, *masks: np.ndarray) -> Path:
    for number, mask in enumerate(masks):
        save(mask.astype(np.uint8) * 255, root / "scene" / "masks" / f"{number}.png")
    return Locator(root / "scene" / "masks", kind="objects").as_path()


def test_every_file_of_a_folder_is_an_object(tmp_path: Path) -> None:
    masks = [box(0, 0, 4, 4), box(20, 30, 3, 9) | box(0, 40, 2, 2)]
    objects, problems = read_objects(_folder(tmp_path, *masks), strict=True)
    assert problems == ()
    assert np.array_equal(masks_of(objects), masks)
    assert objects.classes.tolist() == [1, 1]


def test_overlapping_masks_stay_whole_and_are_counted(tmp_path: Path) -> None:
    masks = [box(0, 0, 4, 4), box(2, 2, 4, 4), box(20, 20, 2, 2), box(5, 5, 3, 3)]
    path = _folder(tmp_path, *masks)
    objects, problems = read_objects(path)
    assert np.array_equal(masks_of(objects), masks)
    assert [problem.code for problem in problems] == ["overlapping-objects"]
    assert "2 masks of scene/masks overlap others, by 5 pixels: 1.png, 3.png" in problems[0].message
    with pytest.raises(InputError, match="2 masks of scene/masks overlap"):
        read_objects(path, strict=True)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (np.zeros((ROWS, COLUMNS), bool), "degenerate-object"),
        (np.ones((ROWS, COLUMNS + 1), bool), "grid-mismatch"),
        (np.eye(3, dtype=np.uint8)[np.zeros((ROWS, COLUMNS), int)], "not-a-mask"),
    ],
)
def test_a_bad_mask_is_named_and_the_others_stay(
    bad: np.ndarray, code: str, tmp_path: Path
) -> None:
    path = _folder(tmp_path, bad, box(0, 0, 4, 4), box(9, 9, 4, 4))
    objects, problems = read_objects(path)
    assert objects.areas.tolist() == [16, 16]
    assert [problem.code for problem in problems] == [code]
    assert "scene/masks/0.png" in problems[0].message
    with pytest.raises(InputError, match=r"scene/masks/0\.png"):
        read_objects(path, strict=True)


def test_a_damaged_mask_is_named_and_a_folder_without_any_refused(tmp_path: Path) -> None:
    path = _folder(tmp_path, box(0, 0, 4, 4))
    (tmp_path / "scene/masks/z.png").write_bytes(b"nothing")
    objects, problems = read_objects(path)
    assert (len(objects), [problem.code for problem in problems]) == (1, ["unreadable"])
    (tmp_path / "scene/masks/0.png").unlink()
    with pytest.raises(InputError, match="got none that can be read"):
        read_objects(path)


def test_real_masks_of_each_nucleus_are_the_map_of_their_numbers() -> None:
    root = data_folder("dsb2018_nuclei")
    folders = sorted((root / "original_layout/stage1_train").iterdir())
    assert len(folders) == 6
    for folder in folders:
        ours, problems = read_objects(Locator(folder / "masks", kind="objects").as_path())
        joined = root / "masks" / f"{folder.name}.png"
        theirs, _ = read_objects(Locator(joined, kind="numbers", codes=NUMBERS).as_path())
        assert problems == ()
        assert sorted(ours.masks) == sorted(theirs.masks)


# Maps that are written


@pytest.mark.parametrize(
    ("most", "name", "written", "dtype"),
    [
        (300, "map", "map.png", np.uint16),
        (300, "map.tif", "map.tif", np.uint16),
        (70000, "map", "map.tif", np.uint32),
    ],
)
def test_a_map_that_is_written_is_read_again(
    most: int, name: str, written: str, dtype: Any, tmp_path: Path
) -> None:
    labels = np.random.default_rng(0).integers(0, most, (300, 301)).astype(np.int32)
    labels[0, 0] = most
    path = write_label_map(labels, tmp_path / name)
    assert path == tmp_path / written
    stored = np.asarray(Image.open(path))
    assert np.array_equal(stored, labels)
    assert stored.dtype.itemsize >= np.dtype(dtype).itemsize  # Pillow has no uint32
    if most < 1000:
        objects, _ = read_objects(Locator(path, kind="numbers", codes=NUMBERS).as_path())
        assert np.array_equal(objects.areas, np.bincount(labels.ravel())[1:])


@pytest.mark.parametrize(
    ("labels", "name", "words"),
    [
        (np.full((2, 2), 70000), "map.png", r"\.tif, or in \.png for numbers up to 65535"),
        (np.zeros((2, 2), int), "map.jpg", "must end in"),
        (np.full((2, 2), -1), "map.tif", "integers from 0"),
        (np.zeros((2, 2)), "map.tif", "integers from 0"),
        (np.zeros((2, 2, 2), int), "map.tif", "integers from 0"),
    ],
)
def test_a_map_that_does_not_fit_is_not_written(
    labels: np.ndarray, name: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=words):
        write_label_map(labels, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
