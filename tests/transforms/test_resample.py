from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, LoadImaged, Orientationd
from scipy import ndimage
from skimage.transform import resize

from medseg.errors import InputError, UsageError
from medseg.inference.restore import mask_from_class_maps
from medseg.io.locator import Locator
from medseg.io.raster import write_png
from medseg.transforms import ImageReader, Resample, Resampled
from medseg.transforms.axis_matrix import axis_matrix
from medseg.transforms.resample import STATES_SPACING, coarse_axis


def _image(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int = 0) -> MetaTensor:
    rng = np.random.default_rng(seed)
    array = ndimage.gaussian_filter(rng.normal(size=shape), 1.0).astype(np.float32)
    affine = np.diag([*spacing, 1.0])
    affine[:-1, -1] = (10.0, -20.0, 30.0)[: len(spacing)]
    return MetaTensor(torch.from_numpy(array)[None], affine=torch.from_numpy(affine))


@pytest.mark.parametrize(
    ("shape", "spacing", "wanted"),
    [
        ((21, 30, 17), (1.0, 0.8, 1.4), (1.3, 1.1, 1.0)),  # coarser and finer
        ((20, 31, 9), (0.5, 0.5, 1.2), (1.5, 1.5, 1.5)),
        ((7, 9, 5), (2.0, 2.0, 2.0), (0.7, 0.9, 1.1)),
    ],
)
def test_cubic_splines_are_those_of_nnunet(
    shape: tuple[int, ...], spacing: tuple[float, ...], wanted: tuple[float, ...]
) -> None:
    image = _image(shape, spacing)
    result = Resample(wanted, order=3)(image)
    size = tuple(round(n * s / w) for n, s, w in zip(shape, spacing, wanted, strict=True))
    expected = resize(image[0].numpy(), size, order=3, mode="edge", anti_aliasing=False, clip=True)
    assert tuple(result.shape[1:]) == size
    tolerance = 1e-4 * float(image.max() - image.min())  # float32 against float64
    assert np.abs(result[0].numpy() - expected).max() < tolerance


def test_linear_interpolation_is_that_of_torch() -> None:
    image = _image((13, 20, 11), (1.0, 1.0, 1.0))
    result = Resample((0.6, 1.7, 0.9), order=1)(image)
    expected = torch.nn.functional.interpolate(
        image.as_tensor()[None], tuple(result.shape[1:]), mode="trilinear", align_corners=False
    )[0]
    assert torch.allclose(result.as_tensor(), expected, atol=1e-5)


@pytest.mark.parametrize("order", [1, 3])
def test_a_ramp_keeps_its_value_at_every_place_in_the_patient(order: int) -> None:
    affine = np.array([[0, 1.5, 0, 5], [-0.7, 0, 0, 9], [0, 0, 2.0, -4], [0, 0, 0, 1.0]])
    grid = np.stack(np.meshgrid(*map(np.arange, (30, 24, 20)), indexing="ij"), -1)
    world = grid @ affine[:3, :3].T + affine[:3, 3]
    direction = np.array([0.3, -0.8, 0.5])
    image = MetaTensor(
        torch.from_numpy((world @ direction).astype(np.float32))[None],
        affine=torch.from_numpy(affine),
    )
    result = Resample((1.0, 1.0, 1.0), order=order)(image)
    found = result.affine.numpy()
    ranges = (np.arange(5, extent - 5) for extent in result.shape[1:])
    inner = np.stack(np.meshgrid(*ranges, indexing="ij"), -1)
    expected = (inner @ found[:3, :3].T + found[:3, 3]) @ direction
    values = result[0].numpy()[5:-5, 5:-5, 5:-5]
    assert np.abs(values - expected).max() < 5e-3 * np.abs(expected).max()


def test_the_field_of_view_stays() -> None:
    image = _image((10, 11, 12), (1.0, 2.0, 3.0))
    result = Resample((1.3, 1.3, 1.3))(image)
    for n_old, n_new, corner in ((10, result.shape[1], -0.5), (10, result.shape[1], None)):
        old = corner if corner is not None else n_old - 0.5
        new = corner if corner is not None else n_new - 0.5
        before = image.affine @ torch.tensor([old, 0, 0, 1.0], dtype=torch.float64)
        after = result.affine @ torch.tensor([new, 0, 0, 1.0], dtype=torch.float64)
        assert before[0] == pytest.approx(float(after[0]))


