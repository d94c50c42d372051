"""The hippocampus bundle on real MRI: DICOM and NIfTI, held-out cases with hand-drawn labels."""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.bundle import load_bundle
from medseg.geometry import apply_affine, corners
from medseg.io.nifti import write_nifti_image
from medseg.io.read import read
from medseg.workflows.evaluate import EvaluateOptions, evaluate
from medseg.workflows.segment import SegmentOptions, segment
from tests.real_data import data_folder

BUNDLE = Path(__file__).parents[2] / "bundles" / "hippocampus_mri"

pytestmark = pytest.mark.skipif(
    not (BUNDLE / "models" / "model.pt").is_file(), reason="hippocampus_mri is not trained"
)


def run(output: Path, *inputs: Path, **options):
    return segment(SegmentOptions(inputs, str(BUNDLE), output, outputs=("nifti",), **options))


@pytest.fixture(scope="module")
def from_dicom(tmp_path_factory):
    series = data_folder("dicom/Study3/11_HCropVolume")
    result = run(tmp_path_factory.mktemp("dicom"), series)
    return series, result.cases[0]


def test_a_real_dicom_series_gets_a_mask_on_its_own_grid(from_dicom) -> None:
    series, case = from_dicom
    assert (case["status"], case["case"][:5]) == ("done", "MR_0_")
    mask, volume = nib.load(case["outputs"]["nifti"]), read(series)
    assert mask.shape == volume.shape
    assert np.abs(mask.affine - volume.affine).max() < 1e-4
    for label in case["labels"]:
        assert 0.8 < label["volume_ml"] < 4.0, "an adult's half hippocampus is 1 to 2.5 ml"
        assert label["components"] <= 2


def test_head_and_tail_lie_where_the_patient_has_them(from_dicom) -> None:
    _, case = from_dicom
    mask = nib.load(case["outputs"]["nifti"])
    centres = [
        apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) == index)).mean(0)
        for index in (1, 2)
    ]
    assert centres[0][1] - centres[1][1] > 8, "the anterior part lies in front, by millimetres"


def test_converted_to_nifti_it_gets_the_same_mask(from_dicom, tmp_path) -> None:
    series, case = from_dicom
    write_nifti_image(read(series), tmp_path / "converted.nii.gz")
    again = run(tmp_path / "out", tmp_path / "converted.nii.gz").cases[0]
    first, second = (np.asarray(nib.load(c["outputs"]["nifti"]).dataobj) for c in (case, again))
    assert (first == second).mean() > 0.9999


@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR"])
def test_stored_in_another_axis_order_it_gets_the_same_mask(from_dicom, tmp_path, codes) -> None:
    series, case = from_dicom
    write_nifti_image(read(series), tmp_path / "converted.nii.gz")
    image = nib.load(tmp_path / "converted.nii.gz")
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(codes)
    )
    nib.save(image.as_reoriented(turn), tmp_path / "turned.nii.gz")
    again = nib.load(run(tmp_path / "out", tmp_path / "turned.nii.gz").cases[0]["outputs"]["nifti"])
    first = nib.load(case["outputs"]["nifti"]).as_reoriented(turn)
    assert np.abs(first.affine - again.affine).max() < 1e-4
    assert (np.asarray(first.dataobj) == np.asarray(again.dataobj)).mean() > 0.9999


def test_of_a_study_with_two_series_the_fitting_one_is_taken(tmp_path) -> None:
    result = run(tmp_path, data_folder("dicom/Study3"))
    assert [case["case"] for case in result.cases] == ["MR_0_e95ab9fa"]


def test_held_out_cases_score_as_the_card_says(tmp_path) -> None:
    dataset = data_folder("Task04_Hippocampus")
    split = json.loads((BUNDLE / "configs" / "splits.json").read_text())["folds"][0]
    names = split["validation"][::11]
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        for name in names:
            shutil.copy(dataset / f"{folder}Tr" / f"{name}.nii.gz", tmp_path / folder)
    assert run(tmp_path / "out", tmp_path / "images").exit_code == 0
    scores = evaluate(EvaluateOptions(tmp_path / "out", tmp_path / "labels")).as_json()
    stated = load_bundle(BUNDLE).metadata["eval_metrics"]
    for label in ("anterior", "posterior"):
        dice = scores["labels"][label]["dice"]
        assert dice > stated[f"{label}_dice"] - 0.05, "four cases scatter around the mean of 44"


def test_the_mask_fits_within_the_field_of_view(from_dicom) -> None:
    series, case = from_dicom
    mask, volume = nib.load(case["outputs"]["nifti"]), read(series)
    inside = apply_affine(mask.affine, np.argwhere(np.asarray(mask.dataobj) > 0))
    bounds = apply_affine(volume.affine, corners(volume.shape))
    assert (inside >= bounds.min(0) - 1e-3).all()
    assert (inside <= bounds.max(0) + 1e-3).all()
