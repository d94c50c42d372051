"""De-identified objects: nothing of the source but pixels and geometry, and still valid."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medseg.io.dicom.deidentify import EMPTIED, KEPT, Deidentifier
from medseg.io.dicom.derived import Made, save_object
from medseg.io.dicom.measurements import measurement_report
from medseg.io.dicom.pdf import encapsulated_pdf
from medseg.io.dicom.rtstruct import structure_set
from medseg.io.dicom.secondary_capture import secondary_capture
from medseg.io.dicom.seg_write import reference_to, segmentation_object
from medseg.volume import Segmentation
from tests.io.dicom.made import (
    MADE_BY,
    REAL,
    ct_volume,
    said,
    segmented,
    statistics_of,
    volume_of,
)
from tests.io.dicom.synthetic import PLANTED, STUDY
from tests.real_data import data_folder

DRAWN = np.zeros((8, 9, 3), np.uint8)


def objects_of(segmentation: Segmentation) -> dict[str, Made]:
    """Return every object that is made of a segmentation."""
    seg = segmentation_object(segmentation, MADE_BY)
    made = {
        "seg": seg,
        "seg-labelmap": segmentation_object(segmentation, MADE_BY, "labelmap"),
        "pdf": encapsulated_pdf(b"%PDF-1.4 of nobody", segmentation.source, MADE_BY),
        "sc": secondary_capture(DRAWN, segmentation.source, MADE_BY),
        "sr": measurement_report(
            segmentation, statistics_of(segmentation), MADE_BY, seg=reference_to(seg)
        ),
    }
    if segmentation.array.ndim == 3:
        made["rtstruct"] = structure_set(segmentation, MADE_BY)
    return made


def uids_of(dataset: Dataset) -> set[str]:
    """Return all UIDs of an object that the standard does not define."""
    found: set[str] = set()
    for element in dataset.iterall():
        if element.VR == "UI" and element.value:
            found |= {str(v) for v in (element.value if element.VM > 1 else [element.value])}
    return {uid for uid in found if not uid.startswith("1.2.840.10008.")}


def test_objects_of_a_run_go_on_referring_to_each_other(tmp_path: Path) -> None:
    segmentation = segmented(ct_volume(tmp_path / "in"))
    made = objects_of(segmentation)
    before = {kind: uids_of(one.dataset) for kind, one in made.items()}
    clean = Deidentifier()
    for kind, one in made.items():
        clean(one.dataset)
        save_object(one.dataset, tmp_path / f"{kind}.dcm")
    back = {kind: pydicom.dcmread(tmp_path / f"{kind}.dcm") for kind in made}
    sources = [pydicom.dcmread(path) for path in segmentation.source.instances]
    for kind, ds in back.items():
        assert uids_of(ds) == {clean.uid(uid) for uid in before[kind]}
        assert ds.StudyInstanceUID == clean.uid(STUDY) != STUDY
        assert ds.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
        assert {clean.uid(source.SOPInstanceUID) for source in sources} <= uids_of(ds)
        assert ds.PatientIdentityRemoved == "YES"
        [method] = ds.DeidentificationMethodCodeSequence
        assert Code(method.CodeValue, method.CodingSchemeDesignator, method.CodeMeaning) == (
            codes.DCM.BasicApplicationConfidentialityProfile
        )
        assert ds.PatientID == back["seg"].PatientID != PLANTED[1]
        assert ds.PatientName == ds.PatientID.replace("-", "^")
        assert not ds.get("StudyDate")
        assert "SeriesDate" not in ds
    assert back["seg"].FrameOfReferenceUID == clean.uid(sources[0].FrameOfReferenceUID)
    group = hd.sr.srread(tmp_path / "sr.dcm").content.get_volumetric_roi_measurement_groups()[0]
    segment = group.referenced_segment
    assert segment.referenced_sop_instance_uid == back["seg"].SOPInstanceUID
    assert group.tracking_uid == back["seg"].SegmentSequence[0].TrackingUID


def test_pixels_and_geometry_stay(tmp_path: Path) -> None:
    segmentation = segmented(ct_volume(tmp_path / "in"))
    for kind, one in objects_of(segmentation).items():
        save_object(one.dataset, tmp_path / "before.dcm")
        Deidentifier()(one.dataset)
        save_object(one.dataset, tmp_path / "after.dcm")
        before, after = (pydicom.dcmread(tmp_path / f"{n}.dcm") for n in ("before", "after"))
        for keyword in (
            *("PixelData", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
            *("ContourData", "NumericValue", "SegmentLabel", "ReferencedSegmentNumber"),
            "EncapsulatedDocument",
        ):
            assert values_of(after, keyword) == values_of(before, keyword), (kind, keyword)


def values_of(dataset: Dataset, keyword: str) -> list[Any]:
    """Return all values of an attribute, at any depth."""
    return [element.value for element in dataset.iterall() if element.keyword == keyword]


def test_two_runs_have_nothing_in_common(tmp_path: Path) -> None:
    one, other = Deidentifier(), Deidentifier()
    assert one.uid("1.2.3") != other.uid("1.2.3")
    assert one.uid("1.2.3") == one.uid("1.2.3")
    segmentation = segmented(ct_volume(tmp_path / "in"))
    patients = []
    for clean in (one, other):
        dataset = secondary_capture(DRAWN, segmentation.source, MADE_BY).dataset
        clean(dataset)
        patients.append(dataset.PatientID)
    assert patients[0] != patients[1]


@pytest.mark.parametrize("told_apart_by", ["PatientID", "PatientName", "StudyInstanceUID"])
def test_patients_stay_apart(tmp_path: Path, told_apart_by: str) -> None:
    clean, patients = Deidentifier(), []
    for value in ("1.2.3", "1.2.4", "1.2.3"):
        unknown = {"PatientID": None, "PatientName": None, told_apart_by: value}
        folder = tmp_path / str(len(patients))
        dataset = secondary_capture(DRAWN, ct_volume(folder, **unknown).source, MADE_BY).dataset
        clean(dataset)
        patients.append(dataset.PatientID)
    assert patients[0] == patients[2] != patients[1]


def test_what_nobody_foresaw_goes_too(tmp_path: Path) -> None:
    dataset = secondary_capture(DRAWN, ct_volume(tmp_path).source, MADE_BY).dataset
    unforeseen = Dataset()
    unforeseen.RetrieveAETitle = "MARKER"
    dataset.ReferencedPatientSequence = [unforeseen]
    dataset.FillerOrderNumberImagingServiceRequest = "MARKER"
    dataset.PatientWeight = 81.5
    dataset.add_new((0x0009, 0x0010), "LO", "MARKER")
    dataset.add_new((0x0009, 0x1001), "UN", b"MARKER")
    dataset.SourceImageSequence[0].add_new((0x0011, 0x1001), "LO", "MARKER")
    Deidentifier()(dataset)
    save_object(dataset, tmp_path / "out.dcm")
    assert b"MARKER" not in (tmp_path / "out.dcm").read_bytes()
    assert "PatientWeight" not in dataset


def test_what_is_kept_exists_and_is_emptied_by_none() -> None:
    names = {pydicom.datadict.keyword_for_tag(tag) for tag in pydicom.datadict.DicomDictionary}
    assert names >= KEPT
    assert names >= EMPTIED
    assert not KEPT & EMPTIED


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy is not installed")
@pytest.mark.parametrize("name", REAL)
def test_a_validator_finds_nothing_that_is_not_in_the_source(tmp_path: Path, name: str) -> None:
    first, _, rest = name.partition("/")
    volume = volume_of(data_folder(first) / rest)
    known = said(volume.source.details["slices"][0]["path"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = objects_of(segmented(volume))
        for kind, one in made.items():
            Deidentifier()(one.dataset)
            save_object(one.dataset, tmp_path / f"{kind}.dcm")
    for kind in made.keys() - {"seg-labelmap"}:  # which it does not know
        assert said(tmp_path / f"{kind}.dcm") - known == set(), kind