def test_a_coarse_axis_is_interpolated_apart() -> None:
    image = _image((24, 24, 6), (1.0, 1.0, 5.0))
    result = Resample((1.5, 1.5, 4.0), order=3, coarse_order=0)(image)
    planes = [
        resize(plane, (16, 16), order=3, mode="edge", anti_aliasing=False, clip=False)
        for plane in image[0].numpy().transpose(2, 0, 1)
    ]
    nearest = np.rint((np.arange(8) + 0.5) * 6 / 8 - 0.5).clip(0, 5).astype(int)
    expected = np.stack([planes[k] for k in nearest], -1)
    expected = expected.clip(float(image.min()), float(image.max()))
    assert result.shape == (1, 16, 16, 8)
    assert np.abs(result[0].numpy() - expected).max() < 1e-3


def test_labels_are_not_mixed_and_follow_the_largest_mask() -> None:
    rng = np.random.default_rng(1)
    blobs = ndimage.gaussian_filter(rng.normal(size=(20, 18, 16)), 2)
    label = np.digitize(blobs, np.quantile(blobs, [0.4, 0.7, 0.9])).astype(np.uint8) * 40
    tensor = MetaTensor(torch.from_numpy(label)[None], affine=torch.eye(4, dtype=torch.float64))
    result = Resample((0.7, 1.3, 0.8), order=1, coarse_order=0, labels=True)(tensor)
    values = np.unique(label)
    masks = torch.stack([(tensor[0] == int(v)).float() for v in values])
    linear = torch.nn.functional.interpolate(
        masks[None], tuple(result.shape[1:]), mode="trilinear", align_corners=False
    )[0]
    expected = values[linear.argmax(0).numpy()]
    sure = linear.topk(2, dim=0).values
    clear = (sure[0] - sure[1] > 1e-4).numpy()
    assert result.dtype == torch.uint8
    assert np.array_equal(result[0].numpy()[clear], expected[clear])
    assert set(np.unique(result.numpy())) <= set(values)


def test_a_label_thinner_than_the_new_voxels_does_no_harm() -> None:
    label = torch.zeros(1, 40, 8, 8, dtype=torch.uint8)
    label[0, 17] = 3
    tensor = MetaTensor(label, affine=torch.eye(4, dtype=torch.float64))
    result = Resample((8.0, 1.0, 1.0), order=1, coarse_order=1, labels=True)(tensor)
    assert set(result.unique().tolist()) <= {0, 3}


def test_regions_stay_zero_and_one() -> None:
    regions = torch.zeros(2, 16, 16, dtype=torch.uint8)
    regions[0, 4:12, 4:12] = 1
    regions[1, 6:9, 6:9] = 1
    tensor = MetaTensor(regions, affine=torch.eye(3, dtype=torch.float64))
    result = Resample((0.5, 0.5), order=1, coarse_order=0, labels=True)(tensor)
    assert result.shape == (2, 32, 32)
    assert result.unique().tolist() == [0, 1]
    assert int(result[0].sum()) == 16 * 16


def test_an_image_at_its_spacing_is_left_as_it_is() -> None:
    image = _image((8, 9, 10), (1.0, 1.0, 1.0))
    result = Resample((1.0, 1.0, 1.0))(image)
    assert torch.equal(result.as_tensor(), image.as_tensor())
    assert torch.equal(result.affine, image.affine)


def test_the_input_stays_as_it_is() -> None:
    image = _image((8, 9, 10), (1.0, 1.0, 2.0))
    before, affine = image.as_tensor().clone(), image.affine.clone()
    Resample((0.7, 1.0, 1.0))(image)
    assert torch.equal(image.as_tensor(), before)
    assert torch.equal(image.affine, affine)
    assert not image.applied_operations


@pytest.mark.parametrize("nearest", [True, False])
def test_monais_invertd_brings_class_maps_back(nearest: bool) -> None:
    image = _image((20, 16, 12), (1.0, 1.2, 2.0))
    image.affine[0] *= -1  # LAS: the axis is flipped first
    chain = Compose(
        [
            Orientationd(keys="image", axcodes="RAS", labels=None),
            Resampled("image", (0.9, 0.9, 0.9), {"image": 3}, {"image": 0}),
        ]
    )
    data: dict[str, Any] = chain({"image": image})
    data["pred"] = data["image"].clone()
    back = Invertd("pred", chain, orig_keys="image", nearest_interp=nearest)(data)["pred"]
    assert back.shape == image.shape
    assert torch.allclose(back.affine, image.affine)
    inner = (slice(None), *[slice(2, -2)] * 3)
    allowed = 0.5 if nearest else 0.2
    assert (back[inner] - image[inner]).abs().max() < allowed * image.abs().max()


