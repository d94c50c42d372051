"""Several networks, regions, values of masks: against the same arithmetic on whole arrays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.errors import BundleError, UsageError
from medseg.inference import Execution, Predictor
from medseg.volume import Volume
from medseg.workflows.segment import SegmentOptions, segment
from tests.data.datasets import write_image
from tests.toy_bundle import write_toy_bundle

SLOPE = 0.02


def _predictor(bundle: Any, **options: Any) -> Predictor:
    """Return a predictor that runs torch in float32, whatever is fastest at this moment."""
    return Predictor(bundle, execution=Execution("torch", "fp32"), **options)


def _noise(shape: tuple[int, ...] = (1, 18, 15, 9)) -> Volume:
    array = np.random.default_rng(0).integers(-50, 300, shape).astype(np.int16)
    return Volume(array, np.diag([1.0, -2.0, 3.0, 1.0]))


def _bundle(folder: Path, first: float, second: float, **own: Any) -> Path:
    """Write a toy bundle with soft decisions around two thresholds, and medseg's own metadata."""
    spacing = own.pop("spacing_mm", None)
    write_toy_bundle(folder, spacing_mm=spacing)
    _weights(folder / "models/model.pt", first, second)
    path = folder / "configs/metadata.json"
    document = json.loads(path.read_text())
    document["medseg"] |= own
    path.write_text(json.dumps(document))
    return folder


def _weights(path: Path, first: float, second: float) -> None:
    weight = torch.tensor([0.0, SLOPE, 2 * SLOPE]).reshape(3, 1, 1, 1, 1)
    bias = torch.tensor([0.0, -SLOPE * first, -SLOPE * (first + second)])
    path.parent.mkdir(exist_ok=True, parents=True)
    torch.save({"weight": weight, "bias": bias}, path)


def _logits(array: np.ndarray[Any, Any], first: float, second: float) -> torch.Tensor:
    x = torch.from_numpy(array.astype(np.float32))
    return SLOPE * torch.stack([0 * x, x - first, 2 * x - first - second])


def test_probabilities_of_two_bundles_are_averaged(tmp_path: Path) -> None:
    one, two = _bundle(tmp_path / "a", 80, 120), _bundle(tmp_path / "b", 60, 260)
    volume = _noise()
    mask = _predictor([one, two])(volume).array
    probabilities = [_logits(volume.array[0], *t).softmax(0) for t in ((80, 120), (60, 260))]
    expected = sum(probabilities).argmax(0).numpy()  # type: ignore[union-attr]
    assert np.array_equal(mask, expected)
    alone = [_predictor(bundle)(volume).array for bundle in (one, two)]
    assert all(not np.array_equal(mask, other) for other in alone)


def test_weights_of_the_folds_of_a_bundle_are_averaged(tmp_path: Path) -> None:
    names = [f"models/fold_{n}/model.pt" for n in range(3)]
    bundle = _bundle(tmp_path / "a", 80, 120, ensemble=names)
    thresholds = [(80, 120), (60, 260), (150, 160)]
    for name, (first, second) in zip(names, thresholds, strict=True):
        _weights(bundle / name, first, second)
    volume = _noise()
    predictor = _predictor(bundle)
    expected = torch.stack([_logits(volume.array[0], *t).softmax(0) for t in thresholds])
    assert np.array_equal(predictor(volume).array, expected.mean(0).argmax(0).numpy())
    before = predictor.bundle.weights_sha256()
    _weights(bundle / names[2], 10, 20)
    assert predictor.bundle.weights_sha256() != before
    (bundle / names[1]).unlink()
    with pytest.raises(BundleError) as caught:
        _predictor(bundle)
    assert caught.value.code == "no-weights"


def test_bundles_of_other_spacings_meet_on_the_source_grid(tmp_path: Path) -> None:
    one = _bundle(tmp_path / "a", 80, 200)
    two = _bundle(tmp_path / "b", 80, 200, spacing_mm=[2.0, 2.0, 2.0])
    ramp = np.linspace(0, 280, 40)[None, :, None, None] * np.ones((1, 40, 12, 10))
    volume = Volume(ramp.astype(np.float32), np.diag([1.0, 1.0, 1.0, 1.0]))
    mask = _predictor([one, two])(volume).array
    expected = np.digitize(ramp[0], (80, 200))
    clear = np.abs(np.abs(ramp[0] - 140) - 60) > 8  # a voxel from either threshold
    assert np.array_equal(mask[clear], expected[clear])


