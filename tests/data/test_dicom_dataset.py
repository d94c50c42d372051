import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from medseg.data import check_dataset, make_folds, open_dataset
from medseg.data.content import ContentDigests
from medseg.errors import InputError
from medseg.io.locator import parse_locator
from medseg.io.masks import read_mask
from medseg.io.read import read
from medseg.transforms import ImageReader
from medseg.volume import Volume
from tests.data.datasets import case_arrays, write_image
from tests.data.dicom_sets import (
    oblique_affine,
    write_dicom_case,
    write_dicom_series,
    write_dicom_set,
)
from tests.io.dicom.segmentations import series_files, write_seg


def _label_of(root: Path, number: int) -> np.ndarray:
    """Read the label of a case by the SEG's file name."""
    (case,) = [c for c in open_dataset(root).cases if f"p{number}/" in str(c.label)]
    return read(case.label).array[0]


def test_a_folder_of_series_and_segs_is_a_dataset(tmp_path: Path) -> None:
    dataset = open_dataset(write_dicom_set(tmp_path))
    assert (dataset.kind, dataset.regions) == ("dicom", False)
    assert [(s.name, s.values) for s in dataset.structures] == [("left", (1,)), ("right", (2,))]
    assert [(c.name, c.modality) for c in dataset.channels] == [("MR", "MR")]
    assert len(dataset.cases) == 4
    assert all(case.case_id.startswith("MR_3_") for case in dataset.cases)
    assert check_dataset(dataset, splits=make_folds(dataset.cases)) == ()
    for number in range(4):
        assert np.array_equal(_label_of(tmp_path, number), case_arrays(number)[1])


def test_files_without_folders_and_under_other_names_make_the_same_dataset(tmp_path: Path) -> None:
    before = open_dataset(write_dicom_set(tmp_path / "tree"))
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(sorted((tmp_path / "tree").rglob("*"))):
        if path.is_file():
            shutil.copy(path, flat / f"{97 * number % 1009:04d}")
    after = open_dataset(flat)
    assert [c.case_id for c in after.cases] == [c.case_id for c in before.cases]
    for one, other in zip(before.cases, after.cases, strict=True):
        for path, moved in ((one.images[0], other.images[0]), (one.label, other.label)):
            assert np.array_equal(read(path).array, read(moved).array)
    assert check_dataset(after) == ()


def test_nothing_that_is_kept_names_a_patient_or_a_uid(tmp_path: Path) -> None:
    dataset = open_dataset(write_dicom_set(tmp_path))
    uids = {str(ds.SeriesInstanceUID) for ds in series_files(tmp_path / "p0")}
    assert uids
    text = repr(dataset) + repr([case.as_item() for case in dataset.cases])
    assert not any(secret in text for secret in (*uids, "patient 0", "Planted"))


def test_structures_inside_others_become_regions(tmp_path: Path) -> None:
    for number in range(3):
        image, label = case_arrays(number)
        volume = Volume((100 * image[None]).astype(np.int16), oblique_affine())
        tumour = (label == 1) & (np.arange(12)[None, :, None] > 5)
        masks = {"tumour": tumour, "organ": label == 1, "other": label == 2}
        write_dicom_case(tmp_path / f"p{number}", volume, masks, str(number))
    dataset = open_dataset(tmp_path)
    assert dataset.regions
    table = [(s.name, s.values) for s in dataset.structures]
    assert table == [("organ", (1, 3)), ("other", (2,)), ("tumour", (3,))]
    assert np.array_equal(_label_of(tmp_path, 2), (label == 1) + 2 * (label == 2) + 2 * tumour)
    assert check_dataset(dataset) == ()


@pytest.mark.parametrize("where", ["across", "outside in another case"])
def test_other_overlaps_are_refused(tmp_path: Path, where: str) -> None:
    for number in range(2):
        image, label = case_arrays(number)
        volume = Volume((100 * image[None]).astype(np.int16), oblique_affine())
        inner = (label == 1) & (np.arange(12)[None, :, None] > 5)
        if where == "across":
            inner = (label > 0) & (np.arange(12)[None, :, None] > 5)
        elif number:
            inner = label == 2
        write_dicom_case(
            tmp_path / f"p{number}", volume, {"organ": label == 1, "tumour": inner}, str(number)
        )
    with pytest.raises(InputError, match=r"organ and tumour in seg\.dcm") as caught:
        open_dataset(tmp_path)
    assert caught.value.code == "bad-dataset"


def test_every_fault_of_pairing_is_named_at_once(tmp_path: Path) -> None:
    write_dicom_set(tmp_path)
    sources = series_files(tmp_path / "p0")
    empty = np.ones((len(sources), sources[0].Rows, sources[0].Columns), bool)
    write_seg(tmp_path / "p0/reader_b.dcm", sources, {"left": empty})
    shutil.rmtree(tmp_path / "p1/images")
    write_seg(tmp_path / "p2/seg.dcm", series_files(tmp_path / "p2"), {"Left": empty})
    with pytest.raises(InputError) as caught:
        open_dataset(tmp_path)
    text = str(caught.value)
    assert "2 segmentations of one series, p0/reader_b.dcm, p0/seg.dcm" in text
    assert "p1/seg.dcm: the series that it was made on is not there" in text
    assert "'Left' in p2/seg.dcm" in text