def test_class_maps_on_the_new_grid_restore_to_the_source_grid() -> None:
    rng = np.random.default_rng(3)
    blobs = ndimage.gaussian_filter(rng.normal(size=(30, 26, 12)), (3, 3, 1.5))
    label = (blobs > np.quantile(blobs, 0.8)).astype(np.uint8)
    affine = np.array([[-1.1, 0, 0, 40], [0, 0.9, 0, -10], [0, 0, 2.5, 7], [0, 0, 0, 1.0]])
    tensor = MetaTensor(torch.from_numpy(label)[None].float(), affine=torch.from_numpy(affine))
    chain = [
        Orientationd(keys="image", axcodes="RAS", labels=None),
        Resampled("image", (0.8, 0.8, 0.8), {"image": 1}, {"image": 1}),
    ]
    data: dict[str, Any] = {"image": tensor}
    for transform in chain:
        data = transform(data)
    inside = data["image"].as_tensor()
    class_maps = torch.cat([1 - inside, inside])
    mask = mask_from_class_maps(class_maps, data["image"].affine.numpy(), label.shape, affine)
    both = np.logical_and(mask == 1, label == 1).sum()
    assert 2 * both / (mask.sum() + label.sum()) > 0.97


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("old", "new"), [(7, 7), (7, 15), (15, 4), (1, 3), (2, 1)])
def test_rows_of_an_axis_matrix_sum_to_one(order: int, old: int, new: int) -> None:
    matrix = axis_matrix(old, new, order)
    assert matrix.shape == (new, old)
    assert torch.allclose(matrix.sum(1), torch.ones(new), atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new"), [(1, 3), (2, 5), (3, 2), (5, 64), (64, 5), (100, 37), (130, 131), (300, 480)]
)
def test_a_cubic_matrix_is_scipy_s(old: int, new: int) -> None:
    wanted = ndimage.zoom(np.eye(old), (new / old, 1), order=3, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(axis_matrix(old, new, 3).numpy(), wanted, rtol=0, atol=1e-7)


def test_channels_of_a_picture_are_interpolated_one_by_one() -> None:
    picture = torch.rand(3, 40, 57)
    affine = torch.eye(4)
    transform = Resample((0.7, 0.8), 3)
    whole = transform(MetaTensor(picture, affine=affine))
    for channel, one in zip(picture, whole, strict=True):
        alone = transform(MetaTensor(channel[None], affine=affine))
        torch.testing.assert_close(one.as_tensor(), alone.as_tensor()[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((1, 1, 3.0), None), ((1, 1, 3.1), 2), ((6, 1, 1), 0), ((1, 4, 4), None), ((1, 4), 1)],
)
def test_one_axis_alone_is_coarse(spacing: tuple[float, ...], axis: int | None) -> None:
    assert coarse_axis(spacing) == axis


@pytest.mark.parametrize(
    "settings",
    [{"order": 2}, {"order": 3, "labels": True}, {"coarse_order": 5}, {"spacing_mm": (1, 0, 1)}],
)
def test_what_cannot_be_used_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Resample(**{"spacing_mm": (1, 1, 1), **settings})


@pytest.mark.parametrize("spacing", [{}, {"spacing_mm": (1, 1), "spacing_px": (1, 1)}])
def test_one_unit_is_given_and_not_two(spacing: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="spacing_mm or spacing_px must be given"):
        Resample(**spacing)


@pytest.mark.parametrize("own", [(1.0, 1.0), (0.00025, 0.00025), (3.0, 0.5)])
def test_a_spacing_in_pixels_is_that_of_the_file_whatever_it_states(own: tuple[float, ...]) -> None:
    image = _image((20, 31), own)
    result = Resample(spacing_px=(0.5, 0.8))(image)
    assert result.shape[1:] == (40, 39)
    assert torch.equal(result.as_tensor(), Resample((0.5, 0.8))(_image((20, 31), (1, 1))))
    expected = np.array(own) * (20 / 40, 31 / 39)
    np.testing.assert_allclose(np.diag(np.asarray(result.affine))[:2], expected)


@pytest.mark.parametrize("key", ["image", "label"])
def test_a_pixel_is_not_taken_for_a_millimetre(key: str) -> None:
    image = _image((20, 31), (1, 1))
    settings = {"orders": {key: 1}, "coarse_order": {key: 0}}
    image.meta[STATES_SPACING] = True
    assert Resampled(key, (0.5, 0.5), **settings)({key: image})[key].shape[1:] == (40, 62)
    image.meta[STATES_SPACING] = False
    with pytest.raises(InputError, match=rf"{key} must state the size of its pixels") as caught:
        Resampled(key, (1.0, 1.0), **settings)({key: image})
    assert caught.value.code == "no-spacing"
    result = Resampled(key, spacing_px=(0.5, 0.5), **settings)({key: image})
    assert result[key].shape[1:] == (40, 62)


def test_a_tensor_without_an_affine_and_a_spacing_too_few_are_refused() -> None:
    with pytest.raises(UsageError, match="must carry an affine"):
        Resample((1, 1, 1))(torch.zeros(1, 4, 4, 4))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a value an axis"):
        Resample((1, 1))(_image((4, 4, 4), (1, 1, 1)))
    with pytest.raises(UsageError, match="must name every key"):
        Resampled(["image", "label"], (1, 1, 1), {"image": 3}, {"image": 0, "label": 0})


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # an optional codec of MONAI's
@pytest.mark.parametrize("objects", [False, True])
def test_labels_without_a_pixel_size_lie_where_their_picture_does(
    tmp_path: Path, objects: bool
) -> None:
    """The picture states 0.5 um a pixel, its mask as PNG nothing."""
    labels = np.zeros((40, 60), np.uint8)
    labels[10:20, 30:50] = 1
    write_png(labels, tmp_path / "mask.png")
    tifffile.imwrite(
        tmp_path / "image.tif", labels * np.uint8(200), imagej=True, resolution=(2, 2),
        metadata={"unit": "um"},
    )  # fmt: skip
    label = tmp_path / "mask.png"
    if objects:
        label = Locator(label, kind="numbers", codes=(("1-65535", 1),)).as_path()
    kind = None if objects else np.float32
    data = {"image": str(tmp_path / "image.tif"), "label": str(label)}
    steps = [
        LoadImaged("image", reader=ImageReader()),
        LoadImaged("label", reader=ImageReader(mask=not objects, objects=objects), dtype=kind),
        EnsureChannelFirstd(["image", "label"]),
        Resampled(
            ["image", "label"], (0.001, 0.001), {"image": 3, "label": 0 if objects else 1},
            {"image": 0, "label": 0},
        ),
    ]  # fmt: skip
    found = Compose(steps)(data)
    assert found["image"].shape[1:] == found["label"].shape[1:] == (20, 30)
    inside = found["label"][0].numpy() != 0
    assert inside[5:10, 15:25].all()
    assert inside.sum() == 50


@pytest.mark.parametrize("spacing_mm", [(1.5, 2.0, 2.5), (8.0, 1.4, 1.3), (0.6, 0.7, 0.8)])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 3, 2, 1)])
def test_values_scaled_in_passing_are_those_scaled_before(spacing_mm, order) -> None:
    torch.manual_seed(0)
    stored = torch.randint(-1000, 1000, (2, 40, 33, 37), dtype=torch.int16)
    image = MetaTensor(stored.permute(order), affine=torch.eye(4))
    kept = image.as_tensor().clone()

    def scale(channel: int, values: torch.Tensor) -> torch.Tensor:
        return values.float().clamp(-160, 240).sub_(40 + channel).div_(100)

    resample = Resample(spacing_mm, order=3)
    before = torch.stack([scale(n, one) for n, one in enumerate(image.as_tensor())])
    expected = resample(MetaTensor(before, affine=image.affine))
    found = resample(image, scale)
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), rtol=1e-6, atol=1e-6)
    assert found.dtype == torch.float32
    assert torch.equal(image.as_tensor(), kept)
    assert torch.equal(found.affine, expected.affine)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 2.0, 2.0), (1.0, 1.0, 5.0)])
def test_values_are_scaled_where_nothing_goes_plane_by_plane(spacing_mm) -> None:
    image = MetaTensor(
        torch.randint(0, 255, (1, 12, 14, 16), dtype=torch.uint8), affine=torch.eye(4)
    )
    found = Resample(spacing_mm, order=3)(image, lambda _, values: values.float() / 255)
    expected = Resample(spacing_mm, order=3)(
        MetaTensor(image.as_tensor() / 255, affine=image.affine)
    )
    torch.testing.assert_close(found.as_tensor(), expected.as_tensor())
