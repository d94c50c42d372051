"""Secondary Capture: read back with pydicom and highdicom, and judged by dciodvfy."""

import datetime
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medseg.errors import DicomError
from medseg.io.dicom.derived import save_object
from medseg.io.dicom.secondary_capture import secondary_capture
from medseg.volume import Source
from tests.io.dicom.made import MADE_BY, REAL, ct_volume, picture, said, volume_of
from tests.io.dicom.synthetic import PLANTED, STUDY
from tests.real_data import data_folder

DRAWN = np.random.default_rng(0).integers(0, 256, (31, 47, 3), np.uint8)


def test_the_picture_comes_back_in_the_study_of_its_source(tmp_path: Path) -> None:
    volume = ct_volume(tmp_path / "in", LossyImageCompression="01", LossyImageCompressionRatio=9)
    when = datetime.datetime(2020, 1, 2, 3, 4, 5)  # DICOM's is local
    made = secondary_capture(DRAWN, volume.source, MADE_BY, made_at=when)
    assert made.problems == ()
    save_object(made.dataset, tmp_path / "sc.dcm")
    back = pydicom.dcmread(tmp_path / "sc.dcm")
    np.testing.assert_array_equal(back.pixel_array, DRAWN)
    assert back.PhotometricInterpretation == "RGB"
    assert (back.PatientName, back.PatientID) == PLANTED[:2]
    assert back.StudyInstanceUID == STUDY
    assert back.SeriesNumber == 8003
    assert back.BurnedInAnnotation == "NO"
    assert back.ConversionType == "WSD"
    assert back.DerivationDescription.endswith("bundle 1.2.3, weights_sha256 0123abcd")
    assert (back.LossyImageCompression, back.LossyImageCompressionRatio) == ("01", 9)
    assert back.ContentDate == back.SeriesDate == back.InstanceCreationDate == "20200102"
    assert back.ContentTime == back.SeriesTime == back.InstanceCreationTime == "030405"
    sources = {pydicom.dcmread(path).SOPInstanceUID for path in volume.source.instances}
    assert {one.ReferencedSOPInstanceUID for one in back.SourceImageSequence} == sources
    again = secondary_capture(DRAWN, volume.source, MADE_BY).dataset
    assert again.SeriesInstanceUID != back.SeriesInstanceUID
    assert again.SOPInstanceUID != back.SOPInstanceUID


def test_of_a_picture_too(tmp_path: Path) -> None:
    source = picture(tmp_path, SeriesNumber=None).source
    made = secondary_capture(DRAWN, source, MADE_BY)
    assert made.dataset.SeriesNumber == 8000
    assert len(made.dataset.SourceImageSequence) == 1


def test_a_source_that_is_no_dicom_and_a_picture_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="DICOM files") as caught:
        secondary_capture(DRAWN, Source("nifti"), MADE_BY)
    assert caught.value.code == "no-dicom-source"
    with pytest.raises(ValueError, match="rows, columns, 3"):
        secondary_capture(DRAWN[..., 0], ct_volume(tmp_path).source, MADE_BY)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
@pytest.mark.parametrize("name", REAL)
def test_a_validator_finds_nothing_that_is_not_in_the_source(tmp_path: Path, name: str) -> None:
    first, _, rest = name.partition("/")
    volume = volume_of(data_folder(first) / rest)
    made = secondary_capture(DRAWN, volume.source, MADE_BY)
    save_object(made.dataset, tmp_path / "sc.dcm")
    assert said(tmp_path / "sc.dcm") - said(volume.source.details["slices"][0]["path"]) == set()
