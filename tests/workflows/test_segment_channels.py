"""Bundles of several channels on DICOM studies: each channel one series, or a refusal."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch

from medseg.errors import ChoiceError, InputError
from medseg.volume import Volume
from medseg.workflows.segment import SegmentOptions, SegmentResult, segment
from tests.data.dicom_sets import oblique_affine, write_dicom_series
from tests.phantoms import write_nifti
from tests.toy_bundle import write_toy_bundle

SHAPE = (18, 15, 12)
CHANNELS = ({"name": "T1", "modality": "MR"}, {"name": "T2", "modality": "MR"})


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 300, (1, *SHAPE)).astype(np.int16)


def _write(folder: Path, seed: int, description: str, **options) -> Volume:
    """Write a series of study `p`; `affine`, `study`, and tags may differ."""
    study = options.pop("study", "p")
    affine = options.pop("affine", oblique_affine())
    volume = Volume(_image(seed), affine)
    shared = {"StudyInstanceUID": f"1.2.{len(study)}", "FrameOfReferenceUID": f"1.3.{len(study)}"}
    write_dicom_series(
        folder / f"{study}{seed}",
        volume,
        f"{study} {seed}",
        **{**shared, "SeriesNumber": seed, "SeriesDescription": description, **options},
    )
    return volume


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that labels where the first channel less the second passes two thresholds."""
    return _bundle(tmp_path / "toy", CHANNELS)


def _bundle(folder: Path, channels) -> Path:
    write_toy_bundle(folder, channels=2, modality=tuple({c["modality"] for c in channels}))
    path = folder / "configs/metadata.json"
    metadata = json.loads(path.read_text())
    metadata["medseg"]["input"]["channels"] = list(channels)
    path.write_text(json.dumps(metadata))
    weights = torch.load(folder / "models/model.pt", weights_only=True)
    weights["weight"][:, 1] = -weights["weight"][:, 0]
    torch.save(weights, folder / "models/model.pt")
    return folder


def _run(bundle: Path, tmp_path: Path, *inputs: Path, **options) -> SegmentResult:
    # noise lies at the thresholds, where bf16 decides otherwise
    options = {"precision": "fp32", **options}
    return segment(SegmentOptions(inputs, str(bundle), tmp_path / "out", **options))


def _assert_difference(case: dict, first: np.ndarray, second: np.ndarray) -> None:
    assert case["status"] == "done", case["error"]
    mask = np.asarray(nib.load(case["outputs"]["nifti"]).dataobj)
    difference = first[0].astype(int) - second[0]
    assert np.array_equal(mask, np.digitize(difference, (100.5, 200.5)))
    assert {1, 2} <= set(np.unique(mask))


@pytest.mark.parametrize(
    ("first", "second"), [("T1", "T2"), ("t1_tse AX", "T2 tra 3D"), ("Ax T1", "T2")]
)
def test_series_that_are_called_like_the_channels_are_taken(tmp_path, bundle, first, second):
    two = _write(tmp_path / "in", 1, second)  # the order of the files does not matter
    one = _write(tmp_path / "in", 2, first)
    _write(tmp_path / "in", 3, "T2 FLAIR")
    _write(tmp_path / "in", 4, "T1post")
    result = _run(bundle, tmp_path, tmp_path / "in")
    _assert_difference(result.cases[0], one.array, two.array)
    (warning,) = result.cases[0]["warnings"]
    assert warning["code"] == "chosen-channels"
    assert "T1: MR_2_" in warning["message"]


