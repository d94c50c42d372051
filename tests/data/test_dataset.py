import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medseg.data import check_dataset, open_dataset
from medseg.data.dataset import painted_values
from medseg.data.dataset_labels import labels_of_dataset
from medseg.errors import InputError
from tests.data.datasets import case_arrays, write_image, write_msd, write_nnunet
from tests.data.picture_sets import write_folders, write_voc
from tests.real_data import data_folder


def test_the_hippocampus_dataset_is_listed() -> None:
    dataset = open_dataset(data_folder("Task04_Hippocampus"))
    assert dataset.kind == "msd"
    assert (len(dataset.cases), len(dataset.unlabelled)) == (220, 1)
    assert [channel.modality for channel in dataset.channels] == ["MR"]
    assert [(s.name, s.values) for s in dataset.structures] == [
        ("Anterior", (1,)),
        ("Posterior", (2,)),
    ]
    assert dataset.class_values == [[0], [1], [2]]
    assert all(case.label and case.label.is_file() for case in dataset.cases)


def test_any_integers_become_classes_in_rising_order(tmp_path: Path) -> None:
    dataset = open_dataset(write_msd(tmp_path, values=(200, 10)))
    assert [(s.name, s.values) for s in dataset.structures] == [
        ("thing 10", (10,)),
        ("thing 200", (200,)),
    ]
    assert dataset.known_values == {0, 10, 200}


def test_a_decathlon_image_of_several_modalities_is_one_file(tmp_path: Path) -> None:
    dataset = open_dataset(write_msd(tmp_path, modality=("FLAIR", "T1w")))
    assert [channel.name for channel in dataset.channels] == ["FLAIR", "T1w"]
    assert len(dataset.cases[0].images) == 1


def test_nnunets_files_of_channels_belong_together(tmp_path: Path) -> None:
    dataset = open_dataset(write_nnunet(tmp_path, {"background": 0, "a": 1, "b": 2}))
    assert dataset.kind == "nnunet"
    assert [path.name for path in dataset.cases[2].images] == [
        "case_2_0000.nii.gz",
        "case_2_0001.nii.gz",
    ]
    assert dataset.cases[2].as_item()["image"] == [str(path) for path in dataset.cases[2].images]


