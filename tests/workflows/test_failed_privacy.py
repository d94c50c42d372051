"""What is said of a failed study, whose folder and files may be named after the patient."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.workflows.segment import SegmentOptions, segment
from tests.phantoms import write_nifti, write_series
from tests.toy_bundle import write_toy_bundle
from tests.workflows.test_segment import blobs

NAME = "XMARKX"


def _cut_short(folder: Path) -> None:
    for file in folder.iterdir():
        content = file.read_bytes()
        file.write_bytes(content[: len(content) - 64])


def _two_at_one_place(folder: Path) -> None:
    ds = pydicom.dcmread(min(folder.iterdir()))
    ds.SOPInstanceUID += ".1"
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.PixelData = (ds.pixel_array + np.asarray(7, ds.pixel_array.dtype)).tobytes()
    ds.save_as(folder / f"{NAME}_other")


@pytest.mark.parametrize("spoil", [_cut_short, _two_at_one_place])
@pytest.mark.parametrize("deidentify", [False, True])
def test_records_of_failed_studies_name_no_file_of_dicom(spoil, deidentify, tmp_path) -> None:
    studies = tmp_path / "in"
    folder = write_series(blobs(), studies / f"{NAME}_HANS")
    for file in list(folder.iterdir()):
        file.rename(folder / f"{NAME}_{file.name}")
    spoil(folder)
    write_nifti(blobs(), studies / "good.nii.gz")
    bundle = write_toy_bundle(tmp_path / "toy")
    out = tmp_path / "out"
    options = SegmentOptions((studies,), str(bundle), out, deidentify=deidentify)
    result = segment(options)
    assert sorted(case["status"] for case in result.cases) == ["done", "failed"]
    written = [file for file in out.rglob("*") if file.is_file()]
    assert (out / "manifest.jsonl") in written
    assert [file.name for file in written if NAME.encode() in file.read_bytes()] == []
