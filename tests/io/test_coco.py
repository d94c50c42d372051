"""Objects of COCO drawn into masks: against Pillow, brute force and Labelme's export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco
from pycocotools.coco import COCO

from medseg.errors import InputError
from medseg.io.coco import read_coco, read_coco_mask
from tests.real_data import data_folder

ROWS, COLUMNS = 30, 44
CODES = (("3", 1), ("7", 2))


def _runs(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths by brute force: column by column, zeros first."""
    counts, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    return {"size": list(mask.shape), "counts": counts}


def _annotation(identity: int, category: int, outline: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": identity, "image_id": 5, "category_id": category, "segmentation": outline,
        "iscrowd": 0, **more,
    }  # fmt: skip


def _write(folder: Path, *annotations: dict[str, Any], **more: Any) -> Path:
    document = {
        "images": [{"id": 5, "file_name": "a.jpg", "height": ROWS, "width": COLUMNS}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": list(annotations),
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(document | more))
    return path


def _box(top: int, left: int, rows: int, columns: int) -> np.ndarray:
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[top : top + rows, left : left + columns] = True
    return mask


def test_smaller_objects_lie_over_larger_ones_and_crowds_under_all(tmp_path: Path) -> None:
    crowd, large, small = _box(0, 0, 20, 20), _box(5, 5, 10, 10), _box(8, 8, 3, 4)
    path = _write(
        tmp_path,
        _annotation(1, 7, _runs(small)),
        _annotation(2, 3, _runs(large)),
        _annotation(3, 3, _runs(crowd), iscrowd=1),
    )
    mask = read_coco_mask(path, "5", CODES)
    truth = np.where(crowd, 255, 0)
    truth[large] = 1
    truth[small] = 2
    assert np.array_equal(mask.array[0], truth)
    assert mask.array.dtype == np.uint8


@pytest.mark.parametrize("share", [0, 0.02, 0.4, 0.99, 1])
def test_runs_in_both_forms_and_random_shapes(share: float, tmp_path: Path) -> None:
    random = np.random.default_rng(0).random((ROWS, COLUMNS)) < share
    packed = coco.encode(np.asfortranarray(random.astype(np.uint8)))
    packed["counts"] = packed["counts"].decode()
    for outline in (_runs(random), packed):
        mask = read_coco_mask(_write(tmp_path, _annotation(1, 3, outline)), "5", CODES)
        assert np.array_equal(mask.array[0], random.astype(np.uint8))


def test_polygons_of_several_pieces_agree_with_pillow(tmp_path: Path) -> None:
    pieces = [[4, 4, 20, 6, 14, 22], [30, 10, 40, 10, 40, 25, 30, 25]]
    mask = read_coco_mask(_write(tmp_path, _annotation(1, 7, pieces)), "5", CODES).array[0]
    drawn = Image.new("L", (COLUMNS, ROWS))
    for piece in pieces:
        ImageDraw.Draw(drawn).polygon(piece, fill=2)
    different = mask != np.asarray(drawn)
    assert abs(np.count_nonzero(mask) - (134 + 150)) < 5  # the areas of triangle and box
    assert np.count_nonzero(different) < 60  # the two differ along borders alone
    inner = np.zeros_like(different)
    inner[11:24, 31:39] = True
    assert not different[inner].any()


def test_real_annotations_agree_with_pycocotools_and_with_the_export() -> None:
    folder = data_folder("labelme") / "instance_segmentation" / "data_dataset_coco"
    path = folder / "annotations.json"
    reference = COCO(str(path))
    codes = tuple((str(number), number) for number in range(1, 21))
    exports = data_folder("voc_subset") / "VOCdevkit/VOC2011/SegmentationClass"
    for image in read_coco(path).images.values():
        found = read_coco_mask(path, str(image.id), codes).array[0]
        annotations = reference.loadAnns(reference.getAnnIds(imgIds=[image.id]))
        truth = np.zeros_like(found)
        for one in sorted(annotations, key=lambda a: -int(reference.annToMask(a).sum())):
            truth[reference.annToMask(one) > 0] = one["category_id"]
        assert np.array_equal(found, truth)
        exported = np.asarray(Image.open(exports / f"{Path(image.file_name).stem}.png"))
        known = exported != 255  # the export to COCO left out what is ignored
        assert np.mean(found[known] == exported[known]) > 0.99


@pytest.mark.parametrize(
    ("outline", "code"),
    [([], "shape-without-area"), ([[1, 1, 5, 5]], "shape-without-area"),
     ([[90, 90, 99, 90, 99, 99]], "shape-outside")],
)  # fmt: skip
def test_an_object_without_a_pixel_is_left_out_and_listed(
    outline: Any, code: str, tmp_path: Path
) -> None:
    mask = read_coco_mask(_write(tmp_path, _annotation(8, 3, outline)), "5", CODES)
    assert not mask.array.any()
    assert [(p.code, p.severity) for p in mask.source.problems] == [(code, "warning")]
    assert "annotation 8 of annotations.json" in mask.source.problems[0].message


@pytest.mark.parametrize(
    ("outline", "words"),
    [
        ({"size": [2, 2], "counts": [0, 4]}, r"size must be \[30, 44\], got \[2, 2\]"),
        ({"size": [ROWS, COLUMNS], "counts": [0, 4]}, "got 4 pixels in annotation 8"),
        ({"size": [ROWS, COLUMNS], "counts": "04"}, "got 4 pixels in annotation 8"),
        ({"size": [ROWS, COLUMNS], "counts": [-4, ROWS * COLUMNS + 4]}, "runs must add up"),
        ({"size": [ROWS, COLUMNS], "counts": "é"}, "UnicodeEncodeError"),
        ({"size": [ROWS, COLUMNS], "counts": "0 4"}, "the character ' '"),
        ({"size": [ROWS, COLUMNS], "counts": "0o"}, "end with a whole number"),
        ([[1, 1, 5, 1, 5]], "pairs of finite numbers"),
        (None, "annotation 8 of annotations.json. Boxes alone"),
    ],
)
def test_an_outline_that_is_none_is_refused(outline: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_coco_mask(_write(tmp_path, _annotation(8, 3, outline)), "5", CODES)
    assert caught.value.code == "bad-annotation"


def test_annotations_of_boxes_alone_are_refused(tmp_path: Path) -> None:
    entry = _annotation(8, 3, None, bbox=[1, 1, 5, 5])
    del entry["segmentation"]
    with pytest.raises(InputError, match=r"KeyError.*Boxes alone make no mask"):
        read_coco_mask(_write(tmp_path, entry), "5", CODES)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"category_id": 4}, r"1 annotations of no known image or category, ids \[8\]"),
        ({"image_id": 6}, r"1 annotations of no known image or category, ids \[8\]"),
    ],
)
def test_an_annotation_of_nothing_known_is_refused(
    change: dict[str, int], words: str, tmp_path: Path
) -> None:
    path = _write(tmp_path, _annotation(8, 3, [[1, 1, 5, 1, 5, 5]]) | change)
    with pytest.raises(InputError, match=words):
        read_coco(path)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = _write(tmp_path, _annotation(1, 3, _runs(_box(0, 0, 4, 4))))
    assert np.count_nonzero(read_coco_mask(path, "5", CODES).array) == 16
    path = _write(tmp_path, _annotation(1, 3, _runs(_box(0, 0, 4, 15))))
    assert np.count_nonzero(read_coco_mask(path, "5", CODES).array) == 60


def test_an_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"entry must be the id of an image, got 9"):
        read_coco_mask(_write(tmp_path), "9", CODES)