def test_a_series_with_faults_is_named_by_the_check(tmp_path: Path) -> None:
    write_dicom_set(tmp_path)
    middle = sorted(
        (tmp_path / "p0/images").iterdir(), key=lambda path: dcmread(path).InstanceNumber
    )[5]
    middle.unlink()
    dataset = open_dataset(tmp_path)
    assert len(dataset.cases) == 4
    (problem,) = check_dataset(dataset)
    assert problem.code == "no-usable-volume"
    assert "missing-slices" in problem.message


def test_a_series_without_a_seg_is_unlabelled(tmp_path: Path) -> None:
    write_dicom_set(tmp_path)
    (tmp_path / "p3/seg.dcm").unlink()
    dataset = open_dataset(tmp_path)
    assert (len(dataset.cases), len(dataset.unlabelled)) == (3, 1)


def test_the_series_of_a_patient_stay_in_one_fold(tmp_path: Path) -> None:
    for number in range(6):
        image, label = case_arrays(number)
        volume = Volume((100 * image[None]).astype(np.int16), oblique_affine())
        write_dicom_case(
            tmp_path / f"p{number}",
            volume,
            {"left": label == 1},
            str(number),
            PatientID=f"patient {number // 2}",
        )
    cases = open_dataset(tmp_path).cases
    group_of = {case.case_id: case.group for case in cases}
    assert len(set(group_of.values())) == 3
    folds = make_folds(cases)["folds"]
    assert len(folds) == 3
    for fold in folds:
        apart = [{group_of[case] for case in fold[part]} for part in ("training", "validation")]
        assert not apart[0] & apart[1]
        assert len(fold["training"]) == 4


def test_locators_lead_to_the_smallest_folder(tmp_path: Path) -> None:
    dataset = open_dataset(write_dicom_set(tmp_path))
    places = [parse_locator(case.images[0]) for case in dataset.cases]
    assert {place.path for place in places} == {tmp_path / f"p{n}/images" for n in range(4)}
    assert {place.series for place in places} == {""}


def test_a_folder_without_segs_is_no_dataset(tmp_path: Path) -> None:
    write_dicom_set(tmp_path, count=1)
    (tmp_path / "p0/seg.dcm").unlink()
    with pytest.raises(InputError, match="DICOM series with DICOM SEG") as caught:
        open_dataset(tmp_path)
    assert caught.value.code == "no-dataset"


@pytest.mark.parametrize("declared", [None, {"right": 7, "left": 3}])
def test_a_manifest_names_series_and_segs(tmp_path: Path, declared: dict | None) -> None:
    write_dicom_set(tmp_path)
    rows = ["case,image,label", *(f"c{n},p{n}/images,p{n}/seg.dcm" for n in range(4))]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    if declared:
        (tmp_path / "manifest.json").write_text(json.dumps({"labels": declared}))
    dataset = open_dataset(tmp_path / "manifest.csv")
    values = declared or {"left": 1, "right": 2}
    assert {s.name: s.values for s in dataset.structures} == {n: (v,) for n, v in values.items()}
    assert dataset.values_dealt == (declared is None)
    assert check_dataset(dataset) == ()
    for number, case in enumerate(dataset.cases):
        label = case_arrays(number)[1]
        expected = values["left"] * (label == 1) + values["right"] * (label == 2)
        assert np.array_equal(read(case.label).array[0], expected)
        assert np.array_equal(read_mask(case.label).array[0], expected)


def test_a_manifest_takes_two_series_as_channels_if_their_grids_agree(tmp_path: Path) -> None:
    image, label = case_arrays(5)
    first = Volume((100 * image[None]).astype(np.int16), oblique_affine())
    moved = oblique_affine()
    moved[:3, 3] += 5e-4
    off = oblique_affine()
    off[:3, 3] += 5e-2
    for number, affine in enumerate((moved, off)):
        folder = tmp_path / f"p{number}"
        write_dicom_case(
            folder, Volume(first.array + number, first.affine), {"left": label == 1}, str(number)
        )
        second = Volume(first.array[:, ::-1] + 1, affine)
        write_dicom_series(folder / "t2", second, f"t2 {number}", FrameOfReferenceUID=None)
    rows = ["case,image_T1,image_T2,label"]
    rows += [f"c{n},p{n}/images,p{n}/t2,p{n}/seg.dcm" for n in range(2)]
    (tmp_path / "set.csv").write_text("\n".join(rows))
    dataset = open_dataset(tmp_path / "set.csv")
    assert [channel.name for channel in dataset.channels] == ["t1", "t2"]
    (problem,) = check_dataset(dataset)
    assert (problem.code, problem.case) == ("grid-mismatch", "c1")
    item = dataset.cases[0].as_item()
    stacked = ImageReader().read(item["image"])
    assert np.array_equal(stacked.array, np.concatenate([first.array, first.array[:, ::-1] + 1]))


