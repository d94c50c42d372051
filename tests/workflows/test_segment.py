"""segment: masks line up, a bad case does not stop the others, nothing is half-written."""

import errno
import json
import re
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from medseg.errors import BundleError, ChoiceError, InputError, OutputError, UsageError
from medseg.io.read import read
from medseg.volume import Volume
from medseg.workflows import results
from medseg.workflows.dicom_outputs import DICOM_FILES
from medseg.workflows.object_outputs import OBJECT_FILES
from medseg.workflows.segment import SegmentOptions, segment
from tests.phantoms import oblique_affine, oriented_affine, write_nifti, write_series
from tests.real_data import data_folder
from tests.toy_bundle import THRESHOLDS, write_toy_bundle

SHAPE = (21, 18, 13)
LISTS = {"manifest.jsonl", "cases.csv"}
"""What a run leaves where no case is done."""


def blobs(affine=None, *, seed: int = 0) -> Volume:
    """A volume of air with a box for each label, and one stray voxel."""
    array = np.full((1, *SHAPE), -900, np.int16)
    array[0, 3:9, 4:12, 2:8] = 150
    array[0, 5:7, 6:9, 3:6] = 250
    array[0, 18, 2, 11] = 120 + seed
    return Volume(array, oblique_affine() if affine is None else affine)


def files_in(folder: Path) -> set[str]:
    """Return what a folder holds, by name."""
    return {path.name for path in folder.iterdir()}


def expected_mask(volume: Volume) -> np.ndarray:
    return np.digitize(volume.array[0], THRESHOLDS).astype(np.uint8)


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_toy_bundle(tmp_path / "toy")


@pytest.fixture
def ct_bundle(tmp_path) -> Path:
    return write_toy_bundle(tmp_path / "toy_ct", modality=("CT",), rule={"min_slices": 4})


def run(bundle: Path, output: Path, *inputs: Path, **options):
    return segment(SegmentOptions(inputs, str(bundle), output, **options))


def test_the_mask_of_a_nifti_lines_up_voxel_for_voxel(tmp_path, bundle) -> None:
    volume = blobs()
    source = write_nifti(volume, tmp_path / "in" / "knee.nii.gz", code=3)
    result = run(bundle, tmp_path / "out", source)
    assert result.exit_code == 0
    case = result.cases[0]
    assert (case["case"], case["status"], case["error"]) == ("knee", "done", None)
    mask = nib.load(tmp_path / "out" / "knee" / "segmentation.nii.gz")
    original = nib.load(source)
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(mask.dataobj), expected_mask(volume))
    for name in ("sform", "qform"):
        assert np.array_equal(getattr(mask, f"get_{name}")(), getattr(original, f"get_{name}")())
        assert mask.header[f"{name}_code"] == original.header[f"{name}_code"] == 3


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SAL"])
def test_the_mask_of_a_dicom_series_lines_up_in_the_patient(tmp_path, ct_bundle, codes) -> None:
    volume = blobs(oblique_affine(codes))
    write_series(volume, tmp_path / "in")
    result = run(ct_bundle, tmp_path / "out", tmp_path / "in")
    case = result.cases[0]
    assert case["status"] == "done"
    assert case["case"].startswith("CT_1_")
    mask = nib.load(case["outputs"]["nifti"])
    assert mask.header["sform_code"] == mask.header["qform_code"] == 1
    # every labelled voxel, put in the patient by the mask's own affine, is one in the phantom
    found = np.argwhere(np.asarray(mask.dataobj) == 2) @ mask.affine[:3, :3].T + mask.affine[:3, 3]
    truth = np.argwhere(expected_mask(volume) == 2)
    truth = truth @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    order = [np.lexsort(np.round(points, 2).T) for points in (found, truth)]
    assert np.abs(found[order[0]] - truth[order[1]]).max() < 1e-3
    assert np.array_equal(np.bincount(np.asarray(mask.dataobj).ravel()),
                          np.bincount(expected_mask(volume).ravel()))  # fmt: skip


