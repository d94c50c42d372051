"""`medseg inspect` against what was written."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medseg.cli.main import call
from medseg.workflows.inspect import InspectOptions, inspect
from tests.io.dicom.synthetic import header, save, set_pixels
from tests.phantoms import numbered, oblique_affine, write_localizer, write_nifti, write_series
from tests.real_data import data_folder

SHAPE = (9, 8, 7)
IMAGE = numbered(SHAPE, oblique_affine())


def inspected(capsys: pytest.CaptureFixture[str], path: Path, code: int = 0) -> dict[str, Any]:
    """Run the command and return its document."""
    assert call(["inspect", str(path), "--json"]) == code
    return dict(json.loads(capsys.readouterr().out))


def test_a_series_is_described_as_it_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(IMAGE, tmp_path / "a")
    document = inspected(capsys, tmp_path)
    assert set(document) == {"schema", "series", "rejected"}
    assert document["rejected"] == []
    (series,) = document["series"]
    ds = pydicom.dcmread(next((tmp_path / "a").iterdir()))
    assert series["series_instance_uid"] == ds.SeriesInstanceUID
    assert series["modality"] == "CT"
    assert series["description"] == ds.SeriesDescription
    assert series["instances"] == SHAPE[2]
    (volume,) = series["volumes"]
    assert set(volume) == {
        "volume_id", "size", "frames", "spacing_mm", "orientation", "usable", "problems",
    }  # fmt: skip
    assert volume["size"] == list(SHAPE)
    assert volume["frames"] == 1
    assert volume["usable"] is True
    np.testing.assert_allclose(volume["spacing_mm"], IMAGE.spacing_mm, atol=1e-4)
    assert set(volume["orientation"]) <= set("RLAPIS")


def test_every_problem_and_every_file_left_out_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(write_series(IMAGE, tmp_path / "a").iterdir(), key=_instance_number)
    files[3].unlink()
    write_localizer(tmp_path / "scout")
    (tmp_path / "notes.txt").write_text("no image")
    document = inspected(capsys, tmp_path)
    volumes = [volume for series in document["series"] for volume in series["volumes"]]
    codes = {problem["code"] for volume in volumes for problem in volume["problems"]}
    assert {"missing-slices", "localizer"} <= codes
    assert not any(volume["usable"] for volume in volumes)
    (rejected,) = document["rejected"]
    assert set(rejected) == {"path", "code", "message"}
    assert rejected["path"] == "notes.txt"
    assert rejected["code"] == "not-dicom"


def _instance_number(path: Path) -> int:
    return int(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber)


def test_image_files_are_listed_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nifti(IMAGE, tmp_path / "a" / "scan.nii.gz")
    write_nifti(IMAGE, tmp_path / "b" / "scan.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros((4, 5, 6, 3), np.int16), np.eye(4)), tmp_path / "bold.nii")
    (tmp_path / "broken.nii").write_bytes(b"no header")
    document = inspected(capsys, tmp_path)
    assert {series["series_instance_uid"] for series in document["series"]} == {None}
    volumes = {series["volumes"][0]["volume_id"]: series for series in document["series"]}
    assert set(volumes) == {"a_scan", "b_scan", "bold"}
    assert volumes["a_scan"]["description"] == "a/scan.nii.gz"
    assert volumes["a_scan"]["volumes"][0]["size"] == list(SHAPE)
    assert volumes["bold"]["volumes"][0]["frames"] == 3
    assert [item["path"] for item in document["rejected"]] == ["broken.nii"]


def test_a_picture_has_columns_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pillow = pytest.importorskip("PIL.Image")
    pillow.fromarray(np.zeros((5, 9), np.uint8)).save(tmp_path / "x.png")
    (series,) = inspected(capsys, tmp_path)["series"]
    (volume,) = series["volumes"]
    assert volume["size"] == [9, 5, 1]
    assert volume["spacing_mm"] == [0, 0, 0]
    assert volume["orientation"] == ""


def test_files_of_an_archive_are_named_inside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(IMAGE, tmp_path / "study" / "a")
    (tmp_path / "study" / "notes.txt").write_text("no image")
    archive = shutil.make_archive(str(tmp_path / "cd"), "zip", tmp_path / "study")
    document = inspected(capsys, Path(archive))
    assert document["series"][0]["volumes"][0]["size"] == list(SHAPE)
    assert document["rejected"][0]["path"] == "cd.zip/notes.txt"


def test_one_file_is_inspected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(write_series(IMAGE, tmp_path / "a").iterdir())
    (series,) = inspected(capsys, file)["series"]
    (problem,) = series["volumes"][0]["problems"]
    assert problem["code"] == "too-few-slices"


def test_a_truncated_file_is_listed_with_its_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = list(write_series(IMAGE, tmp_path / "a").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:-60])
    assert '"truncated"' in json.dumps(inspected(capsys, tmp_path))


@pytest.mark.parametrize(("make", "code"), [(False, "not-found"), (True, "no-images")])
def test_nothing_there_is_exit_code_2(
    make: bool, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "input"
    if make:
        path.mkdir()
    assert inspected(capsys, path, code=2)["error"]["code"] == code


def test_an_unsafe_archive_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../out.dcm", b"x")
    error = inspected(capsys, tmp_path / "x.zip", code=2)["error"]
    assert error["code"] == "unsafe-archive"
    assert not (tmp_path.parent / "out.dcm").exists()


def test_the_table_fits_in_100_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_series(IMAGE, tmp_path / "a")
    (tmp_path / ("long-name-" * 20 + ".txt")).write_text("no image")
    assert call(["inspect", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any("9x8x7" in line for line in lines)
    assert any(line.startswith("1 volume ") for line in lines)
    assert any(line.startswith("1 path left out ") for line in lines)


def test_a_file_takes_one_line_of_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "a-cohort-of-many-patients" / "first-follow-up-visit" / "segmentations"
    write_nifti(IMAGE, folder / "adrenal_gland.nii.gz")
    assert call(["inspect", str(tmp_path)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "gland" in line)
    assert line.split()[:3] == ["adrenal_gland", "yes", "file"]
    assert line.split()[3] == "...follow-up-visit/segmentations"
    assert line.split()[4] == "9x8x7"


def test_a_folder_without_images_has_no_empty_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("no image")
    assert call(["inspect", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("0 volumes\n")
    assert "spacing" not in out


def test_the_caller_is_told_how_far_the_scan_is(tmp_path: Path) -> None:
    write_series(IMAGE, tmp_path)
    seen: list[tuple[int, int]] = []
    inspect(InspectOptions(tmp_path), progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (SHAPE[2], SHAPE[2])


@pytest.mark.parametrize("name", ["dicom", "dicom_odd", "dicom_qa", "totalseg_example"])
def test_real_folders_give_a_document(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = inspected(capsys, data_folder(name))
    volumes = [volume for series in document["series"] for volume in series["volumes"]]
    assert volumes
    for volume in volumes:
        errors = [item for item in volume["problems"] if item["severity"] == "error"]
        assert volume["usable"] is not bool(errors)
        assert len(volume["size"]) == len(volume["spacing_mm"]) == 3


def test_links_that_are_not_followed_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_series(IMAGE, tmp_path / "in" / "a")
    write_series(IMAGE, tmp_path / "elsewhere", seed=1)
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "gone").symlink_to(tmp_path / "nowhere")
    document = inspected(capsys, tmp_path / "in")
    assert len(document["series"]) == 1
    assert {(item["path"], item["code"]) for item in document["rejected"]} == {
        ("more", "link"),
        ("gone", "not-a-file"),
    }


def test_files_of_one_name_in_two_folders_stay_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two radiographs of one series, and two series without UIDs, as a CD has them."""
    for folder, value in (("a", 100), ("b", 2000)):
        picture = np.full((6, 5), value, np.uint16)
        flat = header(Modality="DX", ImagePositionPatient=None, ImageOrientationPatient=None)
        flat.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
        set_pixels(flat, picture)
        save(flat, tmp_path / "dx" / folder / "IM1")
        for k in range(4):
            ds = header(StudyInstanceUID=None, SeriesInstanceUID=None, InstanceNumber=k + 1)
            ds.ImagePositionPatient = [0, 0, 2 * k]
            set_pixels(ds, picture // (k + 1))
            (tmp_path / "ct" / folder).mkdir(parents=True, exist_ok=True)
            save(ds, tmp_path / "ct" / folder / f"IM{k}")
    (series,) = inspected(capsys, tmp_path / "dx")["series"]
    assert [volume["frames"] for volume in series["volumes"]] == [1, 1]
    both = inspected(capsys, tmp_path / "ct")["series"]
    assert [one["instances"] for one in both] == [4, 4]
    ids = {volume["volume_id"] for one in both for volume in one["volumes"]}
    assert len(ids) == 2
    codes = {item["code"] for one in both for v in one["volumes"] for item in v["problems"]}
    assert codes == {"missing-uid"}
