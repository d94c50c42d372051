"""The predictor on 2D images: the same engine, against MONAI's dense sliding window."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from monai.inferers import SlidingWindowInferer
from scipy import ndimage

from medseg.bundle import load_bundle
from medseg.errors import BundleError, InputError
from medseg.inference import Execution, Predictor
from medseg.inference.tta import mirrored
from medseg.transforms import Resample, metatensor
from medseg.volume import Source, Volume
from tests.picture_bundle import BLUER, GREENER, unet, write_picture_bundle
from tests.toy_bundle import write_toy_bundle

TORCH = Execution(backend="torch", precision="fp32", cache=None)


def picture(
    rows: int, columns: int, channels: int = 3, spacing_mm: tuple[float, float] | None = None
) -> Volume:
    rng = np.random.default_rng(rows * columns)
    smooth = ndimage.gaussian_filter(rng.normal(size=(channels, rows, columns)), (0, 2, 2))
    spread = smooth / max(float(np.abs(smooth).max()), 1e-9)
    array = (128 + 100 * spread + 10 * rng.normal(size=spread.shape)).clip(0, 255)
    source = Source(format="raster", has_spacing=spacing_mm is not None)
    return Volume(array.astype(np.uint8), np.diag([*(spacing_mm or (1.0, 1.0)), 1.0]), source)


def known_mask(array: np.ndarray) -> np.ndarray:
    red, green, blue = array.astype(np.float64)
    return np.argmax([np.zeros_like(red), green - red - GREENER, blue - red - BLUER], axis=0)


def scaled(array: torch.Tensor) -> torch.Tensor:
    return (array - array.min()) / (array.max() - array.min())


@torch.inference_mode()
def dense_maps(volume: Volume, network, window, spacing_mm=None) -> np.ndarray:
    """Class maps by MONAI's inferer on the whole image, and scipy back to its grid."""
    image = scaled(metatensor(volume))
    if spacing_mm:
        image = Resample(spacing_mm, 1, 0)(image)
    inferer = SlidingWindowInferer(window, overlap=0.5, mode="gaussian")
    maps = inferer(image.as_tensor()[None], network)[0].double().numpy()
    here = [np.arange(n) for n in volume.shape]
    # the outer edges of the two grids lie on each other
    where = [
        (i + 0.5) * m / n - 0.5 for i, n, m in zip(here, volume.shape, maps.shape[1:], strict=True)
    ]
    grid = np.meshgrid(*where, indexing="ij")
    return np.stack([ndimage.map_coordinates(one, grid, order=1, mode="nearest") for one in maps])


def require_same(mask: np.ndarray, maps: np.ndarray) -> None:
    expected = maps.argmax(axis=0)
    assert len(np.unique(expected)) > 1
    ranked = np.sort(maps, axis=0)
    differ = mask != expected
    assert differ.mean() <= 1e-3
    assert not differ.any() or (ranked[-1] - ranked[-2])[differ].max() < 1e-3


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (31, 23), (32, 24), (33, 25), (97, 61), (16, 99)])
def test_every_size_gives_the_known_mask(tmp_path, size) -> None:
    bundle = write_picture_bundle(tmp_path / "known")
    volume = picture(*size)
    result = Predictor(bundle, execution=TORCH)(volume)
    assert result.array.shape == size
    assert result.array.dtype == np.uint8
    assert np.array_equal(result.array, known_mask(volume.array))


@pytest.mark.parametrize("size", [(64, 48), (51, 77), (20, 100), (17, 13)])
@pytest.mark.parametrize("tta", [False, True])
def test_windows_agree_with_the_dense_inferer(tmp_path, size, tta) -> None:
    window = (32, 48)
    bundle = write_picture_bundle(tmp_path / "u", network="unet", window=window)
    volume = picture(*size)
    result = Predictor(bundle, tta=tta, execution=TORCH)(volume)
    network = unet()
    require_same(result.array, dense_maps(volume, mirrored(network) if tta else network, window))


@pytest.mark.parametrize(
    ("size", "spacing", "wanted"),
    [((50, 70), (0.5, 0.5), [0.8, 0.8]), ((41, 33), (1.0, 0.7), [0.6, 0.6])],
)
def test_resampled_pictures_come_back_on_their_own_grid(tmp_path, size, spacing, wanted) -> None:
    bundle = write_picture_bundle(
        tmp_path / "u", network="unet", window=(32, 32), spacing_mm=wanted
    )
    volume = picture(*size, spacing_mm=spacing)
    result = Predictor(bundle, execution=TORCH)(volume)
    assert np.array_equal(result.affine, volume.affine)
    require_same(result.array, dense_maps(volume, unet(), (32, 32), wanted))


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.5, 0.5), (0.00025, 0.00025)])
def test_a_bundle_in_pixels_takes_every_picture_as_it_is(tmp_path, spacing) -> None:
    bundle = write_picture_bundle(
        tmp_path / "u", network="unet", window=(32, 32), spacing_px=[0.8, 0.8]
    )
    volume = picture(50, 70, spacing_mm=spacing)
    result = Predictor(bundle, execution=TORCH)(volume)
    assert np.array_equal(result.affine, volume.affine)
    plain = replace(volume, affine=np.eye(3))
    require_same(result.array, dense_maps(plain, unet(), (32, 32), (0.8, 0.8)))


