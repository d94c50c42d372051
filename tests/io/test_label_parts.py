"""Labels one by one: where they lie, what their files are called."""

import numpy as np
import pytest

from medseg.io.label_parts import file_stems, label_boxes, label_mask
from medseg.volume import Label, Segmentation, make_labels


def stems(*names: str) -> list[str]:
    return file_stems(make_labels(names))


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("left/right lung", "left_right_lung"),
        ("été", "été"),
        ("e\u0301te\u0301", "été"),
        ("肝臓", "肝臓"),
        ('a<b>:c"d\\e|f?g*h', "a_b_c_d_e_f_g_h"),
        ("two\nlines\tand\x00more", "two_lines_and_more"),
        ("../../etc/passwd", "etc_passwd"),
        (".hidden.", "hidden"),
        ("gland\u202efdp", "gland_fdp"),
        ("", "label_1"),
        (" / ", "label_1"),
        ("NUL", "label_1_NUL"),
        ("con.v2", "label_1_con.v2"),
        ("x" * 300, "x" * 100),
        ("é" * 300, "é" * 50),
    ],
)
def test_a_name_becomes_one_that_every_file_system_takes(name: str, stem: str) -> None:
    assert stems(name) == [stem]


def test_equal_names_end_in_the_number_of_their_label() -> None:
    assert stems("lung", "liver", "lung") == ["lung_1", "liver", "lung_3"]


def test_names_that_differ_in_capitals_alone_or_by_what_is_unsafe_get_files_of_their_own() -> None:
    assert stems("Lung", "lung") == ["Lung_1", "lung_2"]
    assert stems("a/b", "a:b") == ["a_b_1", "a_b_2"]
    assert stems("a", "a", "a_1") == ["a_1_", "a_2", "a_1"]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_boxes_hold_each_label_in_any_layout_of_the_memory(order, dtype) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 6, (7, 9, 5)).astype(dtype) * (rng.random((7, 9, 5)) < 0.1)
    segmentation = Segmentation(
        np.asarray(values, dtype, order=order), np.eye(4), make_labels(list("abcdefg"))
    )
    for label, box in zip(segmentation.labels, label_boxes(segmentation), strict=True):
        where = np.argwhere(values == label.index)
        if not len(where):
            assert box is None
            continue
        assert [part.start for part in box] == where.min(axis=0).tolist()
        assert [part.stop - 1 for part in box] == where.max(axis=0).tolist()
        assert label_mask(segmentation, label, box).sum() == len(where)


def test_a_region_is_all_that_lies_within_it() -> None:
    array = np.zeros((9, 9, 9), np.uint8)
    array[2, 3, 4], array[7, 3, 1], array[5, 5, 5] = 1, 2, 3
    whole = Label(1, "whole", (1, 2, 3), (1, 2))
    segmentation = Segmentation(array, np.eye(4), (whole, Label(2, "core", (4, 5, 6))))
    first, second = label_boxes(segmentation)
    assert first == (slice(2, 8), slice(3, 4), slice(1, 5))
    assert second == (slice(7, 8), slice(3, 4), slice(1, 2))
    assert label_mask(segmentation, whole, first).sum() == 2
