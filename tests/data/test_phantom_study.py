import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medseg.bundle import load_bundle
from medseg.data import phantom_study
from medseg.data.phantom_study import write_phantom_study
from medseg.errors import OutputError
from medseg.geometry import LPS_TO_RAS, axis_codes
from medseg.io.dicom import find_series, read_volume

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_phantom_study.py"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return write_phantom_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def headers(study):
    files = [path for path in study.dicom.rglob("*") if path.is_file()]
    return {path: pydicom.dcmread(path) for path in files}


def test_one_study_holds_a_scout_an_acquisition_and_a_derived_series(headers):
    assert len({header.StudyInstanceUID for header in headers.values()}) == 1
    assert len({header.FrameOfReferenceUID for header in headers.values()}) == 1
    series = {header.SeriesInstanceUID: tuple(header.ImageType) for header in headers.values()}
    assert sorted(kind[0] + "/" + kind[2] for kind in series.values()) == [
        "DERIVED/AXIAL",
        "ORIGINAL/AXIAL",
        "ORIGINAL/LOCALIZER",
    ]
    assert {str(header.PatientName) for header in headers.values()} == {"PHANTOM"}


def test_files_are_scattered_without_suffix_and_series_share_folders(study, headers):
    assert all(path.suffix == "" for path in headers)
    series_of_folder = Counter(
        (path.parent, header.SeriesInstanceUID) for path, header in headers.items()
    )
    folders = Counter(folder for folder, _ in series_of_folder)
    assert len(folders) == 3
    assert max(folders.values()) >= 2
    names = [path.name for path in study.acquired_files]
    assert names != sorted(names)


def test_exactly_one_instance_is_there_twice(study, headers):
    uids = Counter(header.SOPInstanceUID for header in headers.values())
    assert sorted(uids.values())[-2:] == [1, 2]
    assert uids[headers[study.duplicate].SOPInstanceUID] == 2


def test_the_truth_lies_on_the_acquired_grid(study, headers):
    truth = nib.load(study.truth)
    assert truth.shape == study.volume.shape
    assert truth.get_data_dtype() == np.uint8
    assert set(np.unique(truth.dataobj)) == {0, 1, 2}
    assert axis_codes(truth.affine) == "LPS"
    for k in (0, 17, 55):
        header = headers[study.acquired_files[k]]
        position = (LPS_TO_RAS @ truth.affine @ [0, 0, k, 1])[:3]
        np.testing.assert_allclose(
            [float(v) for v in header.ImagePositionPatient], position, atol=1e-3
        )
        stored = header.pixel_array.T.astype(np.int32) + int(header.RescaleIntercept)
        assert np.array_equal(stored, study.volume.array[0, :, :, k])


def test_the_acquisition_is_oblique(headers, study):
    orientation = np.array(headers[study.acquired_files[0]].ImageOrientationPatient, float)
    assert (np.sort(np.abs(orientation))[:2] > 0.05).all()


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_script_writes_the_same_study_again(study, tmp_path):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path), "--seed", "11"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "truth.nii.gz") in done.stdout
    assert digests(tmp_path / "dicom") == digests(study.dicom)
    assert np.array_equal(
        nib.load(tmp_path / "truth.nii.gz").dataobj, nib.load(study.truth).dataobj
    )


def test_another_patient_replaces_an_earlier_study_completely(tmp_path, monkeypatch):
    monkeypatch.setattr(phantom_study, "SHAPE", (36, 32, 8))
    write_phantom_study(tmp_path / "a", seed=1)
    write_phantom_study(tmp_path / "a", seed=2)
    write_phantom_study(tmp_path / "b", seed=2)
    assert digests(tmp_path / "a" / "dicom") == digests(tmp_path / "b" / "dicom")


def test_a_folder_with_other_files_is_refused_before_anything_is_written(tmp_path):
    other = tmp_path / "dicom" / "D1" / "scan.dcm"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"somebody's")
    with pytest.raises(OutputError, match=r"nothing but a phantom study.*scan\.dcm"):
        write_phantom_study(tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [other]


def test_exactly_one_volume_fits_the_phantom_bundle(study):
    rule = load_bundle("phantom_ct").input_rule
    scan = find_series(study.dicom)
    volumes = [volume for series in scan.series for volume in series.volumes]
    assert len(volumes) == 3
    fitting = [v for v in volumes if v.usable and rule.reason_against(v) is None]
    (chosen,) = fitting
    volume = read_volume(chosen)
    np.testing.assert_allclose(volume.affine, study.volume.affine, rtol=0, atol=1e-4)
    assert np.array_equal(volume.array, study.volume.array)
    codes = [problem.code for problem in chosen.problems]
    assert "duplicate-instance" in codes
