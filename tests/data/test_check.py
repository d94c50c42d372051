import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.data import check_dataset, make_folds, open_dataset
from medseg.errors import InputError
from tests.data.datasets import AFFINE, case_arrays, write_image, write_msd
from tests.data.picture_sets import photo, save, write_folders
from tests.real_data import data_folder


def _codes(root: Path) -> list[tuple[str, str]]:
    return [(p.code, p.case) for p in check_dataset(open_dataset(root))]


def test_a_dataset_in_order_has_no_problems(tmp_path: Path) -> None:
    dataset = open_dataset(write_msd(tmp_path))
    assert check_dataset(dataset, splits=make_folds(dataset.cases)) == ()


def test_the_hippocampus_dataset_is_in_order() -> None:
    dataset = open_dataset(data_folder("Task04_Hippocampus"))
    assert check_dataset(dataset, splits=make_folds(dataset.cases)) == ()


def test_every_fault_is_named_at_once(tmp_path: Path) -> None:
    write_msd(tmp_path, count=9)
    images, labels = tmp_path / "imagesTr", tmp_path / "labelsTr"
    image, label = case_arrays(50)
    write_image(labels / "toy_000.nii.gz", label[:-1])
    shifted = AFFINE.copy()
    shifted[0, 3] += 0.01
    write_image(labels / "toy_001.nii.gz", label, shifted)
    unknown = label.copy()
    unknown[0, 0, 0] = 7
    write_image(labels / "toy_002.nii.gz", unknown)
    image[0, 0, 0] = np.nan
    write_image(images / "toy_003.nii.gz", image)
    write_image(labels / "toy_004.nii.gz", np.zeros_like(label))
    (images / "toy_005.nii.gz").unlink()
    write_image(labels / "toy_006.nii.gz", label + np.float32(0.5))
    (labels / "toy_007.nii.gz").write_bytes(b"no image")
    found = _codes(tmp_path)
    assert found == [
        ("grid-mismatch", "toy_000"),
        ("grid-mismatch", "toy_001"),
        ("unknown-label", "toy_002"),
        ("non-finite", "toy_003"),
        ("missing-file", "toy_005"),
        ("not-a-mask", "toy_006"),
        (found[6][0], "toy_007"),
        ("empty-label", "toy_004"),
    ]
    messages = {p.case: p.message for p in check_dataset(open_dataset(tmp_path))}
    assert "toy_002.nii.gz holds 7, known are [0, 1, 2]" in messages["toy_002"]


def test_an_affine_within_a_thousandth_of_a_voxel_is_the_same_grid(tmp_path: Path) -> None:
    write_msd(tmp_path, count=2)
    moved = AFFINE.copy()
    moved[0, 3] += 5e-4
    write_image(tmp_path / "labelsTr/toy_000.nii.gz", case_arrays(0)[1], moved)
    assert _codes(tmp_path) == []


@pytest.mark.parametrize("apart", [True, False])
def test_an_image_twice_is_an_error_in_two_parts_of_a_split(tmp_path: Path, apart: bool) -> None:
    write_msd(tmp_path, count=4)
    shutil.copy(tmp_path / "imagesTr/toy_000.nii.gz", tmp_path / "imagesTr/toy_001.nii.gz")
    dataset = open_dataset(tmp_path)
    first = ["toy_000", "toy_002"] if apart else ["toy_000", "toy_001"]
    rest = sorted({case.case_id for case in dataset.cases} - set(first))
    splits = {"folds": [{"training": first, "validation": rest}]}
    problem = check_dataset(dataset, splits=splits)[0]
    assert (problem.code, problem.severity) == ("duplicate-image", "error" if apart else "warning")
    assert "toy_000, toy_001" in problem.message


def test_a_case_in_two_parts_of_a_fold_is_named(tmp_path: Path) -> None:
    dataset = open_dataset(write_msd(tmp_path, count=2))
    ids = [case.case_id for case in dataset.cases]
    splits = {"folds": [{"training": ids, "validation": ids[:1]}]}
    codes = {problem.code for problem in check_dataset(dataset, splits=splits)}
    assert codes == {"split-overlap"}


def test_a_channel_too_few_and_one_on_another_grid_are_named(tmp_path: Path) -> None:
    write_msd(tmp_path, count=2, modality=("T1", "T2"))
    image, _ = case_arrays(0)
    write_image(tmp_path / "imagesTr/toy_000.nii.gz", image)
    assert ("wrong-channels", "toy_000") in _codes(tmp_path)


def test_progress_is_told(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    dataset = open_dataset(write_msd(tmp_path, count=3))
    check_dataset(dataset, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_same_image_in_another_type_and_file_is_found(tmp_path: Path) -> None:
    write_msd(tmp_path, count=3)
    image = np.rint(100 * case_arrays(0)[0])
    write_image(tmp_path / "imagesTr/toy_000.nii.gz", image.astype(np.float32))
    write_image(tmp_path / "imagesTr/toy_001.nii.gz", image.astype(np.int16))
    assert _codes(tmp_path) == [("duplicate-image", "toy_000")]


def test_a_class_in_no_label_is_listed(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 2))
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n2 car\n3 tree\n")
    found = check_dataset(open_dataset(tmp_path))
    assert [(p.code, p.case, p.severity) for p in found] == [
        ("absent-class", tmp_path.name, "warning")
    ]
    assert "2 of 3 classes are in no label, and cannot be learned: road, tree" in found[0].message


def test_a_label_of_ignored_pixels_alone_counts_as_empty(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 1))
    save(np.full((12, 17), 255, np.uint8), tmp_path / "masks" / "p1.png")
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n255 void\n")
    found = check_dataset(open_dataset(tmp_path))
    assert [(p.code, p.case) for p in found] == [("empty-label", "p1")]
    assert "holds sky alone" in found[0].message


def test_an_image_that_is_turned_without_its_label_is_listed(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 1))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: the size is the same
    Image.fromarray(photo(0)).save(tmp_path / "images" / "p0.png", exif=exif)
    assert _codes(tmp_path) == [("turned-alone", "p0")]


@pytest.mark.parametrize("ignored", [(0,), (1,)])
def test_what_is_left_out_has_a_value_of_its_own(ignored: tuple[int, ...], tmp_path: Path) -> None:
    dataset = open_dataset(write_folders(tmp_path, (0, 1)))
    with pytest.raises(InputError, match=r"left out must be of no class"):
        replace(dataset, ignored=ignored)
    assert replace(dataset, ignored=(9,)).known_values == {0, 1, 9}
