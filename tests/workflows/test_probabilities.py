"""Probabilities and the image beside a mask."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from medseg.classical import Slic
from medseg.errors import UsageError
from medseg.volume import Volume
from medseg.workflows.classical import ClassicalOptions, classical
from medseg.workflows.segment import SegmentOptions, segment
from tests.phantoms import oblique_affine, write_nifti, write_series
from tests.toy_bundle import THRESHOLDS, write_toy_bundle

STEP = 1 / 65535


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Return a scan with values around the thresholds of the toy bundle."""
    rng = np.random.default_rng(5)
    array = rng.integers(90, 212, (1, 21, 18, 9)).astype(np.int16)
    return write_nifti(
        Volume(array, oblique_affine("LPS", (1.0, 1.5, 3.0))), tmp_path / "scan.nii.gz"
    )


def _segmented(
    scan: Path, folder: Path, outputs: tuple[str, ...], **more: object
) -> dict[str, str]:
    bundle = str(write_toy_bundle(folder / "toy"))
    options = SegmentOptions(
        (scan,), bundle, folder / "out", outputs, backend="torch", precision="fp32", **more
    )  # type: ignore[arg-type]
    [case] = segment(options).cases
    assert case["status"] == "done", case["error"]
    return case["outputs"]


def test_probabilities_are_those_of_the_network(scan: Path, tmp_path: Path) -> None:
    files = _segmented(scan, tmp_path, ("probabilities", "image"))
    image, mask, shares = (nib.load(files[k]) for k in ("image", "nifti", "probabilities"))
    assert shares.shape == (21, 18, 9, 3)
    for other in (mask, shares):
        np.testing.assert_array_equal(other.affine, image.affine)
        assert other.header["sform_code"] == image.header["sform_code"]
    x = torch.from_numpy(np.asarray(image.dataobj, np.float32))
    first, second = THRESHOLDS
    expected = torch.stack([0 * x, x - first, 2 * x - first - second], -1).softmax(-1)
    found = np.asarray(shares.dataobj)
    np.testing.assert_allclose(found, expected, atol=STEP)
    np.testing.assert_array_equal(found.argmax(-1), np.asarray(mask.dataobj))
    names = json.loads(Path(files["probability_names"]).read_text())
    assert names["exclusive"] is True
    assert [(c["channel"], c["index"], c["name"]) for c in names["channels"]] == [
        (0, 0, "background"),
        (1, 1, "organ"),
        (2, 2, "tumour"),
    ]
    np.testing.assert_array_equal(image.dataobj, nib.load(scan).dataobj)


def test_labels_that_are_left_out_have_none(scan: Path, tmp_path: Path) -> None:
    files = _segmented(scan, tmp_path, ("probabilities",), labels=("tumour",))
    names = json.loads(Path(files["probability_names"]).read_text())["channels"]
    assert [(c["channel"], c["index"]) for c in names] == [(0, 0), (1, 2)]
    assert nib.load(files["probabilities"]).shape == (21, 18, 9, 2)


def test_probabilities_that_are_said_to_be_exclusive_add_up_to_1(
    scan: Path, tmp_path: Path
) -> None:
    files = _segmented(scan, tmp_path, ("probabilities",), labels=("tumour",))
    sums = np.asarray(nib.load(files["probabilities"]).dataobj).sum(axis=3)
    complete = bool(np.allclose(sums, 1, atol=1e-3))
    stated = json.loads(Path(files["probability_names"]).read_text())["exclusive"]
    assert stated == complete


def test_the_image_of_a_dicom_series_lies_on_the_mask(tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(-900, 300, (1, 16, 14, 6)).astype(np.int16)
    write_series(Volume(array, oblique_affine()), tmp_path / "series")
    files = _segmented(tmp_path / "series", tmp_path, ("image", "probabilities"))
    image, shares = nib.load(files["image"]), nib.load(files["probabilities"])
    np.testing.assert_allclose(image.affine, oblique_affine(), atol=1e-4)
    np.testing.assert_array_equal(image.affine, shares.affine)
    np.testing.assert_array_equal(image.dataobj, array[0])


def test_nothing_is_left_beside_the_results(scan: Path, tmp_path: Path) -> None:
    _segmented(scan, tmp_path, ("probabilities",))
    assert [p.name for p in (tmp_path / "out").iterdir() if p.is_dir()] == ["scan"]
    assert not [p for p in (tmp_path / "out").iterdir() if p.name.startswith((".", "tmp"))]


def test_what_has_no_classes_has_no_probabilities(scan: Path, tmp_path: Path) -> None:
    method = Slic(count=30)
    options = ClassicalOptions((scan,), tmp_path / "out", method, outputs=("probabilities",))
    with pytest.raises(UsageError, match="without probabilities for classical"):
        classical(options)
