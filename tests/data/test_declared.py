from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.data import check_dataset, open_dataset
from medseg.errors import InputError
from medseg.io.masks import read_mask
from tests.data.picture_sets import photo, save, write_folders
from tests.real_data import data_folder


def _declare(root: Path, text: str) -> Path:
    path = root / "dataset.yaml"
    path.write_text(text)
    return path


def _masks(root: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return each mask as it is read, and as it is on the disk."""
    found = []
    for case in open_dataset(root).cases:
        assert case.label is not None
        stored = np.asarray(Image.open(root / "masks" / f"{case.case_id}.png"))
        found.append((read_mask(case.label).array[0], stored))
    return found


def test_every_value_above_0_can_be_one_class(tmp_path: Path) -> None:
    for number in range(2):
        save(photo(number), tmp_path / "images" / f"p{number}.png")
        objects = np.arange(12 * 17, dtype=np.uint16).reshape(12, 17) * 7
        save(objects, tmp_path / "masks" / f"p{number}.png")
    _declare(tmp_path, "name: cells\nlabels:\n  nucleus: 1-\n")
    dataset = open_dataset(tmp_path)
    assert dataset.name == "cells"
    assert [(s.name, s.values) for s in dataset.structures] == [("nucleus", (1,))]
    assert all(np.array_equal(found, stored > 0) for found, stored in _masks(tmp_path))


def test_the_dark_value_can_be_the_class(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 255))
    _declare(tmp_path, "labels: {membrane: 0}\nbackground: 255\n")
    assert open_dataset(tmp_path).class_values == [[0], [1]]
    assert all(np.array_equal(found, stored == 0) for found, stored in _masks(tmp_path))


def test_plain_values_stay_and_some_are_left_out(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 1, 2, 3, 255))
    _declare(
        tmp_path,
        "labels: {cat: 2, dog: [1, 3]}\nignored: 255\ncolors: {cat: [1, 2, 3]}\n",
    )
    dataset = open_dataset(tmp_path)
    assert dataset.class_values == [[0], [2], [1, 3]]
    assert (dataset.ignored, dataset.colors) == ((255,), {"cat": (1, 2, 3)})
    assert check_dataset(dataset) == ()
    assert all(np.array_equal(found, stored) for found, stored in _masks(tmp_path))


def test_values_that_are_left_out_beside_ranges_become_255(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 5, 9, 40))
    _declare(tmp_path, "labels: {cat: 1-9}\nignored: [40]\n")
    assert open_dataset(tmp_path).ignored == (255,)
    for found, stored in _masks(tmp_path):
        expected = np.where(stored == 40, 255, stored > 0)
        assert np.array_equal(found, expected)


def test_a_value_that_is_not_declared_is_an_error_of_its_file(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 5, 200), count=1)
    _declare(tmp_path, "labels: {cat: 1-9}\n")
    found = check_dataset(open_dataset(tmp_path))
    assert found[0].code == "unknown-label"
    assert "got 200 in p0.png" in found[0].message


def test_folders_may_lie_elsewhere_and_the_file_have_any_name(tmp_path: Path) -> None:
    write_folders(tmp_path / "far")
    path = tmp_path / "mine.yml"
    path.write_text("images: far/images\nmasks: far/masks\nlabels: {cat: 1, dog: 2}\n")
    assert len(open_dataset(path).cases) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("labels: {cat: 1-9, dog: 9}", "a value must be of one label, got 9 of cat and dog"),
        ("labels: {cat: 1}\nbackground: [0, 1]", "got 1 of"),
        ("labels: {cat: 9-1}", "values must be from 0 to 65535, got '9-1'"),
        ("labels: {cat: one}", "must describe a dataset"),
        ("labels: {cat: yes}", "must describe a dataset"),
        ("lables: {cat: 1}", "keys must be among .*, got lables"),
        ("[1, 2]", "must describe a dataset"),
        ("labels: {cat: 1", "must describe a dataset"),
        ("labels: {cat: 1}\nmasks: gone", "got 'gone'"),
        ("labels: {cat: 1}\ncolors: {cat: [1, 2, 300]}", "from 0 to 255"),
    ],
)
def test_a_declaration_that_is_not_clear_is_refused(text: str, words: str, tmp_path: Path) -> None:
    write_folders(tmp_path)
    _declare(tmp_path, text)
    with pytest.raises(InputError, match=words):
        open_dataset(tmp_path)


def test_the_real_nuclei_are_one_class(tmp_path: Path) -> None:
    folder = data_folder("dsb2018_nuclei")
    path = _declare(
        tmp_path, f"images: {folder}/images\nmasks: {folder}/masks\nlabels: {{nucleus: 1-}}\n"
    )
    dataset = open_dataset(path)
    assert len(dataset.cases) == 182
    for case in dataset.cases[::20]:
        assert case.label is not None
        stored = np.asarray(Image.open(folder / "masks" / f"{case.case_id}.png"))
        assert np.array_equal(read_mask(case.label).array[0], stored > 0)