def test_a_bundle_in_mm_refuses_what_states_no_size_or_one_of_another_order(tmp_path) -> None:
    predictor = Predictor(
        write_picture_bundle(tmp_path / "known", spacing_mm=[1.0, 1.0]), execution=TORCH
    )
    volume = picture(30, 40, spacing_mm=(1.0, 1.0))
    assert np.array_equal(predictor(volume).array, known_mask(volume.array))
    for spacing, code in ((None, "no-spacing"), ((0.05, 0.05), "pixel-size-differs")):
        with pytest.raises(InputError, match="pixel") as caught:
            predictor(picture(30, 40, spacing_mm=spacing))
        assert caught.value.code == code


def test_several_bundles_are_averaged(tmp_path) -> None:
    window = (32, 32)
    folders = [
        write_picture_bundle(tmp_path / name, network="unet", window=window) for name in "ab"
    ]
    weights = torch.load(folders[1] / "models" / "model.pt", weights_only=True)
    other = {name: value * 0.9 if value.ndim == 4 else value for name, value in weights.items()}
    torch.save(other, folders[1] / "models" / "model.pt")
    volume = picture(45, 50)
    networks = [unet(), unet()]
    networks[1].load_state_dict(other)
    maps = []
    for network in networks:
        logits = torch.from_numpy(dense_maps(volume, network, window))
        maps.append(logits.softmax(0).numpy())
    result = Predictor(folders, execution=TORCH)(volume)
    require_same(result.array, np.mean(maps, axis=0))


def test_a_short_budget_gives_the_same_mask_in_strips(tmp_path) -> None:
    bundle = write_picture_bundle(tmp_path / "u", network="unet", window=(32, 32))
    volume = picture(300, 260)
    predictor = Predictor(bundle, execution=TORCH)
    predictor(volume)  # once chosen, the library is not foreseen again
    needs = predictor(volume).inference["memory"]["estimate_bytes"]
    predictor.execution = replace(TORCH, memory_gb=0.97 * needs / (1 << 30))
    narrow = predictor(volume)
    assert narrow.inference["memory"]["sums_dtype"] == "float16"
    require_same(narrow.array, dense_maps(volume, unet(), (32, 32)))
    with pytest.raises(InputError, match="300 x 260") as caught:
        Predictor(bundle, execution=replace(TORCH, memory_gb=1e-5))(volume)
    assert caught.value.code == "too-large"


@pytest.mark.parametrize("inferer", [{"_target_": "SimpleInferer"}])
def test_an_inferer_without_windows_gets_the_whole_picture(tmp_path, inferer) -> None:
    bundle = write_picture_bundle(tmp_path / "known")
    path = bundle / "configs" / "inference.yaml"
    document = yaml.safe_load(path.read_text()) | {"inferer": inferer}
    path.write_text(yaml.safe_dump(document))
    predictor = Predictor(bundle, execution=TORCH)
    volume = picture(19, 27)
    assert predictor.intake.dims == 2
    assert np.array_equal(predictor(volume).array, known_mask(volume.array))


def test_pictures_and_volumes_are_not_mixed_up(tmp_path) -> None:
    flat = Predictor(write_picture_bundle(tmp_path / "flat"), execution=TORCH)
    with pytest.raises(InputError, match=r"must be 2D for flat, got a 3D volume of 8x") as caught:
        flat(Volume(np.zeros((3, 8, 8, 8), np.uint8), np.eye(4)))
    assert caught.value.code == "wrong-dimensions"
    solid = Predictor(write_toy_bundle(tmp_path / "solid"), execution=TORCH)
    with pytest.raises(InputError, match=r"must be 3D for solid, got a 2D image of 8x9") as caught:
        solid(picture(8, 9, channels=1))
    assert caught.value.code == "wrong-dimensions"


def test_a_2d_network_that_takes_volumes_slice_by_slice_goes_on_doing_so(tmp_path) -> None:
    bundle = write_picture_bundle(tmp_path / "slices", channels=1, names=("image",))
    path = bundle / "configs" / "inference.yaml"
    document = yaml.safe_load(path.read_text())
    document["inferer"] = {
        "_target_": "SliceInferer", "roi_size": [16, 16], "spatial_dim": 2, "sw_batch_size": 2,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(document))
    array = np.random.default_rng(0).integers(0, 200, (1, 20, 17, 5)).astype(np.uint8)
    predictor = Predictor(bundle, execution=TORCH)
    mask = predictor(Volume(array, np.eye(4))).array
    expected = np.digitize(array[0], (GREENER, BLUER))
    assert np.array_equal(mask, expected)
    with pytest.raises(InputError, match="2D image"):
        predictor(picture(20, 17, channels=1))