def test_nnunets_regions_are_regions(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": [2]}
    dataset = open_dataset(write_nnunet(tmp_path, labels))
    assert dataset.regions
    assert dataset.region_values == [[1, 2], [2]]


def test_what_nnunet_ignores_is_left_out(tmp_path: Path) -> None:
    dataset = open_dataset(write_nnunet(tmp_path, {"background": 0, "a": 1, "ignore": 2}))
    assert (dataset.class_values, dataset.ignored) == ([[0], [1]], (2,))
    assert [p.code for p in check_dataset(dataset) if p.severity == "error"] == []


def test_nothing_is_left_out_of_regions(tmp_path: Path) -> None:
    labels = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    with pytest.raises(InputError, match="regions that overlap"):
        open_dataset(write_nnunet(tmp_path, labels))


@pytest.mark.parametrize(
    "labels",
    [
        {"core": [1, 4], "whole": [1, 2, 4], "enhancing": [4]},
        {"enhancing": [4], "core": [1, 4], "whole": [1, 2, 4]},
    ],
)
def test_regions_are_painted_from_the_widest_on(tmp_path: Path, labels: dict[str, Any]) -> None:
    dataset = open_dataset(write_nnunet(tmp_path, {"background": 0, **labels}))
    assert [s.name for s in dataset.structures] == ["whole", "core", "enhancing"]
    assert painted_values(dataset.region_values) == (2, 1, 4)


@pytest.mark.parametrize(
    ("labels", "match"),
    [
        ({"a": [1, 2], "b": [2, 3]}, "2 in place of 3"),
        ({"a": [1, 2], "b": [2, 1]}, "two regions of the same values"),
        ({"a": 70000}, "from 1 to 65535"),
        ({"a": -1}, "from 1 to 65535"),
        ({"lesion #1": 1}, "no #"),
        ({"$__import__('os')": 1}, "start with none of"),
        ({"background": [0, 1], "a": 1}, "other than the background's"),
    ],
)
def test_labels_that_no_mask_can_hold_are_refused(
    tmp_path: Path, labels: dict[str, Any], match: str
) -> None:
    folder = write_nnunet(tmp_path, {"background": 0, **labels})
    with pytest.raises(InputError, match=match) as caught:
        open_dataset(folder)
    assert caught.value.code == "bad-dataset"


def test_background_of_several_values_has_0_among_them_and_first(tmp_path: Path) -> None:
    dataset = open_dataset(write_nnunet(tmp_path, {"background": [255], "a": 1}))
    assert dataset.class_values == [[0, 255], [1]]


def _manifest(root: Path, header: str, *rows: str, name: str = "data.csv", **more: Any) -> Path:
    for number in range(2):
        image, label = case_arrays(number, (3, 7))
        write_image(root / "scans" / f"s{number}.nii.gz", image)
        write_image(root / "scans" / f"m{number}.nii.gz", label)
    (root / name).write_text("\n".join([header, *rows]) + "\n", **more)
    return root / name


def test_a_table_names_channels_labels_and_splits(tmp_path: Path) -> None:
    path = _manifest(
        tmp_path,
        "case,image_T1w,image_CT,label,split",
        "b,scans/s0.nii.gz,scans/s1.nii.gz,scans/m0.nii.gz,train",
        "a,scans/s1.nii.gz,scans/s0.nii.gz,scans/m1.nii.gz,val",
        "c,scans/s1.nii.gz,scans/s0.nii.gz,,test",
    )
    dataset = open_dataset(path)
    assert [(c.name, c.modality) for c in dataset.channels] == [("t1w", "MR"), ("ct", "CT")]
    assert [(c.case_id, c.split) for c in dataset.cases] == [("a", "validation"), ("b", "training")]
    assert [case.case_id for case in dataset.unlabelled] == ["c"]
    assert dataset.cases[1].images == (tmp_path / "scans/s0.nii.gz", tmp_path / "scans/s1.nii.gz")
    assert [s.values for s in dataset.structures] == [(3,), (7,)]


def test_a_byte_order_mark_semicolons_and_blank_lines_do_no_harm(tmp_path: Path) -> None:
    path = _manifest(
        tmp_path,
        "Image;Label",
        "",
        "scans/s0.nii.gz;scans/m0.nii.gz",
        ";;",
        "scans/s1.nii.gz;scans/m1.nii.gz",
        encoding="utf-8-sig",
    )
    assert [case.case_id for case in open_dataset(path).cases] == ["s0", "s1"]


def test_a_json_file_beside_a_table_declares_labels(tmp_path: Path) -> None:
    path = _manifest(tmp_path, "image,label", "scans/s0.nii.gz,scans/m0.nii.gz")
    declared = {
        "channels": [{"name": "portal", "modality": "CT"}],
        "labels": {"all": [3, 7], "core": 7},
    }
    path.with_suffix(".json").write_text(json.dumps(declared))
    dataset = open_dataset(path)
    assert dataset.regions
    assert dataset.region_values == [[3, 7], [7]]
    assert dataset.channels[0].modality == "CT"


def test_a_json_file_beside_a_table_declares_what_is_in_it(tmp_path: Path) -> None:
    path = _manifest(
        tmp_path, "image,label", "scans/s0.nii.gz,scans/m0.nii.gz", name="manifest.csv"
    )
    path.with_suffix(".json").write_text(json.dumps({"labels": {"liver": 1, "cyst": 2}}))
    assert [s.name for s in open_dataset(tmp_path).structures] == ["liver", "cyst"]


def test_all_faults_of_a_table_are_named_though_no_label_is_declared(tmp_path: Path) -> None:
    path = _manifest(
        tmp_path,
        "case,image,label",
        "a,scans/s0.nii.gz,scans/m0.nii.gz",
        "b,scans/s1.nii.gz,scans/gone.nii.gz",
        "c,scans/lost.nii.gz,scans/m1.nii.gz",
    )
    problems = check_dataset(open_dataset(path))
    assert sorted(problem.case for problem in problems) == ["b", "c"]
    text = " ".join(problem.message for problem in problems)
    assert "gone.nii.gz" in text
    assert "lost.nii.gz" in text


@pytest.mark.parametrize(("text", "got"), [("[]", "no object"), ('{"images": []}', "'images'")])
def test_a_json_file_without_cases_is_told_what_it_must_hold(
    tmp_path: Path, text: str, got: str
) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r'JSON like \{"cases"') as caught:
        open_dataset(tmp_path)
    assert got in str(caught.value)


