"""What docs/datasets.md shows does what it says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from medseg.data import open_dataset
from medseg.io.masks import read_mask
from tests.data.picture_sets import index_mask, photo, save
from tests.data.test_labelme import write_labelme

PAGE = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize("text", _blocks("yaml"))
def test_every_declaration_opens_and_covers_its_values(text: str, tmp_path: Path) -> None:
    values = [0, 26, 3, 7, 8, 255] if "road" in text else [0, 255]
    if "objects: true" in text:
        values = [0, 3, 4, 20000]
    for number in range(2):
        save(photo(number), tmp_path / "images" / f"p{number}.png")
        mask = np.array(values, np.uint16)[index_mask(number, range(len(values)))]
        save(mask, tmp_path / "masks" / f"p{number}.png")
    (tmp_path / "dataset.yaml").write_text(text)
    dataset = open_dataset(tmp_path)
    present = set()
    for case in dataset.cases:
        assert case.label is not None
        present |= set(np.unique(read_mask(case.label).array).tolist())
    assert present == {v for vs in dataset.class_values for v in vs} | set(dataset.ignored)


def test_the_masks_of_a_dataset_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_labelme(tmp_path / "annotated")
    monkeypatch.chdir(tmp_path)
    (code,) = (code for code in _blocks("python") if "write_semantic_masks" in code)
    exec(code, {})  # the page's own example
    written = sorted(path.name for path in (tmp_path / "masks_of_annotated").rglob("*.*"))
    assert written == ["classes.txt", "p0.png", "p1.png", "p2.png"]


def test_the_objects_of_a_dataset_are_read_counted_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labelme(tmp_path / "annotated")
    monkeypatch.chdir(tmp_path)
    (code,) = (code for code in _blocks("python") if "read_objects" in code)
    exec(code, {})
    statistics, *_ = capsys.readouterr().out.splitlines()
    assert "'objects': 6" in statistics
    written = json.loads((tmp_path / "objects.json").read_text())
    assert [image["file_name"] for image in written["images"]] == ["p0.png"]
    assert [one["category_id"] for one in written["annotations"]] == [1, 2]
