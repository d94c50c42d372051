import shutil
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from medseg.data import check_dataset, make_folds, open_dataset
from medseg.errors import InputError
from medseg.io.locator import parse_locator
from medseg.io.read import read
from medseg.volume import Volume
from tests.data.datasets import case_arrays
from tests.data.dicom_sets import oblique_affine, write_dicom_case, write_dicom_set
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