def test_a_manifest_of_masks_and_segs_must_declare_its_labels(tmp_path: Path) -> None:
    write_dicom_set(tmp_path, count=2)
    write_image(tmp_path / "label.nii.gz", case_arrays(0)[1])
    rows = ["case,image,label", "a,p0/images,p0/seg.dcm", "b,p1/images,label.nii.gz"]
    (tmp_path / "set.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match="must have declared labels"):
        open_dataset(tmp_path / "set.csv")


def test_a_changed_seg_or_slice_makes_another_cache_entry(tmp_path: Path) -> None:
    root = write_dicom_set(tmp_path / "set", count=2)
    cases = open_dataset(root).cases
    digests = ContentDigests(tmp_path / "memory")
    before = [digests.digest([case.label]) for case in cases]
    images = [digests.digest(case.images) for case in cases]
    assert len({*before, *images}) == 4
    other = with_values(cases[0].label, "left:2,right:1")
    assert digests.digest([other]) not in before
    path = parse_locator(cases[0].label).path
    ds = dcmread(path)
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(path)
    after = [digests.digest([case.label]) for case in cases]
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)
    assert [digests.digest(case.images) for case in cases] == images


def with_values(label: Path, table: str) -> Path:
    return Path(re.sub("segments=[^&]*", f"segments={table}", str(label)))


def test_the_check_names_every_fault_of_segmentations_at_once(tmp_path: Path) -> None:
    write_dicom_set(tmp_path, count=7)
    paths = {n: tmp_path / f"p{n}/seg.dcm" for n in range(7)}
    sources = {n: series_files(tmp_path / f"p{n}") for n in range(7)}
    shape = (len(sources[0]), sources[0][0].Rows, sources[0][0].Columns)
    box = np.zeros(shape, bool)
    box[2:5, 2:9, 3:8] = True
    write_seg(paths[0], sources[0], {"left": box * 0.25, "right": box}, kind="FRACTIONAL")
    write_seg(paths[1], sources[1], {"left": box})
    ds = dcmread(paths[2])
    for groups in ds.PerFrameFunctionalGroupsSequence:
        place = groups.PlanePositionSequence[0]
        place.ImagePositionPatient = [float(v) + 0.01 for v in place.ImagePositionPatient]
    ds.save_as(paths[2])
    ds = dcmread(paths[3])
    ds.PixelData = ds.PixelData[:10]
    ds.save_as(paths[3])
    ds = dcmread(paths[4])
    ds.PixelData = bytes(len(ds.PixelData))
    ds.save_as(paths[4])
    copy = [dcmread(path) for path in (tmp_path / "p5/images").iterdir()]
    for ds in copy:  # the pixels of case 6 under the name of case 5
        twin = next(s for s in sources[6] if s.InstanceNumber == ds.InstanceNumber)
        ds.PixelData = twin.PixelData
        ds.save_as(ds.filename)
    dataset = open_dataset(tmp_path)
    number_of = {
        case.case_id: int(re.search(r"p(\d)/", str(case.label))[1]) for case in dataset.cases
    }
    ids = {number: case for case, number in number_of.items()}
    fold = {"training": [ids[n] for n in range(6)], "validation": [ids[6]]}
    found = check_dataset(dataset, splits={"folds": [fold]})
    assert sorted((number_of[p.case], p.code, p.severity) for p in found) == [
        (0, "fractional-segmentation", "warning"),
        (1, "missing-segment", "warning"),
        (2, "off-grid", "error"),
        (3, "unreadable", "error"),
        (4, "empty-label", "warning"),
        (min(5, 6, key=lambda n: ids[n]), "duplicate-image", "error"),
    ]


def test_a_stated_split_of_one_patient_is_told(tmp_path: Path) -> None:
    for number in range(4):
        image, label = case_arrays(number)
        volume = Volume((100 * image[None]).astype(np.int16), oblique_affine())
        tags = {"PatientID": f"patient {number % 3}"}
        write_dicom_case(tmp_path / f"p{number}", volume, {"a": label > 0}, str(number), **tags)
    dataset = open_dataset(tmp_path)
    counts = Counter(case.group for case in dataset.cases)
    twins = [case.case_id for case in dataset.cases if counts[case.group] == 2]
    others = [case.case_id for case in dataset.cases if case.case_id not in twins]
    apart = {"training": [twins[0], others[0]], "validation": [twins[1], others[1]]}
    (problem,) = check_dataset(dataset, splits={"folds": [apart]})
    assert (problem.code, problem.severity) == ("group-in-two-parts", "warning")
    assert all(case in problem.message for case in twins)
    assert "patient 0" not in problem.message
    together = {"training": twins, "validation": others}
    assert check_dataset(dataset, splits={"folds": [together]}) == ()
