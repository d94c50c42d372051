"""Crop and resampling of nnU-Net v2, against a plain account of them."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage
from skimage.transform import resize

from medseg.errors import UsageError
from medseg.transforms import CropNonzerod, NnunetResampled


def _image(spacing: tuple[float, ...], shape: tuple[int, ...] = (2, 14, 17, 10)) -> MetaTensor:
    noise = np.random.default_rng(0).normal(size=shape)
    image = ndimage.gaussian_filter(noise, (0, 1, 1, 1)).astype(np.float32)
    return MetaTensor(torch.from_numpy(image), affine=torch.diag(torch.tensor([*spacing, 1.0])))


def _plain(image: np.ndarray, shape: tuple[int, ...], coarse: int | None, order: int) -> np.ndarray:
    """Resize each channel, slice by slice across a coarse axis, which has an order of its own."""
    options = {"order": 3, "mode": "edge", "anti_aliasing": False}
    if coarse is None:
        return np.stack([resize(one, shape, **options) for one in image])
    plane = tuple(n for axis, n in enumerate(shape) if axis != coarse)
    result = []
    for one in image.astype(np.float64):
        slices = [resize(part, plane, **options) for part in np.moveaxis(one, coarse, 0)]
        places = (np.arange(shape[coarse]) + 0.5) * len(slices) / shape[coarse] - 0.5
        grid = np.meshgrid(places, *map(np.arange, plane), indexing="ij")
        found = ndimage.map_coordinates(np.stack(slices), grid, order=order, mode="nearest")
        result.append(np.moveaxis(found, 0, coarse))
    return np.stack(result)


@pytest.mark.parametrize(
    ("spacing", "wanted", "shape", "coarse"),
    [
        ((0.8, 1.0, 1.5), (1.0, 1.0, 1.0), (11, 17, 15), None),
        ((0.8, 0.8, 4.0), (1.0, 0.6, 4.0), (11, 23, 10), 2),
        ((0.8, 0.8, 4.0), (1.0, 1.0, 2.0), (11, 14, 20), 2),
        ((4.0, 1.0, 1.0), (8.0, 1.2, 1.0), (7, 14, 10), 0),
        ((1.0, 1.0, 1.0), (1.0, 5.0, 1.0), (14, 3, 10), 1),
        ((0.8, 0.8, 4.0), (1.0, 1.0, None), (11, 14, 10), 2),
    ],
)
@pytest.mark.parametrize("order", [0, 1])
def test_images_are_resampled_as_by_a_plain_account(
    spacing: tuple[float, ...],
    wanted: tuple[float | None, ...],
    shape: tuple[int, ...],
    coarse: int | None,
    order: int,
) -> None:
    image = _image(spacing)
    before = image.clone()
    found = NnunetResampled("image", wanted, 3, order)({"image": image})["image"]
    expected = _plain(image.numpy(), shape, coarse, order)
    assert tuple(found.shape[1:]) == shape
    assert np.abs(found.numpy() - expected).max() < 1e-5
    assert torch.equal(image, before)


def test_a_coarse_axis_is_apart_only_where_that_is_asked_for() -> None:
    image = _image((1.0, 1.0, 5.0))
    joined = NnunetResampled("image", (1.2, 1.2, 2.5), separate=False)({"image": image})["image"]
    assert np.abs(joined.numpy() - _plain(image.numpy(), (12, 14, 20), None, 3)).max() < 1e-5
    image = _image((1.0, 1.0, 2.0))
    apart = NnunetResampled("image", (1.2, 1.2, 1.0), separate=True)({"image": image})["image"]
    assert np.abs(apart.numpy() - _plain(image.numpy(), (12, 14, 20), 2, 0)).max() < 1e-5


def test_an_unknown_order_is_refused() -> None:
    with pytest.raises(UsageError, match="order must be"):
        NnunetResampled("image", (1.0, 1.0, 1.0), order=2)


def test_images_are_cropped_to_what_is_not_zero_in_some_channel() -> None:
    array = torch.zeros(2, 6, 7, 8)
    array[0, 2, 3, 4], array[1, 4, 1, 5] = 5.0, -1.0
    image = MetaTensor(array, affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    found = CropNonzerod("image")({"image": image})["image"]
    assert torch.equal(found.as_tensor(), array[:, 2:5, 1:4, 4:6])
    assert found.affine[:3, 3].tolist() == [4.0, 3.0, 16.0]
    assert image.shape == array.shape


def test_an_image_of_zeros_stays_whole() -> None:
    image = MetaTensor(torch.zeros(1, 4, 5, 6), affine=torch.eye(4))
    assert CropNonzerod("image")({"image": image})["image"].shape == image.shape
