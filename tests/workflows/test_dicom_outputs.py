"""DICOM SEG as an output of a run."""

from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from medseg.io.dicom import find_series
from medseg.io.dicom.segmentation import read_segmentation
from medseg.io.masks import read_mask
from medseg.report.labels import label_statistics
from medseg.workflows.dicom_outputs import DICOM_OUTPUTS, write_dicom
from medseg.workflows.outputs import PROBABILITIES, SOLIDS
from medseg.workflows.segment import SegmentOptions, segment
from tests.io.dicom.made import picture as radiograph
from tests.io.dicom.synthetic import ct_pixels, write_series
from tests.phantoms import numbered, oblique_affine, write_nifti
from tests.toy_bundle import write_toy_bundle
from tests.workflows.test_object_outputs import picture as picture_of_objects


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_toy_bundle(tmp_path / "toy")


def test_a_seg_holds_the_voxels_of_the_mask(tmp_path: Path, bundle: Path) -> None:
    write_series(tmp_path / "in", ct_pixels(7))
    outputs = ("nifti", "seg", "seg-labelmap", "report")
    options = SegmentOptions((tmp_path / "in",), str(bundle), tmp_path / "out", outputs=outputs)
    (case,) = segment(options).cases
    assert case["status"] == "done"
    mask = read_mask(Path(case["outputs"]["nifti"])).array[0]
    ((volume,),) = (series.volumes for series in find_series(tmp_path / "in").series)
    names = {label["name"]: (label["index"],) for label in case["labels"]}
    back = read_segmentation(Path(case["outputs"]["seg"]), volume, names).array[0]
    assert mask.any()
    np.testing.assert_array_equal(back, mask)
    made = pydicom.dcmread(case["outputs"]["seg-labelmap"])
    np.testing.assert_array_equal(np.unique(made.pixel_array), np.unique(mask))
    assert made.ManufacturerModelName == "toy"
    assert case["warnings"] == []
    again = segment(
        SegmentOptions(
            (tmp_path / "in",), str(bundle), tmp_path / "out", outputs=outputs, resume=True
        )
    )
    assert again.cases[0]["status"] == "skipped"
    assert again.cases[0]["warnings"] == case["warnings"]


def test_all_objects_of_a_case_are_of_one_time_and_of_a_series_each(
    tmp_path: Path, bundle: Path
) -> None:
    write_series(tmp_path / "in", ct_pixels(7))
    outputs = ("nifti", *reversed(DICOM_OUTPUTS))  # made in an order of their own
    options = SegmentOptions((tmp_path / "in",), str(bundle), tmp_path / "out", outputs=outputs)
    (case,) = segment(options).cases
    assert case["status"] == "done"
    made = {kind: pydicom.dcmread(case["outputs"][kind]) for kind in DICOM_OUTPUTS}
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID", "SeriesNumber"):
        assert len({ds[keyword].value for ds in made.values()}) == len(made)
    for keyword in ("SeriesDate", "SeriesTime", "InstanceCreationTime", "SeriesDescription"):
        assert len({ds[keyword].value for ds in made.values()}) == 1
    for keyword in ("StudyInstanceUID", "PatientName", "PatientID", "Manufacturer"):
        assert len({ds[keyword].value for ds in made.values()}) == 1
    group = hd.sr.srread(case["outputs"]["sr"]).content.get_volumetric_roi_measurement_groups()[0]
    assert group.referenced_segment.referenced_sop_instance_uid == made["seg"].SOPInstanceUID
    volume = group.get_measurements(name=codes.SCT.Volume)[0].value
    assert volume == case["labels"][0]["volume_ml"] > 0


def test_a_seg_of_no_dicom_fails_before_any_compute(tmp_path: Path, bundle: Path) -> None:
    source = write_nifti(numbered((9, 8, 7), oblique_affine()), tmp_path / "a.nii.gz")
    options = SegmentOptions((source,), str(bundle), tmp_path / "out", outputs=("nifti", "seg"))
    (case,) = segment(options).cases
    assert case["error"]["code"] == "no-dicom-source"
    assert not list((tmp_path / "out").glob("a*"))


def test_of_objects_the_dicom_outputs_hold_the_classes(tmp_path: Path) -> None:
    image = radiograph(tmp_path / "in", rows=60, columns=80)
    _, found = picture_of_objects()
    found = replace(found, affine=image.affine, source=image.source)
    statistics = label_statistics(found)
    outputs = [kind for kind in DICOM_OUTPUTS if kind not in (*SOLIDS, *PROBABILITIES)]
    context = {"bundle": {"name": "x", "version": "1"}, "warnings": []}
    files, _ = write_dicom(tmp_path, (image, found), outputs, statistics, context)
    assert list(files) == outputs
    seg = pydicom.dcmread(tmp_path / files["seg"])
    np.testing.assert_array_equal(
        seg.pixel_array, np.stack([found.array == label.index for label in found.labels])
    )
    groups = hd.sr.srread(tmp_path / files["sr"]).content.get_image_measurement_groups()
    areas = [group.get_measurements(name=codes.SCT.Area)[0].value for group in groups]
    assert areas == [row["voxels"] * 0.125 for row in statistics]
