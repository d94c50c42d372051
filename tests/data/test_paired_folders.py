"""Folders of pictures; those of volumes are in test_dataset."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.data import check_dataset, make_folds, open_dataset
from medseg.errors import InputError
from medseg.io.masks import read_mask
from tests.data.picture_sets import index_mask, photo, save, write_folders
from tests.real_data import data_folder


def test_255_in_a_binary_mask_is_foreground(tmp_path: Path) -> None:
    dataset = open_dataset(write_folders(tmp_path, (0, 255)))
    assert dataset.class_values == [[0], [255]]
    assert dataset.ignored == ()
    assert check_dataset(dataset) == ()


def test_a_file_of_classes_names_the_values_and_what_is_left_out(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 1, 2, 3))
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n2 car\n3 Void\n")
    dataset = open_dataset(tmp_path)
    assert dataset.background_name == "sky"
    assert [(s.name, s.values) for s in dataset.structures] == [("road", (1,)), ("car", (2,))]
    assert dataset.ignored == (3,)
    assert check_dataset(dataset, splits=make_folds(dataset.cases)) == ()


def test_masks_of_colours_need_a_file_that_names_them(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 1, 2))
    palette = np.array([[0, 0, 0], [250, 0, 10], [0, 250, 0]], np.uint8)
    truth = {}
    for path in sorted((tmp_path / "masks").iterdir()):
        truth[path.stem] = np.asarray(Image.open(path))
        save(palette[truth[path.stem]], path)
    with pytest.raises(InputError, match=r"got 3 in p0\.png\. Name the colours .* classes\.txt"):
        open_dataset(tmp_path)
    (tmp_path / "class_dict.csv").write_text(
        "name,r,g,b\nbackground,0,0,0\ncat,250,0,10\nunlabelled,0,250,0\n"
    )
    dataset = open_dataset(tmp_path)
    assert (dataset.ignored, dataset.colors["cat"]) == ((255,), (250, 0, 10))
    for case in dataset.cases:
        assert case.label is not None
        expected = np.where(truth[case.case_id] == 2, 255, truth[case.case_id])
        assert np.array_equal(read_mask(case.label).array[0], expected)
    odd = palette[truth["p1"]].copy()
    odd[3, 4] = 1, 2, 3
    save(odd, tmp_path / "masks" / "p1.png")
    found = [p for p in check_dataset(dataset) if p.severity == "error"]
    assert [(p.code, p.case) for p in found] == [("unknown-color", "p1")]
    assert "R 1, G 2, B 3 at row 3, column 4 of p1.png" in found[0].message


def test_parts_in_folders_of_their_own_are_the_split(tmp_path: Path) -> None:
    write_folders(tmp_path / "train")
    for number in (7, 8):
        save(photo(number), tmp_path / "val" / "images" / f"p{number}.png")
        save(index_mask(number, (0, 1, 2)), tmp_path / "val" / "masks" / f"p{number}.png")
    dataset = open_dataset(tmp_path)
    folds = make_folds(dataset.cases)["folds"]
    assert folds == [{"training": ["p0", "p1", "p2"], "validation": ["p7", "p8"]}]


def test_numbers_of_objects_are_not_taken_for_classes(tmp_path: Path) -> None:
    write_folders(tmp_path, range(100))
    with pytest.raises(InputError, match=r"at most 64 classes.*got 99.*dataset\.yaml") as caught:
        open_dataset(tmp_path)
    assert caught.value.code == "object-numbers"


def test_labels_that_jpeg_has_changed_are_not_taken_for_classes(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 255))
    for path in sorted((tmp_path / "masks").iterdir()):
        save(np.asarray(Image.open(path)), path.with_suffix(".jpg"))
        path.unlink()
    with pytest.raises(InputError, match=r"stored without loss, got \d+ values in JPEG") as caught:
        open_dataset(tmp_path)
    assert caught.value.code == "lossy-labels"
    (tmp_path / "dataset.yaml").write_text("labels: {object: 128-255}\nbackground: 0-127\n")
    assert open_dataset(tmp_path).class_values == [[0], [1]]


def test_a_corrupt_picture_and_a_mask_of_another_size_are_named(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 1), count=4)
    for number in range(4):
        (tmp_path / "images" / f"p{number}.png").unlink()
        save(photo(number, 40, 40), tmp_path / "images" / f"p{number}.jpg")
        save(index_mask(number, (0, 1), 40, 40), tmp_path / "masks" / f"p{number}.png")
    whole = (tmp_path / "images" / "p0.jpg").read_bytes()
    (tmp_path / "images" / "p0.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "images" / "p3.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    save(index_mask(2, (0, 1), 40, 41), tmp_path / "masks" / "p2.png")
    found = check_dataset(open_dataset(tmp_path))
    assert [(p.code, p.case, p.severity) for p in found] == [
        ("truncated", "p0", "error"),
        ("grid-mismatch", "p2", "error"),
        ("truncated", "p3", "error"),
    ]
    for problem in found:
        assert problem.case in problem.message


def test_grey_masks_saved_as_colours_are_read(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 1, 2))
    for path in sorted((tmp_path / "masks").iterdir()):
        save(np.repeat(np.asarray(Image.open(path))[..., None], 3, axis=2), path)
    dataset = open_dataset(tmp_path)
    assert dataset.class_values == [[0], [1], [2]]
    assert check_dataset(dataset) == ()


def test_the_membranes_open_as_one_class() -> None:
    dataset = open_dataset(data_folder("isbi2012_em"))
    assert (len(dataset.cases), dataset.class_values) == (24, [[0], [255]])
    assert check_dataset(dataset, splits=make_folds(dataset.cases)) == ()


def test_the_numbered_nuclei_are_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"numbers of objects, write a file dataset\.yaml"):
        open_dataset(data_folder("dsb2018_nuclei"))
