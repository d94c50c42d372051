from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.data import check_dataset, open_dataset
from medseg.errors import InputError
from medseg.io.masks import read_mask
from tests.data.picture_sets import photo, save
from tests.real_data import data_folder


def _write(root: Path, count: int = 3) -> Path:
    for number in range(count):
        save(photo(number), root / f"id{number}" / "images" / f"id{number}.png")
        for part in range(4):
            mask = np.zeros((12, 17), np.uint8)
            mask[part * 3 : part * 3 + 2, number : number + 4] = 255
            save(mask, root / f"id{number}" / "masks" / f"m{part}.png")
    return root


def test_the_masks_of_an_image_are_one_class(tmp_path: Path) -> None:
    dataset = open_dataset(_write(tmp_path / "stage1_train"))
    assert (dataset.kind, [s.name for s in dataset.structures]) == ("objects", ["nucleus"])
    assert check_dataset(dataset) == ()
    for number, case in enumerate(dataset.cases):
        assert case.label is not None
        mask = read_mask(case.label).array[0]
        assert np.count_nonzero(mask) == 4 * 2 * 4
        assert mask[:, number].sum() == 8


def test_a_folder_without_masks_or_with_two_images_is_named(tmp_path: Path) -> None:
    _write(tmp_path)
    save(photo(9), tmp_path / "id0" / "images" / "other.png")
    for path in (tmp_path / "id2" / "masks").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"1 without one image: id0; 1 without masks: id2"):
        open_dataset(tmp_path)


def test_a_mask_of_another_size_is_an_error_of_its_case(tmp_path: Path) -> None:
    _write(tmp_path)
    save(np.zeros((12, 18), np.uint8), tmp_path / "id1" / "masks" / "n.png")
    found = check_dataset(open_dataset(tmp_path))
    assert [(p.code, p.case) for p in found] == [("grid-mismatch", "id1")]
    assert "n.png" in found[0].message


def test_the_original_layout_gives_the_masks_that_were_merged() -> None:
    folder = data_folder("dsb2018_nuclei")
    dataset = open_dataset(folder / "original_layout" / "stage1_train")
    assert len(dataset.cases) == 6
    for case in dataset.cases:
        assert case.label is not None
        merged = np.asarray(Image.open(folder / "masks" / f"{case.case_id}.png"))
        assert np.array_equal(read_mask(case.label).array[0], merged > 0)