def test_a_mask_from_another_spacing_comes_back_on_the_source_grid(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", spacing_mm=[1.0, 1.0, 1.0])
    volume = blobs(oriented_affine("LPS", (0.7, 0.9, 2.0)))
    # each threshold lies halfway between two levels, so interpolation keeps the edges in place
    volume = replace(volume, array=np.maximum(volume.array, 50))
    source = write_nifti(volume, tmp_path / "scan.nii")
    run(bundle, tmp_path / "out", source)
    mask = np.asarray(nib.load(tmp_path / "out" / "scan" / "segmentation.nii.gz").dataobj)
    truth = expected_mask(volume)
    assert mask.shape == SHAPE
    dice = 2 * ((mask > 0) & (truth > 0)).sum() / ((mask > 0).sum() + (truth > 0).sum())
    assert dice > 0.9
    centre = [np.argwhere(array == 2).mean(0) for array in (mask, truth)]
    assert np.abs(centre[0] - centre[1]).max() < 0.3


def test_labels_are_counted_in_the_record(tmp_path, bundle) -> None:
    source = write_nifti(blobs(np.diag([2.0, 2, 2, 1])), tmp_path / "a.nii.gz")
    labels = run(bundle, tmp_path / "out", source).cases[0]["labels"]
    assert [label["name"] for label in labels] == ["organ", "tumour"]
    assert labels[0]["voxels"] == 6 * 8 * 6 - 18 + 1
    assert labels[0]["components"] == 2
    assert labels[1]["volume_ml"] == pytest.approx(18 * 0.008)
    assert labels[1]["touches_border"] is False


def test_only_the_labels_asked_for_are_kept(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    result = run(bundle, tmp_path / "out", source, labels=("tumour",))
    mask = np.asarray(nib.load(result.cases[0]["outputs"]["nifti"]).dataobj)
    assert sorted(np.unique(mask)) == [0, 2]
    assert [label["name"] for label in result.cases[0]["labels"]] == ["tumour"]


def test_equal_stems_get_their_folders_prepended(tmp_path, bundle) -> None:
    for name in ("one", "two"):
        write_nifti(blobs(), tmp_path / "in" / name / "scan.nii.gz")
    result = run(bundle, tmp_path / "out", tmp_path / "in")
    assert [case["case"] for case in result.cases] == ["one_scan", "two_scan"]


def test_a_failing_case_does_not_stop_the_others(tmp_path, bundle) -> None:
    write_nifti(blobs(), tmp_path / "in" / "a.nii.gz")
    (tmp_path / "in" / "b.nii.gz").write_bytes(b"no image")
    write_nifti(blobs(), tmp_path / "in" / "c.nii.gz")
    result = run(bundle, tmp_path / "out", tmp_path / "in")
    assert [case["status"] for case in result.cases] == ["done", "failed", "done"]
    assert result.exit_code == 1
    assert not (tmp_path / "out" / "b").exists()
    json.dumps(result.as_json(), allow_nan=False)


def test_two_fitting_volumes_of_the_only_study_are_refused(tmp_path, ct_bundle) -> None:
    write_series(blobs(), tmp_path / "in" / "1", seed=1, series_number=1)
    write_series(blobs(seed=5), tmp_path / "in" / "2", seed=1, series_number=2)
    with pytest.raises(ChoiceError, match="--series") as caught:
        run(ct_bundle, tmp_path / "out", tmp_path / "in")
    assert caught.value.code == "ambiguous-volume"
    assert not (tmp_path / "out").exists()


def test_an_ambiguous_study_of_a_batch_is_one_failed_case(tmp_path, ct_bundle) -> None:
    write_series(blobs(), tmp_path / "in" / "1", seed=1, series_number=1)
    write_series(blobs(seed=5), tmp_path / "in" / "2", seed=1, series_number=2)
    write_series(blobs(), tmp_path / "in" / "3", seed=2)
    result = run(ct_bundle, tmp_path / "out", tmp_path / "in")
    statuses = sorted((case["status"], (case["error"] or {}).get("code")) for case in result.cases)
    assert statuses == [("done", None), ("failed", "ambiguous-volume")]
    assert result.exit_code == 1


def test_a_series_is_chosen_by_hand(tmp_path, ct_bundle) -> None:
    write_series(blobs(), tmp_path / "in" / "1", seed=1, series_number=1)
    write_series(blobs(seed=5), tmp_path / "in" / "2", seed=1, series_number=2)
    every = run(ct_bundle, tmp_path / "all", tmp_path / "in", series="all")
    assert [case["status"] for case in every.cases] == ["done", "done"]
    name = every.cases[1]["case"]
    one = run(ct_bundle, tmp_path / "one", tmp_path / "in", series=name)
    assert [case["case"] for case in one.cases] == [name]


def _label_as_derived(files: list[Path]) -> None:
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
        dataset.save_as(file)


def test_an_original_is_taken_before_a_derived_series(tmp_path, ct_bundle) -> None:
    write_series(blobs(), tmp_path / "in" / "1", seed=1, series_number=1)
    write_series(blobs(seed=5), tmp_path / "in" / "2", seed=1, series_number=2)
    _label_as_derived(list((tmp_path / "in" / "1").iterdir()))
    case = run(ct_bundle, tmp_path / "out", tmp_path / "in").cases[0]
    assert case["case"].startswith("CT_2_")
    assert [warning["code"] for warning in case["warnings"]] == ["preferred-volume"]


def test_half_a_series_is_never_preferred_to_its_other_half(tmp_path, ct_bundle) -> None:
    files = sorted(
        write_series(blobs(), tmp_path / "in").iterdir(),
        key=lambda file: pydicom.dcmread(file).InstanceNumber,
    )
    _label_as_derived(files[1::2])
    with pytest.raises(ChoiceError) as caught:
        run(ct_bundle, tmp_path / "out", tmp_path / "in")
    assert caught.value.code == "ambiguous-volume"


def test_a_volume_that_does_not_fit_is_named_with_the_reason(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "mr", modality=("MR",))
    write_series(blobs(), tmp_path / "in")
    with pytest.raises(ChoiceError, match="it is CT, the bundle wants MR") as caught:
        run(bundle, tmp_path / "out", tmp_path / "in")
    assert caught.value.code == "no-usable-volume"


def test_by_hand_a_volume_outside_the_rule_is_taken_with_a_warning(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "mr", modality=("MR",))
    write_series(blobs(), tmp_path / "in")
    result = run(bundle, tmp_path / "out", tmp_path / "in", series="all")
    codes = [warning["code"] for warning in result.cases[0]["warnings"]]
    assert "outside-input-rule" in codes


def test_results_are_never_replaced_silently(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    run(bundle, tmp_path / "out", source)
    mask = tmp_path / "out" / "a" / "segmentation.nii.gz"
    before = mask.stat().st_mtime_ns
    with pytest.raises(UsageError, match="--resume") as caught:
        run(bundle, tmp_path / "out", source)
    assert caught.value.code == "output-exists"
    resumed = run(bundle, tmp_path / "out", source, resume=True)
    assert resumed.cases[0]["status"] == "skipped"
    assert resumed.cases[0]["labels"][1]["voxels"] == 18
    assert mask.stat().st_mtime_ns == before
    assert run(bundle, tmp_path / "out", source, overwrite=True).cases[0]["status"] == "done"
    assert mask.stat().st_mtime_ns > before


def test_resume_does_again_what_is_incomplete_or_of_other_weights(tmp_path, bundle) -> None:
    sources = [write_nifti(blobs(), tmp_path / "in" / f"{name}.nii.gz") for name in "ab"]
    run(bundle, tmp_path / "out", *sources)
    (tmp_path / "out" / "a" / "case.json").unlink()  # as after a kill before the last file
    again = run(bundle, tmp_path / "out", *sources, resume=True)
    assert [case["status"] for case in again.cases] == ["done", "skipped"]
    weights = bundle / "models" / "model.pt"
    weights.write_bytes(weights.read_bytes() + b"\0")
    try:
        changed = run(bundle, tmp_path / "out", *sources, resume=True)
    except BundleError:
        pytest.skip("this torch refuses trailing bytes in a weight file")
    assert [case["status"] for case in changed.cases] == ["done", "done"]


def test_resume_does_again_what_other_options_or_another_image_made(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    run(bundle, tmp_path / "out", source)
    fewer = run(bundle, tmp_path / "out", source, resume=True, labels=("tumour",))
    assert fewer.cases[0]["status"] == "done"
    assert [label["name"] for label in fewer.cases[0]["labels"]] == ["tumour"]
    other = blobs()
    write_nifti(replace(other, array=other.array[..., :-1]), source)
    assert run(bundle, tmp_path / "out", source, resume=True).cases[0]["status"] == "done"
    assert run(bundle, tmp_path / "out", source, resume=True).cases[0]["status"] == "skipped"


def test_overwriting_leaves_no_picture_of_the_earlier_mask(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    run(bundle, tmp_path / "out", source, outputs=("nifti", "preview", "report"))
    run(bundle, tmp_path / "out", source, outputs=("nifti",), overwrite=True)
    left = {path.name for path in (tmp_path / "out" / "a").iterdir()}
    assert "segmentation.nii.gz" in left
    assert not left & {"preview.png", "report.html", "report.json"}


def test_files_named_by_their_uid_leave_no_uid_in_the_results(tmp_path, ct_bundle) -> None:
    folder = write_series(blobs(), tmp_path / "in" / "1.2.840.113619.2.55.3")
    uid = "1.2.276.0.7230010.3.1.4.8323329"
    shutil.copy(sorted(folder.iterdir())[0], folder / f"{uid}.dcm")
    result = run(ct_bundle, tmp_path / "out", tmp_path / "in")
    assert "duplicate-instance" in [warning["code"] for warning in result.cases[0]["warnings"]]
    for file in (tmp_path / "out").rglob("*.json"):
        assert "1.2." not in file.read_text().replace(result.bundle["version"], "")


def test_two_series_without_any_uid_are_not_taken_for_two_studies(tmp_path, ct_bundle) -> None:
    for seed in (1, 2):
        write_series(blobs(seed=seed), tmp_path / "in" / str(seed), seed=seed)
    for path in sorted((tmp_path / "in").rglob("*")):
        if path.is_file():
            ds = pydicom.dcmread(path)
            del ds.StudyInstanceUID
            ds.save_as(tmp_path / "in" / f"{path.parent.name}_{path.name}")
    for seed in (1, 2):
        shutil.rmtree(tmp_path / "in" / str(seed))
    with pytest.raises(ChoiceError) as caught:
        run(ct_bundle, tmp_path / "out", tmp_path / "in")
    assert caught.value.code == "ambiguous-volume"


def test_a_file_of_an_archive_is_named_as_the_operator_knows_it(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        archive.write(source, "sub/a.nii.gz")
    case = run(bundle, tmp_path / "out", tmp_path / "in.zip").cases[0]
    assert case["input"] == str(tmp_path / "in.zip" / "sub" / "a.nii.gz")


def test_nothing_written_names_the_patient_or_a_uid(tmp_path, ct_bundle) -> None:
    write_series(blobs(), tmp_path / "in")
    result = run(ct_bundle, tmp_path / "out", tmp_path / "in")
    uid = result.cases[0]["series_instance_uid"]
    assert uid
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            for secret in (uid, "PHANTOM", str(tmp_path)):
                assert secret.encode() not in content, f"{secret} in {file.name}"


def test_nan_in_a_nifti_is_refused(tmp_path, bundle) -> None:
    volume = blobs()
    array = volume.array.astype(np.float32)
    array[0, 1, 1, 1] = np.nan
    source = write_nifti(replace(volume, array=array), tmp_path / "a.nii.gz")
    result = run(bundle, tmp_path / "out", source)
    assert result.cases[0]["error"]["code"] == "non-finite"
    assert not (tmp_path / "out" / "a").exists()


def test_a_nifti_that_is_not_in_hounsfield_units_is_refused_by_a_ct_bundle(
    tmp_path, ct_bundle
) -> None:
    volume = blobs()
    raw = replace(volume, array=volume.array + np.int16(1024))
    source = write_nifti(raw, tmp_path / "raw.nii.gz")
    error = run(ct_bundle, tmp_path / "out", source).cases[0]["error"]
    assert error["code"] == "not-hu-like"
    assert "none is negative (124 to 1274)" in error["message"]


def test_a_4d_nifti_needs_a_frame(tmp_path, bundle) -> None:
    array = np.stack([blobs().array[0], blobs(seed=9).array[0]], axis=-1)
    path = tmp_path / "series.nii.gz"
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    with pytest.raises(ChoiceError, match="--frame N, 0 to 1") as caught:
        run(bundle, tmp_path / "no", path)
    assert caught.value.code == "needs-frame"
    with pytest.raises(ChoiceError) as caught:
        run(bundle, tmp_path / "no", path, frame=2)
    assert caught.value.code == "no-such-frame"
    chosen = run(bundle, tmp_path / "yes", path, frame=1)
    assert chosen.cases[0]["status"] == "done"
    mask = nib.load(chosen.cases[0]["outputs"]["nifti"])
    assert mask.shape == SHAPE


def test_a_4d_nifti_of_as_many_channels_as_the_bundle_is_one_image(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", channels=2)
    array = np.stack([blobs().array[0], blobs(seed=9).array[0]], axis=-1)
    path = tmp_path / "modalities.nii.gz"
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    result = run(bundle, tmp_path / "out", path)
    assert result.cases[0]["status"] == "done"
    mask = np.asarray(nib.load(result.cases[0]["outputs"]["nifti"]).dataobj)
    assert np.array_equal(mask, expected_mask(blobs()))


def test_time_points_of_a_dicom_series_are_never_channels(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", channels=3)
    with pytest.raises(ChoiceError, match="3 frames") as caught:
        run(bundle, tmp_path / "out", data_folder("dicom_qa/mr_ge_epi_4d/In"))
    assert caught.value.code == "needs-frame"


def test_channel_files_are_grouped_and_other_grids_refused(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy", channels=2)
    write_nifti(blobs(), tmp_path / "in" / "p1_0000.nii.gz")
    write_nifti(blobs(), tmp_path / "in" / "p1_0001.nii.gz")
    write_nifti(blobs(), tmp_path / "in" / "p2_0000.nii.gz")
    write_nifti(blobs(np.diag([1.0, 1, 1, 1])), tmp_path / "in" / "p2_0001.nii.gz")
    result = run(bundle, tmp_path / "out", tmp_path / "in")
    assert [case["case"] for case in result.cases] == ["p1", "p2"]
    assert result.cases[0]["status"] == "done"
    assert result.cases[1]["error"]["code"] == "grid-mismatch"
    resampled = run(bundle, tmp_path / "again", tmp_path / "in", resample=True)
    assert resampled.exit_code == 0
    assert "resampled-channel" in [w["code"] for w in resampled.cases[1]["warnings"]]


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (lambda folder: None, "not-found"),  # noqa: ARG005
        (lambda folder: folder.mkdir(), "no-images"),
        (lambda folder: (folder.mkdir(), (folder / "a.txt").write_text("hello")), "no-images"),
    ],
)
def test_an_input_without_images_starts_nothing(tmp_path, bundle, prepare, code) -> None:
    prepare(tmp_path / "in")
    with pytest.raises(InputError) as caught:
        run(bundle, tmp_path / "out", tmp_path / "in")
    assert caught.value.code == code
    assert not (tmp_path / "out").exists()


def test_bundles_that_cannot_segment_start_nothing(tmp_path) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    bundle = write_toy_bundle(tmp_path / "toy", weights=False)
    with pytest.raises(BundleError, match="Train it: python") as caught:
        run(bundle, tmp_path / "out", source)
    assert caught.value.code == "no-weights"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"outputs": ("nifti", "hologram")}, "hologram"),
        ({"outputs": ()}, "outputs"),
        ({"labels": ("spleen",)}, "organ, tumour"),
        ({"device": "tpu"}, "device"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"backend": "abacus"}, "backend"),
        ({"overlap": 1.0}, "overlap"),
        ({"frame": -1}, "frame"),
        ({"resume": True, "overwrite": True}, "together"),
    ],
)
def test_wrong_options_start_nothing(tmp_path, bundle, options, match) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    with pytest.raises(UsageError, match=match):
        run(bundle, tmp_path / "out", source, **options)
    assert not list(tmp_path.glob("out/*/*"))


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "disk-full"), (errno.EROFS, "output-not-writable")]
)
def test_a_disk_that_fails_midway_leaves_no_mask(
    tmp_path, bundle, monkeypatch, number, code
) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")

    def fail(*args, **kwargs) -> None:  # noqa: ARG001
        raise OutputError("no space", code=code) from OSError(number, "no")

    monkeypatch.setattr(results, "write_preview", fail)
    result = run(bundle, tmp_path / "out", source)
    assert result.cases[0]["error"]["code"] == code
    assert files_in(tmp_path / "out") == LISTS


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=re.escape(f"{tmp_path / 'out'} must be writable")):
        results.prepare(tmp_path / "out")
    results.prepare(tmp_path / "new" / "folder")
    assert list((tmp_path / "new" / "folder").iterdir()) == []


