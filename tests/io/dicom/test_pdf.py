"""Encapsulated PDF: the document comes back byte by byte, and dciodvfy has nothing to say."""

import shutil
from pathlib import Path

import pydicom
import pytest

from medseg.errors import DicomError
from medseg.io.dicom.derived import save_object
from medseg.io.dicom.pdf import encapsulated_pdf
from medseg.volume import Source
from tests.io.dicom.made import MADE_BY, REAL, ct_volume, said, volume_of
from tests.io.dicom.synthetic import PLANTED, STUDY
from tests.real_data import data_folder


@pytest.mark.parametrize("document", [b"%PDF-1.4 odd", b"%PDF-1.4 even"])
def test_the_document_comes_back_in_the_study_of_its_source(
    tmp_path: Path, document: bytes
) -> None:
    volume = ct_volume(tmp_path / "in")
    made = encapsulated_pdf(document, volume.source, MADE_BY)
    assert made.problems == ()
    save_object(made.dataset, tmp_path / "pdf.dcm")
    back = pydicom.dcmread(tmp_path / "pdf.dcm")
    assert back.SOPClassUID == "1.2.840.10008.5.1.4.1.1.104.1"
    assert back.EncapsulatedDocument[: back.EncapsulatedDocumentLength] == document
    assert back.MIMETypeOfEncapsulatedDocument == "application/pdf"
    assert back.DocumentTitle == "Segmentation by bundle"
    assert back.BurnedInAnnotation == "NO"
    assert (back.PatientName, back.PatientID, back.StudyInstanceUID) == (*PLANTED[:2], STUDY)
    sources = {pydicom.dcmread(path).SOPInstanceUID for path in volume.source.instances}
    assert {one.ReferencedSOPInstanceUID for one in back.SourceInstanceSequence} == sources


def test_what_is_no_pdf_or_of_no_dicom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="DICOM files"):
        encapsulated_pdf(b"%PDF-1.4", Source("nifti"), MADE_BY)
    with pytest.raises(ValueError, match="must be PDF"):
        encapsulated_pdf(b"PK", ct_volume(tmp_path).source, MADE_BY)


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
@pytest.mark.parametrize("name", REAL)
def test_a_validator_finds_nothing_that_is_not_in_the_source(tmp_path: Path, name: str) -> None:
    first, _, rest = name.partition("/")
    volume = volume_of(data_folder(first) / rest)
    made = encapsulated_pdf(b"%PDF-1.4", volume.source, MADE_BY)
    save_object(made.dataset, tmp_path / "pdf.dcm")
    assert said(tmp_path / "pdf.dcm") - said(volume.source.details["slices"][0]["path"]) == set()
