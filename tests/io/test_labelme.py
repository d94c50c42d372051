"""Shapes of Labelme drawn into masks: against its own exports, and against arithmetic."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medseg.errors import InputError
from medseg.io.labelme import read_labelme, read_labelme_image, read_labelme_mask
from medseg.io.locator import Codes, Locator
from medseg.io.masks import read_mask
from medseg.io.read import read
from tests.real_data import data_folder

ROWS, COLUMNS = 40, 60
CODES = (("cat", 1), ("dog", 2), ("_background_", 0), ("__ignore__", 255))


def _shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, **more}


def _write(folder: Path, *shapes: dict[str, Any], **more: Any) -> Path:
    document = {"shapes": list(shapes), "imagePath": "a.png", "imageData": None}
    path = folder / "a.json"
    path.write_text(json.dumps(document | {"imageHeight": ROWS, "imageWidth": COLUMNS} | more))
    return path


def _codes_of_labelme(root: Path) -> Codes:
    names = (root / "labels.txt").read_text().splitlines()
    return tuple((name, 255 if n == 0 else n - 1) for n, name in enumerate(names))


@pytest.mark.parametrize("stem", ["2011_000003", "2011_000006", "2011_000025"])
def test_masks_are_those_that_labelme_exported(stem: str) -> None:
    root = data_folder("labelme") / "instance_segmentation"
    exported = data_folder("voc_subset") / f"VOCdevkit/VOC2011/SegmentationClass/{stem}.png"
    mask = read_labelme_mask(root / "data_annotated" / f"{stem}.json", _codes_of_labelme(root))
    truth = np.asarray(Image.open(exported))
    assert mask.array.shape == (1, *truth.shape)
    assert mask.array.dtype == np.uint8
    # Pillow's polygons have changed by a pixel since the export of 2020
    assert np.count_nonzero(mask.array[0] != truth) <= 1


def test_a_rectangle_and_a_mask_cover_their_box_and_its_border(tmp_path: Path) -> None:
    stamp = np.random.default_rng(0).random((5, 7)) > 0.5
    data = io.BytesIO()
    Image.fromarray(stamp).save(data, format="PNG")
    drawn = _shape(
        "dog", [[30, 20], [36, 24]], "mask", mask=base64.b64encode(data.getvalue()).decode()
    )
    corners = [[20.0, 10.0], [8.0, 4.0]]  # drawn from below
    mask = read_labelme_mask(_write(tmp_path, _shape("cat", corners, "rectangle"), drawn), CODES)
    truth = np.zeros((ROWS, COLUMNS), np.uint8)
    truth[4:11, 8:21] = 1
    truth[20:25, 30:37][stamp] = 2
    assert np.array_equal(mask.array[0], truth)
    assert mask.source.problems == ()


def test_a_circle_is_given_by_its_centre_and_a_point_of_its_rim(tmp_path: Path) -> None:
    path = _write(tmp_path, _shape("dog", [[30, 20], [33, 24]], "circle"))
    mask = read_labelme_mask(path, CODES).array[0]
    y, x = np.mgrid[:ROWS, :COLUMNS]
    distance = np.hypot(x - 30, y - 20)
    assert (mask[distance < 4.3] == 2).all()
    assert (mask[distance > 5.7] == 0).all()


def test_later_shapes_lie_over_earlier_ones_and_background_cuts_a_hole(tmp_path: Path) -> None:
    outer, inner = [[5, 5], [30, 30]], [[10, 10], [20, 20]]
    shapes = [
        _shape("cat", outer, "rectangle"),
        _shape("_background_", inner, "rectangle"),
        _shape("__ignore__", [[12, 12], [14, 14]], "rectangle"),
    ]
    mask = read_labelme_mask(_write(tmp_path, *shapes), CODES).array[0]
    assert mask[7, 7] == 1
    assert mask[10, 10] == 0
    assert mask[13, 13] == 255
    counts = dict(zip(*np.unique(mask, return_counts=True), strict=True))
    assert counts == {0: ROWS * COLUMNS - 26**2 + 11**2 - 9, 1: 26**2 - 11**2, 255: 9}


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        (_shape("cat", []), "shape-without-points"),
        (_shape("cat", None), "shape-without-points"),
        (_shape("cat", [[1, 1], [9, 9]]), "shape-without-area"),
        (_shape("cat", [[1, 1]], "rectangle"), "shape-without-area"),
        (_shape("cat", [[1, 1], [9, 9]], "line"), "shape-without-area"),
        (_shape("cat", [[1, 1], [9, 9], [20, 4]], "linestrip"), "shape-without-area"),
        (_shape("cat", [[5, 5]], "point"), "shape-without-area"),
        (_shape("cat", [[80, 1], [90, 1], [90, 9]]), "shape-outside"),
    ],
)
def test_what_cannot_be_drawn_is_left_out_and_listed(
    shape: dict[str, Any], code: str, tmp_path: Path
) -> None:
    mask = read_labelme_mask(
        _write(tmp_path, _shape("dog", [[0, 0], [3, 3]], "rectangle"), shape), CODES
    )
    assert np.count_nonzero(mask.array) == 16
    assert [(p.code, p.severity) for p in mask.source.problems] == [(code, "warning")]
    assert "shape 2 (cat" in mask.source.problems[0].message
    assert "a.json" in mask.source.problems[0].message


def test_a_shape_that_reaches_over_the_border_is_cut_off_and_listed(tmp_path: Path) -> None:
    path = _write(tmp_path, _shape("cat", [[-10, 5], [4, 8]], "rectangle"))
    mask = read_labelme_mask(path, CODES)
    assert np.count_nonzero(mask.array) == 4 * 5
    assert [problem.code for problem in mask.source.problems] == ["shape-clipped"]
    assert "10 pixels" in mask.source.problems[0].message


@pytest.mark.parametrize(
    ("shape", "code", "words"),
    [
        (_shape("horse", [[1, 1], [5, 1], [5, 5]]), "unknown-label", "got 'horse' in a.json"),
        (_shape("cat", [[1, 1], [5, 1]], "spline"), "unknown-shape", "got 'spline' of shape 1"),
        (_shape("cat", [[1, 1], [5, float("nan")], [5, 5]]), "bad-annotation", "finite in shape 1"),
        (_shape("cat", [[1, 1], [5, 5]], "mask", mask="AAAA"), "bad-annotation", "PNG in base64"),
    ],
)
def test_a_file_that_says_something_unknown_is_refused(
    shape: dict[str, Any], code: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_labelme_mask(_write(tmp_path, shape), CODES)
    assert caught.value.code == code


def test_a_drawn_mask_that_does_not_fill_its_box_is_refused(tmp_path: Path) -> None:
    data = io.BytesIO()
    Image.fromarray(np.ones((5, 7), bool)).save(data, format="PNG")
    text = base64.b64encode(data.getvalue()).decode()
    path = _write(tmp_path, _shape("dog", [[0, 0], [7, 4]], "mask", mask=text))
    with pytest.raises(InputError, match=r"box of 5x8 pixels, got 5x7 in shape 1 of a\.json"):
        read_labelme_mask(path, CODES)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"shapes": [{}]}', '{"shapes": [{"points": 3}]}']
)
def test_a_damaged_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"a\.json must be a file of Labelme") as caught:
        read_labelme_mask(path, CODES)
    assert caught.value.code == "bad-annotation"


def test_an_image_is_where_its_path_says_or_within_or_beside(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, format="PNG")
    text = base64.b64encode(data.getvalue()).decode()
    path = _write(tmp_path, imagePath="a.json", imageData=text)
    inside = read(read_labelme(path).image)
    assert np.array_equal(inside.array, pixels.transpose(2, 0, 1))
    assert np.array_equal(read_labelme_image(path).array, inside.array)
    path = _write(tmp_path, imagePath="..\\gone\\a.png")
    with pytest.raises(InputError, match=r"imagePath must lead to an image.*a\.json"):
        _ = read_labelme(path).image
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    assert read_labelme(path).image == tmp_path / "a.jpg"
    (tmp_path / "img").mkdir()
    Image.fromarray(pixels).save(tmp_path / "img" / "b.png")
    path = _write(tmp_path, imagePath="img\\b.png", imageData=text)
    assert read_labelme(path).image.resolve() == (tmp_path / "img" / "b.png").resolve()


def test_the_image_within_a_real_file_is_the_one_beside_it() -> None:
    folder = data_folder("labelme") / "tutorial"
    inside = read(Locator(folder / "apc2016_obj3.json", kind="labelme-image").as_path())
    assert np.array_equal(inside.array, read(folder / "apc2016_obj3.jpg").array)


def test_a_file_without_a_size_takes_that_of_its_image(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((9, 13, 3), np.uint8)).save(tmp_path / "a.png")
    path = _write(tmp_path, imageHeight=None, imageWidth=None)
    assert read_labelme_mask(path, CODES).shape == (9, 13)


def test_more_than_255_classes_are_drawn_with_their_numbers(tmp_path: Path) -> None:
    path = _write(tmp_path, _shape("cat", [[0, 0], [3, 3]], "rectangle"))
    place = Locator(path, kind="labelme", codes=(("cat", 300),)).as_path()
    mask = read_mask(place)
    assert mask.array.dtype == np.uint16
    assert np.count_nonzero(mask.array == 300) == 16