def test_a_failed_overwrite_keeps_the_earlier_result_whole(tmp_path, bundle, monkeypatch) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    run(bundle, tmp_path / "out", source)
    before = {file: file.read_bytes() for file in (tmp_path / "out" / "a").iterdir()}

    def fail(*args, **kwargs) -> None:  # noqa: ARG001
        raise OutputError("no space", code="disk-full")

    monkeypatch.setattr(results, "write_report", fail)
    assert run(bundle, tmp_path / "out", source, overwrite=True).exit_code == 1
    after = {file: file.read_bytes() for file in (tmp_path / "out" / "a").iterdir()}
    assert after == before


def test_an_overwrite_leaves_no_file_of_the_earlier_run(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    run(bundle, tmp_path / "out", source)
    assert (tmp_path / "out" / "a" / "preview.png").exists()
    run(bundle, tmp_path / "out", source, overwrite=True, outputs=("nifti",))
    assert not (tmp_path / "out" / "a" / "preview.png").exists()


def test_an_output_path_that_is_a_file_is_refused(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UsageError) as caught:
        run(bundle, tmp_path / "out", source)
    assert caught.value.code == "output-not-a-folder"
    assert (tmp_path / "out").read_text() == "mine"


def test_the_image_itself_is_not_changed(tmp_path, bundle) -> None:
    from medseg.inference import Predictor  # noqa: PLC0415

    volume = read(write_nifti(blobs(), tmp_path / "a.nii.gz"))
    before = volume.array.copy()
    predictor = Predictor(bundle)
    first, second = predictor(volume), predictor(volume)
    assert np.array_equal(volume.array, before)
    assert np.array_equal(first.array, second.array)


def test_masks_below_the_input_are_not_segmented_again(tmp_path, bundle) -> None:
    folder = tmp_path / "study"
    write_nifti(blobs(), folder / "a.nii.gz")
    write_nifti(blobs(seed=5), folder / "b.nii.gz")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        result = run(bundle, folder / "out", folder, **options)
        assert [case["case"] for case in result.cases] == ["a", "b"]
        assert result.exit_code == 0
    elsewhere = run(bundle, folder / "other", folder)  # the masks of the run before lie below
    assert [case["case"] for case in elsewhere.cases] == ["a", "b"]
    assert [item["path"] for item in elsewhere.rejected] == [
        "out/a", "out/b", "out/cases.csv", "out/manifest.jsonl",
    ]  # fmt: skip


def test_the_folder_of_the_images_is_refused_as_output(tmp_path, bundle) -> None:
    write_nifti(blobs(), tmp_path / "a.nii.gz")
    with pytest.raises(UsageError, match="results") as caught:
        run(bundle, tmp_path, tmp_path)
    assert caught.value.code == "output-is-input"
    assert [path.name for path in tmp_path.iterdir() if path.name != "toy"] == ["a.nii.gz"]


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_files_of_the_user_in_the_place_of_a_case_are_kept(tmp_path, bundle, options) -> None:
    source = write_nifti(blobs(), tmp_path / "data" / "a.nii.gz")
    write_nifti(blobs(), tmp_path / "data" / "b.nii.gz")
    notes = tmp_path / "a" / "sub" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("a year of work")
    result = run(bundle, tmp_path, source.parent, **options)
    assert [case["status"] for case in result.cases] == ["failed", "done"]
    assert result.cases[0]["error"]["code"] == "output-exists"
    assert "1 other" in result.cases[0]["error"]["message"]
    assert notes.read_text() == "a year of work"


def test_a_mask_edited_beside_the_result_survives_an_overwrite(tmp_path, bundle) -> None:
    source = write_nifti(blobs(), tmp_path / "a.nii.gz")
    out = tmp_path / "out"
    run(bundle, out, source)
    others = {results.PALETTE, results.OVERLAY, results.NRRD, *DICOM_FILES.values(), *OBJECT_FILES}
    others |= {results.IMAGE, results.NIFTI, results.NAMES}
    assert {file.name for file in (out / "a").iterdir()} == results.FILES - others
    (out / "a" / ".DS_Store").touch()
    assert run(bundle, out, source, overwrite=True).exit_code == 0
    edited = out / "a" / "segmentation_edited.nii.gz"
    edited.touch()
    assert run(bundle, out, source, overwrite=True).exit_code == 1
    assert edited.exists()
    assert (out / "a" / "segmentation.nii.gz").exists()
