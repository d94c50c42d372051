"""The predictor: one bundle, many volumes."""

import numpy as np
import pytest
import torch
import yaml

from medseg.bundle import load_bundle
from medseg.bundle.build import build_inference
from medseg.errors import BundleError, InputError, UsageError
from medseg.inference import Predictor
from medseg.inference.preprocess import preprocessed
from medseg.inference.tta import mirrored
from medseg.transforms.normalize import nonzero_box
from medseg.volume import Volume
from tests.toy_bundle import THRESHOLDS, write_toy_bundle


@pytest.fixture
def bundle(tmp_path):
    return write_toy_bundle(tmp_path / "toy")


def noise(shape=(1, 20, 17, 9)) -> Volume:
    array = np.random.default_rng(0).integers(-50, 300, shape).astype(np.int16)
    return Volume(array, np.diag([1.0, -2.0, 3.0, 1.0]))


@pytest.mark.parametrize("shape", [(1, 20, 17, 9), (1, 5, 40, 3), (1, 16, 16, 16), (1, 33, 1, 2)])
def test_volumes_smaller_and_larger_than_the_window_work(bundle, shape) -> None:
    volume = noise(shape)
    mask = Predictor(bundle)(volume).array
    assert np.array_equal(mask, np.digitize(volume.array[0], THRESHOLDS))


def test_mirroring_changes_nothing_for_a_network_that_does_not_care(bundle) -> None:
    volume = noise()
    assert np.array_equal(
        Predictor(bundle, tta=True)(volume).array, Predictor(bundle)(volume).array
    )


def test_mirroring_averages_all_flips() -> None:
    class Corner(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = torch.zeros_like(x)
            out[:, :, 0, 0, 0] = 8.0
            return out

    result = mirrored(Corner())(torch.zeros(1, 1, 4, 5, 6))
    assert (result == 1).sum() == 8
    assert result.sum() == 8
    assert result[0, 0, 3, 4, 5] == result[0, 0, 0, 4, 0] == 1


@pytest.mark.parametrize(
    "inferer",
    [
        {"_target_": "SimpleInferer"},
        {"_target_": "SlidingWindowInfererAdapt", "roi_size": [16, 16, 16]},
    ],
)
def test_inferers_that_are_not_streamed_give_the_same_mask(tmp_path, inferer) -> None:
    streamed = Predictor(write_toy_bundle(tmp_path / "a"))(noise())
    folder = write_toy_bundle(tmp_path / "b")
    path = folder / "configs/inference.yaml"
    document = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(document | {"inferer": inferer}))
    whole = Predictor(folder)(noise())
    assert np.array_equal(whole.array, streamed.array)
    assert whole.inference["memory"]["estimate_bytes"] > 0


def test_other_channels_and_dimensions_are_refused(bundle) -> None:
    predictor = Predictor(bundle)
    with pytest.raises(InputError, match="1 channels") as caught:
        predictor(noise((2, 8, 8, 8)))
    assert caught.value.code == "wrong-channels"
    with pytest.raises(InputError, match="2D") as caught:
        predictor(Volume(np.zeros((1, 8, 8), np.uint8), np.eye(3)))
    assert caught.value.code == "wrong-dimensions"


@pytest.mark.parametrize("wrong", ["scan.nii.gz", np.zeros((1, 8, 8, 8))])
def test_what_is_no_volume_is_refused_with_the_way_to_read_one(bundle, wrong) -> None:
    with pytest.raises(UsageError, match=r"medseg\.read"):
        Predictor(bundle)(wrong)


def test_ct_padding_is_air_for_the_network(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "ct", modality=("CT",), spacing_mm=[1.0, 1.0, 1.0])
    array = np.full((1, 10, 10, 10), -1000, np.int16)
    array[0, 3:7, 3:7, 3:7] = 150
    padded = array.copy()
    padded[0, :2] = -3024
    grid = np.diag([1.3, 1.3, 1.3, 1.0])
    masks = [Predictor(bundle)(Volume(a, grid)).array for a in (array, padded)]
    assert np.array_equal(*masks)


def test_a_transform_that_works_in_place_does_not_reach_the_volume(tmp_path) -> None:
    bundle = write_toy_bundle(tmp_path / "toy")
    config = bundle / "configs" / "inference.yaml"
    document = yaml.safe_load(config.read_text())
    document["preprocessing"]["transforms"].append(
        {"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True}
    )
    config.write_text(yaml.safe_dump(document))
    values = np.random.default_rng(0).normal(50, 9, (1, 9, 8, 7)).astype(np.float32)
    volume = Volume(values.copy(), np.eye(4))
    Predictor(bundle)(volume)
    assert np.array_equal(volume.array, values)


def test_a_network_with_other_classes_than_the_metadata_is_refused(bundle) -> None:
    metadata = bundle / "configs" / "metadata.json"
    metadata.write_text(metadata.read_text().replace('"2": "tumour"', '"2": "a", "3": "b"'))
    with pytest.raises(BundleError, match="3 maps for 4 classes") as caught:
        Predictor(load_bundle(bundle))(noise())
    assert caught.value.code == "wrong-classes"


def test_a_network_that_returns_nan_gives_an_error_and_no_mask(bundle) -> None:
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    weights["bias"][1] = float("nan")
    torch.save(weights, bundle / "models" / "model.pt")
    with pytest.raises(InputError, match="NaN") as caught:
        Predictor(bundle)(noise())
    assert caught.value.code == "non-finite-output"


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.uint16])
def test_a_volume_is_prepared_alike_whatever_type_it_is_stored_in(dtype) -> None:
    parts = build_inference(load_bundle("phantom_ct"), torch.device("cpu"))
    values = np.random.default_rng(0).integers(-1000, 1200, (1, 40, 44, 30))
    values = values.clip(0) if dtype == np.uint16 else values
    affine = np.diag([-1.1, 0.9, 2.0, 1.0])
    volume = Volume(values.astype(dtype), affine)
    wide = Volume(values.astype(np.float64), affine)
    found, expected = (preprocessed(one, parts, is_ct=True) for one in (volume, wide))
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), rtol=1e-6, atol=1e-6)
    assert np.array_equal(volume.array, values)


def test_zeros_around_an_image_are_cut_off_in_any_channel() -> None:
    image = torch.zeros(2, 9, 10, 11)
    assert nonzero_box(image) == (slice(0, 9), slice(0, 10), slice(0, 11))
    image[0, 2, 3, 4] = 5
    image[1, 6, 1, 4] = -1
    assert nonzero_box(image) == (slice(2, 7), slice(1, 4), slice(4, 5))
