from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.data import check_dataset, make_folds, open_dataset
from medseg.data.camvid import SEGNET_CLASSES
from medseg.errors import InputError
from medseg.io.masks import read_mask
from tests.data.picture_sets import index_mask, photo, save
from tests.real_data import data_folder

VALUES = range(12)


def _write(root: Path, prefix: str = "", values: Sequence[int] = VALUES) -> Path:
    for part, count in (("train", 3), ("val", 2)):
        lines = []
        for number in range(count):
            name = f"{part}_{number}.png"
            save(photo(number + 10 * count), root / part / name)
            save(index_mask(number, values), root / f"{part}annot" / name)
            lines.append(f"{prefix}{part}/{name} {prefix}{part}annot/{name}")
        (root / f"{part}.txt").write_text("\n".join(lines) + "\n\n")
    return root


@pytest.mark.parametrize("prefix", ["", "/SegNet/CamVid/", "C:\\data\\CamVid\\", "CamVid/"])
def test_lists_lead_to_the_files_whatever_stands_before(prefix: str, tmp_path: Path) -> None:
    dataset = open_dataset(_write(tmp_path, prefix))
    assert dataset.kind == "camvid"
    assert [case.split for case in dataset.cases] == ["training"] * 3 + ["validation"] * 2
    for case in dataset.cases:
        assert case.label is not None
        assert case.images[0].name == case.label.name
        assert case.label.parent.name == f"{case.images[0].parent.name}annot"
    assert check_dataset(dataset, splits=make_folds(dataset.cases)) == ()


def test_without_a_file_of_classes_they_are_those_of_segnet(tmp_path: Path) -> None:
    dataset = open_dataset(_write(tmp_path))
    names = [dataset.background_name, *(s.name for s in dataset.structures)]
    assert names == [name for name, _ in SEGNET_CLASSES[:11]]
    assert dataset.class_values == [[value] for value in range(11)]
    assert dataset.ignored == (11,)


def test_a_list_that_names_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "valannot" / "val_1.png").unlink()
    with pytest.raises(InputError, match=r"line of val\.txt .*1 not there: valannot/val_1\.png"):
        open_dataset(tmp_path)


def test_images_in_no_list_are_listed(tmp_path: Path) -> None:
    _write(tmp_path)
    save(photo(50), tmp_path / "train" / "more.png")
    found = check_dataset(open_dataset(tmp_path))
    assert [(p.code, p.severity) for p in found] == [("not-listed", "warning")]
    assert "more.png" in found[0].message


def test_folders_without_lists_are_paired_by_name(tmp_path: Path) -> None:
    _write(tmp_path)
    for part in ("train", "val"):
        (tmp_path / f"{part}.txt").unlink()
    assert len(open_dataset(tmp_path).cases) == 5
    save(photo(50), tmp_path / "train" / "more.png")
    with pytest.raises(InputError, match=r"1 without a label: more"):
        open_dataset(tmp_path)


def test_colour_labels_are_read_by_the_colours_of_the_classes(tmp_path: Path) -> None:
    _write(tmp_path)
    table = [(name, color) for name, color in SEGNET_CLASSES]
    palette = np.array([color for _, color in table], np.uint8)
    lines = [f"{n} {name} {' '.join(map(str, color))}" for n, (name, color) in enumerate(table)]
    (tmp_path / "classes.txt").write_text("\n".join(lines))
    truth = {}
    for path in sorted(tmp_path.glob("*annot/*.png")):
        truth[path.stem] = np.asarray(Image.open(path))
        save(palette[truth[path.stem]], path)
    dataset = open_dataset(tmp_path)
    assert dataset.ignored == (255,)
    for case in dataset.cases:
        assert case.label is not None
        expected = np.where(truth[case.case_id] == 11, 255, truth[case.case_id])
        assert np.array_equal(read_mask(case.label).array[0], expected)


def test_the_real_set_keeps_its_split_and_has_no_fault() -> None:
    dataset = open_dataset(data_folder("camvid"))
    folds = make_folds(dataset.cases)["folds"]
    assert [(len(fold["training"]), len(fold["validation"])) for fold in folds] == [(123, 26)]
    assert (dataset.background_name, dataset.ignored) == ("Sky", (11,))
    values = np.zeros(12, int)
    for case in dataset.cases[::10]:
        assert case.label is not None
        values += np.bincount(read_mask(case.label).array.ravel(), minlength=12)
    assert values[3] / values.sum() > 0.2  # road, a third of the whole set