def test_a_json_manifest_lists_cases(tmp_path: Path) -> None:
    _manifest(tmp_path, "image,label")
    document = {
        "labels": {"x": 3, "y": 7},
        "channels": ["A", "B"],
        "cases": [
            {"image": ["scans/s0.nii.gz", "scans/s1.nii.gz"], "label": "scans/m0.nii.gz", "fold": 1}
        ],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    dataset = open_dataset(tmp_path / "manifest.json")
    assert dataset.cases[0].split == "1"
    assert len(dataset.cases[0].images) == 2


@pytest.mark.parametrize(
    ("header", "rows", "match"),
    [
        ("picture,label", ["a,b"], "column `image`"),
        ("image,truth", ["a,b"], "column `label`"),
        ("case,image,label", ["x,a,b", "x,c,d"], r"\['x'\] more than once"),
        ("image,label", ["a.nii,b.nii", ",c.nii"], "none in row 3"),
        ("image,label", [], "at least one case"),
        ("image,label", ["a.nii,"], "cases with a label"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, header: str, rows: list[str], match: str) -> None:
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    with pytest.raises(InputError, match=match) as caught:
        open_dataset(tmp_path / "t.csv")
    assert caught.value.code == "bad-manifest"


@pytest.mark.parametrize("suffix", ["", "_seg", "-mask"])
def test_two_folders_are_paired_by_stem(tmp_path: Path, suffix: str) -> None:
    for number in range(3):
        image, label = case_arrays(number)
        write_image(tmp_path / "images" / f"p{number}.nii.gz", image)
        write_image(tmp_path / "masks" / f"p{number}{suffix}.nii.gz", label)
    dataset = open_dataset(tmp_path)
    assert [case.case_id for case in dataset.cases] == ["p0", "p1", "p2"]
    assert [s.name for s in dataset.structures] == ["label_1", "label_2"]


def test_channel_files_of_a_folder_belong_to_the_label_of_their_stem(tmp_path: Path) -> None:
    image, label = case_arrays(0)
    for channel in range(2):
        write_image(tmp_path / "images" / f"p_{channel:04d}.nii.gz", image)
    write_image(tmp_path / "labels" / "p.nii.gz", label)
    dataset = open_dataset(tmp_path)
    assert [len(case.images) for case in dataset.cases] == [2]
    assert len(dataset.channels) == 2


@pytest.mark.parametrize(
    ("folder", "names"),
    [("masks", ["p0.nii.gz", "p0_seg.nii.gz"]), ("images", ["p0.nii.gz", "p0.nii"])],
)
def test_two_files_of_a_case_are_refused(tmp_path: Path, folder: str, names: list[str]) -> None:
    image, label = case_arrays(0)
    write_image(tmp_path / "images/p0.nii.gz", image)
    write_image(tmp_path / "masks/p0.nii.gz", label)
    for name in names:
        write_image(tmp_path / folder / name, image if folder == "images" else label)
    with pytest.raises(InputError, match="one file of a case") as caught:
        open_dataset(tmp_path)
    assert caught.value.code == "bad-dataset"


def test_colours_of_pictures_are_channels(tmp_path: Path) -> None:
    for number in range(2):
        rgb = np.random.default_rng(number).integers(0, 255, (20, 30, 3), np.uint8)
        label = Image.fromarray(rgb[..., 0] // 128).convert("P")
        label.putpalette([0, 0, 0, 128, 0, 0])
        for folder, picture in (("images", Image.fromarray(rgb)), ("masks", label)):
            (tmp_path / folder).mkdir(exist_ok=True)
            picture.save(tmp_path / folder / f"p{number}.png")
    dataset = open_dataset(tmp_path)
    assert [channel.name for channel in dataset.channels] == ["red", "green", "blue"]
    assert check_dataset(dataset) == ()


def test_an_image_without_a_label_is_named(tmp_path: Path) -> None:
    image, label = case_arrays(0)
    for name in ("a", "b"):
        write_image(tmp_path / "images" / f"{name}.nii.gz", image)
    write_image(tmp_path / "labels" / "a.nii.gz", label)
    with pytest.raises(InputError, match="1 without: b"):
        open_dataset(tmp_path)


def test_labels_of_background_alone_are_no_dataset(tmp_path: Path) -> None:
    image, _ = case_arrays(0)
    write_image(tmp_path / "images" / "a.nii.gz", image)
    write_image(tmp_path / "labels" / "a.nii.gz", np.zeros(image.shape, np.uint8))
    with pytest.raises(InputError, match="values above 0"):
        open_dataset(tmp_path)


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path)
    assert caught.value.code == "no-dataset"
    (tmp_path / "dataset.json").write_text('{"labels": {}}')
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path)
    assert caught.value.code == "bad-dataset"


def test_a_manifest_says_which_values_are_left_out(tmp_path: Path) -> None:
    write_folders(tmp_path, (0, 1, 255))
    cases = [{"image": f"images/p{n}.png", "label": f"masks/p{n}.png"} for n in range(3)]
    document = {"labels": {"cat": 1}, "ignored": [255], "cases": cases}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    dataset = open_dataset(tmp_path)
    assert (dataset.class_values, dataset.ignored) == ([[0], [1]], (255,))
    assert check_dataset(dataset) == ()


def test_what_is_no_dataset_is_told_what_would_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"PASCAL VOC.*CamVid.*COCO.*Labelme.*DICOM") as caught:
        open_dataset(tmp_path)
    assert caught.value.code == "no-dataset"


def test_true_masks_of_a_dataset_come_with_what_no_score_counts(tmp_path: Path) -> None:
    labels = labels_of_dataset(write_voc(tmp_path), {})
    assert labels is not None
    assert labels.ignored == (255,)
    assert labels.names[15] == "person"
