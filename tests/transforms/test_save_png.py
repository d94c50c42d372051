"""Masks of pictures on disk: as another program reads them, rows as rows."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from medseg.errors import UsageError
from medseg.transforms import SavePaletted


def mask_of(values: np.ndarray, name: str) -> MetaTensor:
    return MetaTensor(torch.from_numpy(values)[None], meta={"filename_or_obj": name})


def test_values_and_colours_are_read_back_in_place(tmp_path) -> None:
    values = np.zeros((5, 9), np.uint8)
    values[0, 7], values[3, 1] = 1, 2
    save = SavePaletted("pred", str(tmp_path / "eval"), colors=[[10, 20, 30], [40, 50, 60]])
    data = {"pred": mask_of(values, "/images/frame.1.png")}
    assert save(data)["pred"] is data["pred"]
    with Image.open(tmp_path / "eval" / "frame.1_seg.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), values)
        shown = np.asarray(image.convert("RGB"))
    assert shown[0, 7].tolist() == [10, 20, 30]
    assert shown[3, 1].tolist() == [40, 50, 60]
    assert shown[4, 8].tolist() == [0, 0, 0]


def test_large_values_keep_their_numbers(tmp_path) -> None:
    values = np.full((2, 3), 700, np.int32)
    SavePaletted("pred", str(tmp_path))({"pred": mask_of(values, "a.png")})
    with Image.open(tmp_path / "a_seg.png") as image:
        assert np.array_equal(np.asarray(image), values)


@pytest.mark.parametrize("shape", [(1, 2, 3, 4), (2, 3, 4)])
def test_what_is_no_2d_mask_is_refused(tmp_path, shape) -> None:
    mask = MetaTensor(torch.zeros(shape), meta={"filename_or_obj": "a.png"})
    with pytest.raises(UsageError, match=r"\(1, rows, columns\)"):
        SavePaletted("pred", str(tmp_path))({"pred": mask})


def test_a_mask_without_a_name_is_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match="name of its image"):
        SavePaletted("pred", str(tmp_path))({"pred": torch.zeros(1, 2, 3)})
