import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.data import open_dataset
from medseg.data.semantic_masks import write_semantic_masks
from medseg.errors import InputError
from medseg.io.masks import read_mask
from tests.data.picture_sets import write_folders, write_voc
from tests.real_data import data_folder


def test_written_masks_are_a_dataset_of_the_same_classes(tmp_path: Path) -> None:
    folder = write_voc(tmp_path / "voc")
    first = open_dataset(folder)
    paths = write_semantic_masks(first, tmp_path / "out")
    shutil.copytree(folder / "JPEGImages", tmp_path / "out" / "images")
    second = open_dataset(tmp_path / "out")
    assert [path.stem for path in paths] == [case.case_id for case in first.cases]
    assert second.structures == first.structures
    assert (second.class_values, second.ignored) == (first.class_values, first.ignored)
    for one, other in zip(first.cases, second.cases, strict=True):
        assert one.label is not None
        assert other.label is not None
        assert np.array_equal(read_mask(one.label).array, read_mask(other.label).array)


def test_values_become_class_numbers_in_the_colours_of_the_dataset(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 7, 200, 9))
    (tmp_path / "classes.txt").write_text(
        "0 sky 1 1 1\n7 road 10 20 30\n9 void 9 9 9\n200 car 4 5 6\n"
    )
    path = write_semantic_masks(open_dataset(tmp_path), tmp_path / "out")[0]
    stored = np.asarray(Image.open(tmp_path / "masks" / "p0.png"))
    with Image.open(path) as image:
        assert image.mode == "P"
        found = np.asarray(image)
        shown = np.asarray(image.convert("RGB"))
    for value, number, color in ((0, 0, (1, 1, 1)), (7, 1, (10, 20, 30)), (200, 2, (4, 5, 6))):
        assert np.array_equal(found == number, stored == value)
        assert (shown[stored == value] == color).all()
    assert np.array_equal(found == 255, stored == 9)


def test_labelme_becomes_the_masks_that_it_exports(tmp_path: Path) -> None:
    root = data_folder("labelme") / "instance_segmentation" / "data_annotated"
    exported = data_folder("voc_subset") / "VOCdevkit/VOC2011/SegmentationClass"
    for path in write_semantic_masks(open_dataset(root), tmp_path):
        ours, theirs = Image.open(path), Image.open(exported / path.name)
        assert np.count_nonzero(np.asarray(ours) != np.asarray(theirs)) <= 1
        different = np.asarray(ours.convert("RGB")) != np.asarray(theirs.convert("RGB"))
        assert np.count_nonzero(different.any(axis=-1) & (np.asarray(theirs) != 255)) <= 1


def test_a_value_that_is_not_known_is_not_written(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 1, 5))
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n")
    with pytest.raises(InputError, match=r"got \[5\] in p0"):
        write_semantic_masks(open_dataset(tmp_path), tmp_path / "out")