def test_members_of_other_dimensions_are_refused(tmp_path) -> None:
    flat = write_picture_bundle(tmp_path / "a", channels=1, names=("image",))
    slices = write_picture_bundle(tmp_path / "b", channels=1, names=("image",))
    path = slices / "configs" / "inference.yaml"
    document = yaml.safe_load(path.read_text())
    document["inferer"] = {"_target_": "SliceInferer", "roi_size": [16, 16], "spatial_dim": 2}
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(BundleError, match="2D images or all of 3D") as caught:
        Predictor([flat, slices])
    assert caught.value.code == "ensemble-mismatch"


def test_a_grey_picture_becomes_three_equal_colours_with_a_warning(tmp_path) -> None:
    predictor = Predictor(write_picture_bundle(tmp_path / "u", network="unet"), execution=TORCH)
    grey = picture(40, 50, channels=1)
    before = grey.array.copy()
    colour = replace(grey, array=np.repeat(grey.array, 3, axis=0))
    result = predictor(grey)
    assert [problem.code for problem in result.source.problems] == ["grey-image"]
    assert np.array_equal(result.array, predictor(colour).array)
    assert len(np.unique(result.array)) > 1
    assert np.array_equal(grey.array, before)


def test_a_grey_picture_is_not_taken_for_three_channels_that_are_no_colours(tmp_path) -> None:
    bundle = write_picture_bundle(tmp_path / "stains", names=("dapi", "actin", "tubulin"))
    with pytest.raises(InputError, match="3 channels for stains, got 1") as caught:
        Predictor(bundle, execution=TORCH)(picture(9, 9, channels=1))
    assert caught.value.code == "wrong-channels"


def test_a_colour_picture_goes_to_a_grey_bundle_only_where_it_is_grey(tmp_path) -> None:
    bundle = write_picture_bundle(tmp_path / "grey", channels=1, names=("image",))
    predictor = Predictor(bundle, execution=TORCH)
    grey = picture(20, 30, channels=1)
    colour = replace(grey, array=np.repeat(grey.array, 3, axis=0))
    result = predictor(colour)
    assert [problem.code for problem in result.source.problems] == ["grey-in-colour"]
    assert np.array_equal(result.array, predictor(grey).array)
    colour.array[2, 7, 7] ^= 1  # one pixel is not grey
    with pytest.raises(InputError, match="Convert the colour image") as caught:
        predictor(colour)
    assert caught.value.code == "wrong-channels"


def test_more_than_eight_bits_are_said(tmp_path) -> None:
    predictor = Predictor(write_picture_bundle(tmp_path / "known"), execution=TORCH)
    volume = picture(12, 14)
    deep = replace(volume, array=volume.array.astype(np.uint16) * 257)
    result = predictor(deep)
    assert [problem.code for problem in result.source.problems] == ["more-than-8-bits"]
    assert np.array_equal(result.array, known_mask(deep.array))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_colours_of_another_scale_are_refused_where_the_scale_is_fixed(tmp_path, dtype) -> None:
    bundle = write_picture_bundle(tmp_path / "known")
    path = bundle / "configs" / "inference.yaml"
    document = yaml.safe_load(path.read_text())
    scheme = {"scheme": "fixed", "mean": 0.0, "std": 1.0}
    document["preprocessing"]["transforms"].append(
        {"_target_": "medseg.transforms.NormalizeChannelsd", "keys": "image", "schemes": [scheme]}
    )
    path.write_text(yaml.safe_dump(document))
    predictor = Predictor(bundle, execution=TORCH)
    volume = picture(12, 14)
    assert np.array_equal(predictor(volume).array, known_mask(volume.array))
    other = volume.array.astype(dtype) * 257 if dtype == np.uint16 else volume.array / dtype(255)
    with pytest.raises(InputError, match="Convert the image to 8 bits") as caught:
        predictor(replace(volume, array=other))
    assert caught.value.code == "more-than-8-bits"


def test_labels_have_the_colours_of_the_metadata_or_of_voc(tmp_path) -> None:
    plain = load_bundle(write_picture_bundle(tmp_path / "plain"))
    assert [label.color for label in plain.labels] == [(128, 0, 0), (0, 128, 0)]
    own = load_bundle(write_picture_bundle(tmp_path / "own", colors={2: [1, 2, 3]}))
    assert [label.color for label in own.labels] == [(128, 0, 0), (1, 2, 3)]
    solid = load_bundle(write_toy_bundle(tmp_path / "solid"))
    assert solid.labels[0].color == (230, 25, 75)