@pytest.mark.parametrize(
    ("descriptions", "code", "match"),
    [
        (("T1 post", "T2"), "ambiguous-volume", "T1: none"),
        (("T1", "T2 FLAIR"), "ambiguous-volume", "T2: none"),
        (("T1", "T1", "T2"), "ambiguous-volume", "T1: MR_1_.*, MR_2_"),
        (("", ""), "ambiguous-volume", "T1: none; T2: none"),
        (("T1",), "no-usable-volume", "T2: none"),
    ],
)
def test_whatever_is_open_is_refused_with_the_candidates(
    tmp_path, bundle, descriptions, code, match
) -> None:
    for seed, description in enumerate(descriptions, start=1):
        _write(tmp_path / "in", seed, description)
    with pytest.raises(ChoiceError, match=match) as caught:
        _run(bundle, tmp_path, tmp_path / "in")
    assert caught.value.code == code
    assert "--series ID,ID in the order T1, T2" in str(caught.value)
    assert "MR_1_" in str(caught.value)


def test_channels_are_chosen_by_hand_in_order(tmp_path, bundle) -> None:
    one, two = (_write(tmp_path / "in", seed, "scan") for seed in (1, 2))
    with pytest.raises(ChoiceError) as caught:
        _run(bundle, tmp_path, tmp_path / "in")
    text = str(caught.value)
    ids = [word.rstrip(";.,") for word in text.split() if word.startswith("MR_")]
    first, second = sorted(set(ids))
    forward = _run(bundle, tmp_path, tmp_path / "in", series=f"{first},{second}")
    _assert_difference(forward.cases[0], one.array, two.array)
    backward = _run(bundle, tmp_path, tmp_path / "in", series=f"{second}, {first}", overwrite=True)
    _assert_difference(backward.cases[0], two.array, one.array)
    for wrong in (f"{first},{first}", f"{first},nothing", f"{first},", f"{first},{second},{first}"):
        with pytest.raises(ChoiceError, match="must name 2 different volumes"):
            _run(bundle, tmp_path, tmp_path / "in", series=wrong, overwrite=True)


def test_channels_of_two_modalities_are_told_apart_by_them(tmp_path) -> None:
    channels = ({"name": "image", "modality": "PT"}, {"name": "other", "modality": "MR"})
    bundle = _bundle(tmp_path / "toy", channels)
    two = _write(tmp_path / "in", 1, "whatever")
    one = _write(tmp_path / "in", 2, "anything", Modality="PT", Units="CNTS")
    result = _run(bundle, tmp_path, tmp_path / "in")
    _assert_difference(result.cases[0], one.array, two.array)


def test_every_study_of_a_batch_has_its_own_channels(tmp_path, bundle) -> None:
    arrays = {}
    for number, study in enumerate(("p", "pp", "ppp")):
        arrays[study] = [
            _write(tmp_path / "in", 10 * number + k, name, study=study).array
            for k, name in enumerate(("T1", "T2" if study != "pp" else "T2post"), start=1)
        ]
    result = _run(bundle, tmp_path, tmp_path / "in")
    assert [case["status"] for case in result.cases] == ["done", "failed", "done"]
    _assert_difference(result.cases[0], *arrays["p"])
    _assert_difference(result.cases[2], *arrays["ppp"])
    assert result.cases[1]["error"]["code"] == "ambiguous-volume"


def test_another_grid_or_frame_of_reference_is_refused(tmp_path, bundle) -> None:
    moved = oblique_affine()
    moved[:3, 3] += 0.3
    _write(tmp_path / "grid", 1, "T1")
    _write(tmp_path / "grid", 2, "T2", affine=moved)
    refused = _run(bundle, tmp_path, tmp_path / "grid")
    assert refused.cases[0]["error"]["code"] == "grid-mismatch"
    done = _run(bundle, tmp_path, tmp_path / "grid", resample=True, overwrite=True)
    assert done.cases[0]["status"] == "done"
    assert "resampled-channel" in {w["code"] for w in done.cases[0]["warnings"]}
    _write(tmp_path / "frame", 1, "T1")
    _write(tmp_path / "frame", 2, "T2", FrameOfReferenceUID="1.9")
    with pytest.raises(ChoiceError) as caught:
        _run(bundle, tmp_path, tmp_path / "frame", overwrite=True)
    assert caught.value.code == "other-frame-of-reference"


