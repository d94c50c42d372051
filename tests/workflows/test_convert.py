"""`medseg convert` against nibabel and the arrays that were written."""

import gzip
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
from medseg.errors import OutputError
from medseg.volume import Volume
from medseg.workflows import convert as convert_module
from tests.phantoms import (
    in_world,
    numbered,
    oblique_affine,
    write_localizer,
    write_nifti,
    write_series,
)
from tests.real_data import data_folder

SHAPE = (9, 8, 7)


@pytest.fixture
def image() -> Volume:
    return numbered(SHAPE, oblique_affine())


@pytest.fixture
def study(tmp_path: Path, image: Volume) -> Path:
    write_series(image, tmp_path / "study" / "a")
    return tmp_path / "study"


@pytest.fixture
def two_series(study: Path, image: Volume) -> Path:
    write_series(image, study / "b", seed=1, series_number=2)
    return study


def converted(
    capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0
) -> dict[str, Any]:
    """Run the command and return its document."""
    assert call(["convert", *map(str, arguments), "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == 1
    return dict(document)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []


def assert_same_image(path: Path, image: Volume) -> None:
    found = nib.load(path)
    assert found.get_data_dtype() == np.int16
    read = Volume(np.asarray(found.dataobj)[None].astype(np.int16), found.affine)
    expected = in_world(image, found.affine)
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-3)
    np.testing.assert_array_equal(read.array, expected.array)


@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nii"])
def test_a_series_becomes_a_file_in_hounsfield_units(
    study: Path, image: Volume, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out" / name
    (volume,) = converted(capsys, study, "-o", target)["volumes"]
    assert volume["status"] == "done"
    assert volume["output"] == str(target)
    assert volume["error"] is None
    assert_same_image(target, image)
    raw = target.read_bytes()
    header = gzip.decompress(raw) if name.endswith(".gz") else raw
    assert np.frombuffer(header, "<f4", 2, 112).tolist() == [1.0, 0.0]  # scl_slope, scl_inter


def test_every_usable_series_goes_into_a_folder(
    two_series: Path, image: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volumes = converted(capsys, two_series, "-o", tmp_path / "out")["volumes"]
    assert [volume["status"] for volume in volumes] == ["done", "done"]
    assert {Path(volume["output"]) for volume in volumes} == set(files_in(tmp_path / "out"))
    for volume in volumes:
        assert Path(volume["output"]).name == f"{volume['volume_id']}.nii.gz"
        assert_same_image(Path(volume["output"]), image)


def test_one_file_for_two_usable_series_is_refused_with_the_candidates(
    two_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [v["volume_id"] for v in converted(capsys, two_series, "-o", tmp_path / "all")["volumes"]]
    target = tmp_path / "out" / "ct.nii.gz"
    error = converted(capsys, two_series, "-o", target, code=2)["error"]
    assert error["code"] == "ambiguous-volume"
    assert all(name in error["message"] for name in ids)
    assert not target.parent.exists()


@pytest.mark.parametrize("key", ["volume_id", "series_instance_uid"])
def test_series_chooses_by_hand(
    two_series: Path, tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = converted(capsys, two_series, "-o", tmp_path / "all")["volumes"]
    target = tmp_path / "ct.nii.gz"
    volumes = converted(capsys, two_series, "-o", target, "--series", listed[1][key])["volumes"]
    assert [volume["status"] for volume in volumes] == ["skipped", "done"]
    assert target.is_file()


def test_a_series_that_is_not_there_is_refused(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = converted(capsys, study, "-o", tmp_path / "x.nii", "--series", "1.2", code=2)["error"]
    assert error["code"] == "no-usable-volume"


def test_a_volume_with_a_missing_slice_fails_and_the_others_go_on(
    two_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sorted((two_series / "a").iterdir(), key=_position)[3].unlink()
    volumes = converted(capsys, two_series, "-o", tmp_path / "out", code=1)["volumes"]
    by_status = {volume["status"]: volume for volume in volumes}
    assert by_status["failed"]["error"]["code"] == "missing-slices"
    assert by_status["failed"]["output"] is None
    assert files_in(tmp_path / "out") == [Path(by_status["done"]["output"])]


def test_a_single_volume_with_a_missing_slice_is_refused_unless_regridded(
    study: Path, image: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sorted((study / "a").iterdir(), key=_position)[3].unlink()
    target = tmp_path / "ct.nii.gz"
    error = converted(capsys, study, "-o", target, code=2)["error"]
    assert error["code"] == "no-usable-volume"
    assert "missing-slices" in error["message"]
    assert "--regrid" in error["message"]
    assert not target.exists()
    (volume,) = converted(capsys, study, "-o", target, "--regrid")["volumes"]
    assert "missing-slices" in {problem["code"] for problem in volume["problems"]}
    assert nib.load(target).shape == image.shape


def _position(path: Path) -> float:
    return float(pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber)


def test_a_localizer_is_listed_and_left_out(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_localizer(study / "scout")
    volumes = converted(capsys, study, "-o", tmp_path / "out")["volumes"]
    assert sorted(volume["status"] for volume in volumes) == ["done", "skipped"]
    (skipped,) = (volume for volume in volumes if volume["status"] == "skipped")
    assert "localizer" in {problem["code"] for problem in skipped["problems"]}


def test_a_fractional_slope_is_rounded_to_whole_hounsfield_units(
    study: Path, image: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (study / "a").iterdir():
        ds = pydicom.dcmread(path)
        ds.RescaleSlope = "0.5"
        ds.save_as(path)
    target = tmp_path / "ct.nii.gz"
    (volume,) = converted(capsys, study, "-o", target)["volumes"]
    assert "rounded-hu" in {problem["code"] for problem in volume["problems"]}
    found = nib.load(target)
    assert found.get_data_dtype() == np.int16
    intercept = float(ds.RescaleIntercept)
    expected = np.rint((in_world(image, found.affine).array[0] - intercept) * 0.5 + intercept)
    np.testing.assert_array_equal(np.asarray(found.dataobj), expected)


def test_a_zip_is_converted(
    study: Path, image: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = shutil.make_archive(str(tmp_path / "study"), "zip", study)
    target = tmp_path / "ct.nii.gz"
    converted(capsys, archive, "-o", target)
    assert_same_image(target, image)


def test_an_existing_file_is_kept_without_overwrite(
    study: Path, image: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "ct.nii.gz"
    target.write_bytes(b"mine")
    error = converted(capsys, study, "-o", target, code=2)["error"]
    assert error["code"] == "output-exists"
    assert "--overwrite" in error["message"]
    assert target.read_bytes() == b"mine"
    converted(capsys, study, "-o", target, "--overwrite")
    assert_same_image(target, image)


def test_files_hold_no_identifiers(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    converted(capsys, study, "-o", tmp_path / "ct.nii")
    ds = pydicom.dcmread(next((study / "a").iterdir()))
    contents = (tmp_path / "ct.nii").read_bytes()
    for value in (str(ds.PatientName), ds.PatientID, ds.SeriesInstanceUID, ds.StudyInstanceUID):
        assert value
        assert str(value).encode() not in contents


def test_another_image_format_is_converted(
    image: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_nifti(image, tmp_path / "in" / "scan.nii.gz")
    (volume,) = converted(capsys, source, "-o", tmp_path / "out.nii")["volumes"]
    assert volume["series_instance_uid"] is None
    assert volume["volume_id"] == "scan"
    np.testing.assert_array_equal(
        np.asarray(nib.load(tmp_path / "out.nii").dataobj), image.array[0]
    )


def test_a_4d_file_stays_4d(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    array = np.arange(4 * 5 * 6 * 3, dtype=np.int16).reshape(4, 5, 6, 3)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "bold.nii.gz")
    converted(capsys, tmp_path / "bold.nii.gz", "-o", tmp_path / "out.nii")
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "out.nii").dataobj), array)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".png"])
def test_an_output_that_is_no_nifti_is_refused(
    study: Path, tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / f"ct{suffix}"
    assert converted(capsys, study, "-o", target, code=2)["error"]["code"] == "usage"
    assert not target.exists()


def test_a_full_disk_fails_the_volume_and_leaves_nothing(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(volume: Volume, path: Path) -> None:  # noqa: ARG001
        msg = "no space."
        raise OutputError(msg, code="disk-full")

    monkeypatch.setattr(convert_module, "write_nifti_image", full)
    (volume,) = converted(capsys, study, "-o", tmp_path / "out", code=1)["volumes"]
    assert volume["error"] == {"code": "disk-full", "message": "no space."}
    assert files_in(tmp_path / "out") == []


def test_a_folder_that_cannot_be_made_fails_the_volume(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "ct.nii.gz"
    (volume,) = converted(capsys, study, "-o", target, code=1)["volumes"]
    assert volume["error"]["code"] == "output"


def _folder_of_text(folder: Path) -> Path:
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    return folder


def _truncated(folder: Path) -> Path:
    write_series(numbered(SHAPE), folder)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-60])
    return folder


def _without_pixels(folder: Path) -> Path:
    write_series(numbered(SHAPE), folder)
    for path in folder.iterdir():
        ds = pydicom.dcmread(path)
        del ds.PixelData
        ds.save_as(path)
    return folder


def _climbing_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../out.dcm", b"x")
    return path


def _bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.dcm", bytes(80 << 20))
    return path


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path, "not-found"),
        (_empty, "no-images"),
        (_folder_of_text, "no-images"),
        (_truncated, "no-usable-volume"),
        (_without_pixels, "no-usable-volume"),
        (_climbing_zip, "unsafe-archive"),
        (_bomb, "zip-bomb"),
    ],
    ids=["no file", "empty folder", "text", "truncated", "no pixels", "zip with ../", "zip bomb"],
)
@pytest.mark.parametrize("output", ["out", "out.nii.gz"])
def test_bad_input_is_refused_and_nothing_is_written(
    make: Any, code: str, output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "input.zip" if "zip" in getattr(make, "__name__", "") or make is _bomb else "input"
    path = make(tmp_path / name)
    error = converted(capsys, path, "-o", tmp_path / output, code=2)["error"]
    assert error["code"] == code
    assert not (tmp_path / output).exists()


def test_real_4d_series_becomes_one_4d_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data_folder("dicom_qa")
    inspected = _inspect(folder, capsys)
    volumes = [volume for series in inspected["series"] for volume in series["volumes"]]
    volume = next(v for v in volumes if v["frames"] > 1 and v["usable"])
    target = tmp_path / "bold.nii.gz"
    converted(capsys, folder, "-o", target, "--series", volume["volume_id"])
    assert nib.load(target).shape == (*volume["size"], volume["frames"])


def _inspect(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert call(["inspect", str(path), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_files_of_an_earlier_run_are_not_converted_again(
    two_series: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nifti(numbered((4, 5, 6), np.eye(4)), tmp_path / "images" / "a.nii")
    for _ in range(2):
        for folder, count in ((two_series, 2), (tmp_path / "images", 1)):
            output = folder / "nifti"
            volumes = converted(capsys, folder, "-o", output, "--overwrite")["volumes"]
            assert len(volumes) == len(files_in(output)) == count
