"""Objects written as COCO's JSON: against pycocotools, and read again."""

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from medseg.errors import OutputError, UsageError
from medseg.io.coco_results import write_coco
from medseg.io.locator import Locator
from medseg.io.objects import read_objects
from medseg.objects import ObjectInstances

SIZE = (21, 34)
NAMES = ("cell", "débris")


def _objects(count: int, seed: int = 0) -> ObjectInstances:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(count):
        mask = np.zeros(SIZE, bool)
        top, left = rng.integers(0, 15), rng.integers(0, 25)
        mask[top : top + 6, left : left + 9] = rng.random((6, 9)) < 0.7
        masks.append(mask)
    return ObjectInstances.of(
        masks,
        rng.integers(1, 3, count),
        size=SIZE,
        scores=rng.random(count).astype(np.float32),
        crowd=rng.random(count) < 0.3,
    )


def test_pycocotools_loads_what_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = [("a.png", _objects(5)), ("deep/b.png", _objects(0)), ("c.png", _objects(300, 1))]
    write_coco(tmp_path / "new" / "objects.json", images, NAMES)
    file = COCO(str(tmp_path / "new" / "objects.json"))
    capsys.readouterr()  # it prints
    assert [(c["id"], c["name"]) for c in file.loadCats(file.getCatIds())] == [
        (1, "cell"),
        (2, "débris"),
    ]
    for number, (name, objects) in enumerate(images, start=1):
        assert file.imgs[number] == {"id": number, "file_name": name, "height": 21, "width": 34}
        found = file.loadAnns(file.getAnnIds(imgIds=[number]))
        assert [one["category_id"] for one in found] == objects.classes.tolist()
        for place, one in enumerate(found):
            mask = file.annToMask(one)
            rows, columns = np.nonzero(mask)
            assert np.array_equal(mask, objects.mask(place))
            assert one["area"] == mask.sum()
            corner = [columns.min(), rows.min()]
            assert one["bbox"] == [*corner, *(np.ptp(columns) + 1, np.ptp(rows) + 1)]
            assert np.float32(one["score"]) == objects.scores[place]
            assert one["iscrowd"] == objects.crowd[place]
    assert sorted(file.anns) == list(range(1, 306))


def test_what_is_written_is_read_again_equal(tmp_path: Path) -> None:
    path = tmp_path / "objects.json"
    images = [(f"{n}.png", _objects(count, n)) for n, count in enumerate((7, 0, 40))]
    write_coco(path, iter(images), NAMES)
    for number, (_, objects) in enumerate(images, start=1):
        codes = (("1", 1), ("2", 2))
        place = Locator(path, kind="coco", entry=str(number), codes=codes).as_path()
        found, problems = read_objects(place, strict=True)
        assert problems == ()
        assert (found.size, found.masks) == (objects.size, objects.masks)
        for ours, theirs in (
            (found.classes, objects.classes), (found.scores, objects.scores),
            (found.crowd, objects.crowd),
        ):  # fmt: skip
            assert ours.dtype == theirs.dtype
            assert np.array_equal(ours, theirs)


def test_scores_are_written_with_as_few_digits_as_say_them(tmp_path: Path) -> None:
    objects = ObjectInstances.of([np.ones(SIZE, bool)], [1], size=SIZE, scores=[0.9])
    write_coco(tmp_path / "a.json", [("a.png", objects)], NAMES)
    assert '"score": 0.9,' in (tmp_path / "a.json").read_text()


def test_nothing_is_written_where_a_class_has_no_name_or_an_image_comes_twice(
    tmp_path: Path,
) -> None:
    objects = ObjectInstances.of([np.ones(SIZE, bool)], [3], size=SIZE)
    path = tmp_path / "a.json"
    with pytest.raises(UsageError, match="got 2 and class 3"):
        write_coco(path, [("a.png", objects)], NAMES)
    with pytest.raises(UsageError, match="file names of their own"):
        write_coco(path, [("a.png", _objects(1)), ("a.png", _objects(1))], NAMES)
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_where_the_new_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("older")
    with pytest.raises(OutputError):
        write_coco(tmp_path / "file" / "a.json", [], NAMES)
    assert (tmp_path / "file").read_text() == "older"
    write_coco(tmp_path / "a.json", [], NAMES)
    assert json.loads((tmp_path / "a.json").read_text())["images"] == []