def test_resume_notices_that_another_channel_changed(tmp_path, bundle) -> None:
    _write(tmp_path / "in", 1, "T1")
    _write(tmp_path / "in", 2, "T2")
    _run(bundle, tmp_path, tmp_path / "in")
    again = _run(bundle, tmp_path, tmp_path / "in", resume=True)
    assert again.cases[0]["status"] == "skipped"
    for path in (tmp_path / "in/p2").iterdir():
        path.unlink()
    one = Volume(_image(1), oblique_affine())
    two = _write(tmp_path / "in", 2, "T2", SeriesInstanceUID="1.2.77")
    changed = _run(bundle, tmp_path, tmp_path / "in", resume=True)
    _assert_difference(changed.cases[0], one.array, two.array)


def _manifest(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows))
    return path


@pytest.mark.parametrize("header", ["case,image_T1,image_T2", "case,image_0,image_1"])
def test_a_manifest_names_the_series_of_each_channel(tmp_path, bundle, header) -> None:
    one, two = (_write(tmp_path, seed, "scan") for seed in (1, 2))
    write_nifti(one, tmp_path / "one.nii.gz")
    write_nifti(two, tmp_path / "two.nii.gz")
    path = _manifest(
        tmp_path / "in.csv", header, "anna,p1,p2", "berta,one.nii.gz,two.nii.gz", "carla,p1,none"
    )
    result = _run(bundle, tmp_path, path)
    assert [case["case"] for case in result.cases] == ["anna", "berta", "carla"]
    for case in result.cases[:2]:
        _assert_difference(case, one.array, two.array)
    assert result.cases[2]["error"]["code"] == "not-found"
    assert result.exit_code == 1
    assert not any(str(tmp_path) in p.read_text() for p in (tmp_path / "out").rglob("*.json"))


def test_columns_named_like_the_channels_may_stand_in_any_order(tmp_path, bundle) -> None:
    one, two = (_write(tmp_path, seed, "scan") for seed in (1, 2))
    path = _manifest(tmp_path / "in.csv", "case;image_t2;image_t1;label", "a;p2;p1;")
    _assert_difference(_run(bundle, tmp_path, path).cases[0], one.array, two.array)


def test_a_json_manifest_takes_a_series_out_of_a_folder(tmp_path, bundle) -> None:
    one, two = (_write(tmp_path / "study", seed, "scan") for seed in (1, 2))
    uids = [pydicom.dcmread(next((tmp_path / "study").glob(f"p{n}/*"))) for n in (1, 2)]
    images = [f"study?series={ds.SeriesInstanceUID}" for ds in uids]
    path = tmp_path / "in.json"
    cases = [{"case": "good", "image": images}, {"case": "open", "image": ["study", "study"]}]
    path.write_text(json.dumps({"channels": ["T1", "T2"], "cases": cases}))
    result = _run(bundle, tmp_path, path)
    _assert_difference(result.cases[0], one.array, two.array)
    assert result.cases[1]["error"]["code"] == "ambiguous-volume"


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (("case,image_T1,image_flair", "a,p1,p2"), "must name the channels T1, T2 or none"),
        (("case,image_0,image_1,image_2", "a,p1,p2,p3"), "2 image columns or one, got 3"),
        (("case,image_0,image_1", "../a,p1,p2"), "ids that name a folder"),
        (("case,image_0,image_1", "a,p1,p2", "a,p1,p2"), "more than once"),
        (("case,scan", "a,p1"), "a column `image`"),
    ],
)
def test_a_manifest_that_is_not_clear_starts_nothing(tmp_path, bundle, rows, match) -> None:
    with pytest.raises(InputError, match=match) as caught:
        _run(bundle, tmp_path, _manifest(tmp_path / "in.csv", *rows))
    assert caught.value.code == "bad-manifest"
    assert not (tmp_path / "out").exists()
