from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medseg.data import check_dataset, make_folds, open_dataset
from medseg.data.voc import CLASS_NAMES, VOID_COLOR
from medseg.errors import InputError
from medseg.io.masks import read_mask
from medseg.io.raster import voc_colors
from tests.data.picture_sets import index_mask, photo, save, write_voc
from tests.real_data import data_folder


@pytest.mark.parametrize("below", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_a_voc_folder_opens_from_any_level(below: str, tmp_path: Path) -> None:
    write_voc(tmp_path)
    dataset = open_dataset(tmp_path / below)
    assert (dataset.kind, dataset.name) == ("voc", "VOC2012")
    assert [s.name for s in dataset.structures] == list(CLASS_NAMES[1:])
    assert dataset.class_values == [[value] for value in range(21)]
    assert dataset.ignored == (255,)
    assert dataset.colors["person"] == (192, 128, 128)  # the VOC2012 development kit
    folds = make_folds(dataset.cases)
    assert folds["folds"] == [
        {"training": ["2012_0", "2012_1", "2012_2"], "validation": ["2012_3", "2012_4"]}
    ]
    codes = {problem.code for problem in check_dataset(dataset, splits=folds)}
    assert codes == {"absent-class"}


def test_masks_in_the_colours_of_voc_are_read_as_their_classes(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    palette = voc_colors(256)
    palette[255] = VOID_COLOR
    truth = {}
    for path in sorted((folder / "SegmentationClass").iterdir()):
        truth[path.stem] = np.asarray(Image.open(path))
        save(palette[truth[path.stem]], path)
    dataset = open_dataset(folder)
    assert dataset.ignored == (255,)
    for case in dataset.cases:
        assert case.label is not None
        assert np.array_equal(read_mask(case.label).array[0], truth[case.case_id])


def test_own_names_and_a_test_list_without_masks(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    names = ["__ignore__", "_background_", *(f"thing {n}" for n in range(1, 16))]
    (folder / "class_names.txt").write_text("\n".join(names))
    save(photo(9), folder / "JPEGImages" / "2012_9.jpg")
    (folder / "ImageSets" / "Segmentation" / "test.txt").write_text("2012_9\n")
    dataset = open_dataset(folder)
    assert [(s.name, s.values) for s in dataset.structures][4] == ("thing 5", (5,))
    assert len(dataset.structures) == 15
    assert [(case.case_id, case.label) for case in dataset.unlabelled] == [("2012_9", None)]


def test_every_missing_file_of_the_lists_is_named(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    (folder / "JPEGImages" / "2012_1.jpg").unlink()
    (folder / "SegmentationClass" / "2012_3.png").unlink()
    with pytest.raises(InputError, match=r"1 without a mask: 2012_3; 1 without an image: 2012_1"):
        open_dataset(folder)


def test_a_name_in_both_parts_is_refused(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    path = folder / "ImageSets" / "Segmentation" / "val.txt"
    path.write_text(path.read_text() + "2012_0\n")
    with pytest.raises(InputError, match=r"one list of ImageSets/Segmentation, got two for 2012_0"):
        open_dataset(folder)


def test_two_years_side_by_side_have_to_be_told_apart(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    other = folder.with_name("VOC2007")
    save(photo(0), other / "JPEGImages" / "a.jpg")
    save(index_mask(0, (0, 1)), other / "SegmentationClass" / "a.png")
    with pytest.raises(InputError, match=r"one VOC folder, got VOC2007, VOC2012"):
        open_dataset(tmp_path)
    assert [case.case_id for case in open_dataset(other).cases] == ["a"]


def test_a_mask_that_no_list_has_is_listed(tmp_path: Path) -> None:
    folder = write_voc(tmp_path)
    save(photo(9), folder / "JPEGImages" / "2012_9.jpg")
    save(index_mask(9, (0, 3)), folder / "SegmentationClass" / "2012_9.png")
    found = check_dataset(open_dataset(folder))
    assert ("not-listed", "VOC2012", "warning") in [(p.code, p.case, p.severity) for p in found]
    assert any("2012_9" in problem.message for problem in found)


def test_the_real_subset_has_its_own_names_and_splits() -> None:
    dataset = open_dataset(data_folder("voc_subset"))
    assert [s.name for s in dataset.structures][-1] == "tv/monitor"
    assert {case.case_id: case.split for case in dataset.cases} == {
        "2011_000003": "training",
        "2011_000006": "training",
        "2011_000025": "validation",
    }
    codes = [problem.code for problem in check_dataset(dataset)]
    assert codes == ["absent-class"]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0 background\n15 dog\n5 cat\n", {5: "cat", 15: "dog"}),
        ("\n".join(f"c{n}" for n in range(1, 21)), {5: "c5", 15: "c15"}),  # no line for 0
        ("\n".join(["background", *(f"c{n}" for n in range(1, 21))]), {5: "c5", 15: "c15"}),
        (
            "\n".join(["background", "c1", "void", *(f"c{n}" for n in range(3, 21))]),
            {5: "c5", 15: "c15"},
        ),
    ],
)
def test_a_class_has_the_value_that_its_file_states_or_counts(
    tmp_path: Path, text: str, wanted: dict[int, str]
) -> None:
    root = write_voc(tmp_path)
    (root / "classes.txt").write_text(text)
    dataset = open_dataset(root)
    names = {s.values[0]: s.name for s in dataset.structures}
    assert {value: names[value] for value in wanted} == wanted
    assert dataset.ignored == (255,)
    assert not [p for p in check_dataset(dataset) if p.severity == "error"]
