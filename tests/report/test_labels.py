"""Label statistics against plain counting."""

import json

import numpy as np
import pytest
from scipy import ndimage

from medseg.errors import InputError
from medseg.report.labels import label_statistics
from medseg.volume import Label, Segmentation, make_labels
from tests.real_data import data_folder

KEYS = ["index", "name", "voxels", "volume_ml", "components", "touches_border"]


def test_every_label_is_listed_in_order_with_all_keys() -> None:
    array = np.zeros((10, 9, 8), np.uint8)
    array[2:4, 2:4, 2:4] = 3
    array[4, 4, 4] = 3  # touches by a corner: the same component
    array[7:9, 7:9, 0] = 1
    array[7, 7, 5] = 1
    labels = make_labels({1: "one", 2: "two", 3: "three"})
    seg = Segmentation(array, np.diag([2.0, 2.0, 2.5, 1.0]), labels)
    rows = label_statistics(seg)
    assert [list(row) for row in rows] == [KEYS] * 3
    assert rows[0] == dict(zip(KEYS, [1, "one", 5, 0.05, 2, True], strict=True))
    assert rows[1] == dict(zip(KEYS, [2, "two", 0, 0.0, 0, False], strict=True))
    assert rows[2] == dict(zip(KEYS, [3, "three", 9, 0.09, 1, False], strict=True))
    assert json.loads(json.dumps(rows)) == rows


def test_a_region_holds_those_within_it() -> None:
    array = np.zeros((9, 9, 9), np.uint8)
    array[1:6, 1:6, 1:6] = 2  # what is left of the whole around its core
    array[2:5, 2:5, 2:5] = 1
    array[3, 3, 3] = 4
    colors = (255, 0, 0)
    labels = (
        Label(2, "whole", colors, (1, 2, 4)), Label(1, "core", colors, (1, 4)),
        Label(4, "enhancing", colors),
    )  # fmt: skip
    rows = label_statistics(Segmentation(array, np.eye(4), labels))
    assert [(row["index"], row["name"], row["voxels"]) for row in rows] == [
        (2, "whole", 125),
        (1, "core", 27),
        (4, "enhancing", 1),
    ]
    assert [row["components"] for row in rows] == [1, 1, 1]
    assert rows[0]["volume_ml"] == 0.125
    assert list(rows[0]) == KEYS


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("end", [0, -1])
def test_each_face_of_the_grid_is_a_border(axis: int, end: int) -> None:
    array = np.zeros((6, 7, 8), np.uint8)
    where = [3, 3, 3]
    where[axis] = end
    array[tuple(where)] = 1
    seg = Segmentation(array, np.eye(4), make_labels(["a"]))
    assert label_statistics(seg)[0]["touches_border"] is True


def test_an_axis_of_one_plane_is_no_border() -> None:
    array = np.zeros((6, 7, 1), np.uint8)
    array[3, 3, 0] = 1
    seg = Segmentation(array, np.eye(4), make_labels(["a"]))
    assert label_statistics(seg)[0]["touches_border"] is False


def test_an_oblique_voxel_keeps_its_volume() -> None:
    turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.5, 0.5, 4.0)
    seg = Segmentation(np.ones((10, 10, 10), np.uint8), affine, make_labels(["a"]))
    assert label_statistics(seg)[0]["volume_ml"] == pytest.approx(1.0)


def test_a_2d_mask_has_no_volume() -> None:
    array = np.zeros((6, 7), np.uint8)
    array[0, 2:4] = 1
    row = label_statistics(Segmentation(array, np.eye(3), make_labels(["a"])))[0]
    assert (row["voxels"], row["volume_ml"], row["components"]) == (2, None, 1)
    assert row["touches_border"] is True


def test_a_value_without_a_label_is_refused() -> None:
    seg = Segmentation(np.full((3, 3, 3), 2, np.uint8), np.eye(4), make_labels(["a"]))
    with pytest.raises(InputError, match="labels of its table") as caught:
        label_statistics(seg)
    assert caught.value.code == "unknown-label"


def test_a_real_multi_label_mask_is_counted_right() -> None:
    import nibabel as nib  # noqa: PLC0415

    path = data_folder("totalseg_example") / "example_seg_fast_force_split.nii.gz"
    array = np.asarray(nib.load(path).dataobj).astype(np.uint8)
    seg = Segmentation(
        array, np.diag([3.0, 3, 3, 1]), make_labels([f"n{k}" for k in range(1, 118)])
    )
    rows = label_statistics(seg)
    assert sum(row["voxels"] > 0 for row in rows) == 61
    for row in rows:
        mask = array == row["index"]
        assert row["voxels"] == mask.sum()
        assert row["components"] == ndimage.label(mask, structure=np.ones((3, 3, 3)))[1]
        faces = np.pad(np.zeros(np.subtract(mask.shape, 2), bool), 1, constant_values=True)
        assert row["touches_border"] == bool((mask & faces).any())