def test_bundles_that_find_other_labels_are_not_averaged(tmp_path: Path) -> None:
    table = [{"index": 1, "name": "organ", "value": 5}, {"index": 2, "name": "tumour", "value": 6}]
    one, two = _bundle(tmp_path / "a", 80, 120), _bundle(tmp_path / "b", 80, 120, labels=table)
    with pytest.raises(BundleError, match="same labels in the same channels") as caught:
        _predictor([one, two])
    assert caught.value.code == "ensemble-mismatch"
    three = _bundle(tmp_path / "c", 80, 120, restoring={"crop": True})
    with pytest.raises(BundleError, match="restore them alike"):
        _predictor([one, three])
    with pytest.raises(UsageError, match="got none"):
        _predictor([])


def test_masks_hold_the_values_of_the_label_files(tmp_path: Path) -> None:
    table = [{"index": 1, "value": 10}, {"index": 2, "value": 300}]
    bundle = _bundle(tmp_path / "a", 80, 120, labels=table)
    volume = _noise()
    result = _predictor(bundle)(volume)
    classes = _logits(volume.array[0], 80, 120).argmax(0).numpy()
    assert result.array.dtype == np.uint16
    assert np.array_equal(result.array, np.array([0, 10, 300])[classes])
    assert [(label.name, label.index) for label in result.labels] == [
        ("organ", 10),
        ("tumour", 300),
    ]


def _regions(folder: Path, **own: Any) -> Path:
    table = [{"index": n, "value": v} for n, v in ((1, 1), (2, 2), (3, 4))]
    bundle = _bundle(folder, 0, 0, activation="sigmoid", labels=table, **own)
    path = bundle / "configs/metadata.json"
    text = path.read_text().replace('"0": "background"', '"0": "whole"')
    path.write_text(text.replace('"organ"', '"core"').replace('"tumour"', '"enhancing"'))
    weight = torch.full((3, 1, 1, 1, 1), SLOPE)
    bias = -SLOPE * torch.tensor([50.5, 120.5, 220.5])
    torch.save({"weight": weight, "bias": bias}, bundle / "models/model.pt")
    return bundle


@pytest.mark.parametrize("several", [False, True])
def test_nested_regions_are_painted_in_order(tmp_path: Path, several: bool) -> None:
    bundle = _regions(tmp_path / "a")
    bundles = [bundle, _regions(tmp_path / "b")] if several else [bundle]
    volume = _noise()
    result = _predictor(bundles)(volume)
    expected = np.array([0, 1, 2, 4])[np.digitize(volume.array[0], (50.5, 120.5, 220.5))]
    assert np.array_equal(result.array, expected)
    assert [label.name for label in result.labels] == ["whole", "core", "enhancing"]


def test_parts_apart_from_the_largest_are_removed_and_it_is_said(tmp_path: Path) -> None:
    step = {"label": "organ", "keep": "largest_component"}
    bundle = _bundle(tmp_path / "a", 100, 1000, postprocessing=[step])
    array = np.zeros((1, 20, 12, 10), np.float32)
    array[0, 2:8, 2:8, 2:8] = 200
    array[0, 12:14, 3:5, 3:5] = 200
    image = write_image(tmp_path / "image.nii.gz", array[0])
    done = segment(SegmentOptions((image,), str(bundle), tmp_path / "out", ("nifti",)))
    case = done.cases[0]
    assert case["labels"][0]["voxels"] == 6 * 6 * 6
    assert [w["code"] for w in case["warnings"]] == ["removed-parts"]
    assert "0.024 ml of organ" in case["warnings"][0]["message"]


def test_an_unknown_postprocessing_step_is_refused(tmp_path: Path) -> None:
    for step in (
        {"label": "liver", "keep": "largest_component"},
        {"label": "organ", "keep": "all"},
    ):
        bundle = _bundle(tmp_path / str(len(step["keep"])), 80, 120, postprocessing=[step])
        with pytest.raises(BundleError, match="postprocessing must be"):
            _predictor(bundle)(_noise())


def test_segment_names_all_bundles_of_an_average(tmp_path: Path) -> None:
    one, two = _bundle(tmp_path / "a", 80, 120), _bundle(tmp_path / "b", 60, 260)
    image = write_image(tmp_path / "image.nii.gz", _noise().array[0].astype(np.float32))
    options = SegmentOptions((image,), (str(one), str(two)), tmp_path / "out", ("nifti",))
    document = segment(options).as_json()
    assert document["bundle"]["name"] == "a+b"
    assert [member["name"] for member in document["bundle"]["members"]] == ["a", "b"]
    assert len(document["bundle"]["weights_sha256"]) == 64
