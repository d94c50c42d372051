"""The two inferers that a bundle's YAML can name."""

import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, decollate_batch
from monai.inferers import SlidingWindowInferer
from monai.transforms import AsDiscreted, Compose, Invertd, LoadImaged, Orientationd

from medseg.errors import BundleError, InputError
from medseg.inference.inferers import MaskInferer, StreamingInferer
from medseg.io.nifti import write_nifti_image
from medseg.transforms import ImageReader, Resampled
from medseg.volume import Volume

pytestmark = pytest.mark.filterwarnings(
    "ignore:NvImgCodecPydicomReader", "ignore:.*Orientationd.*labels:FutureWarning"
)


def _network(x: torch.Tensor) -> torch.Tensor:
    blurred = torch.nn.functional.avg_pool3d(x, 3, 1, 1, count_include_pad=False)
    return torch.cat([0.2 - blurred.abs(), blurred, -1.5 * blurred - 0.1], 1)


@torch.inference_mode()
def test_class_maps_of_a_batch_equal_monais_and_keep_their_metadata() -> None:
    array = np.random.default_rng(0).normal(size=(2, 1, 20, 33, 9)).astype(np.float32)
    inputs = MetaTensor(torch.from_numpy(array), meta={"name": "x"})
    options = {"roi_size": (8, 12, 16), "sw_batch_size": 2, "overlap": 0.4, "mode": "gaussian"}
    expected = SlidingWindowInferer(**options)(inputs, _network)
    result = StreamingInferer(**options)(inputs, _network)
    torch.testing.assert_close(result.as_tensor(), expected.as_tensor(), rtol=1e-5, atol=1e-5)
    assert isinstance(result, MetaTensor)
    assert result.meta["name"] == "x"


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, -1)])
@torch.inference_mode()
def test_the_mask_lies_on_the_source_as_monais_steps_put_it(tmp_path, flips) -> None:
    rng = np.random.default_rng(1)
    small = torch.from_numpy(rng.normal(size=(1, 1, 6, 7, 5))).float()
    array = torch.nn.functional.interpolate(small, (31, 44, 19), mode="trilinear")[0].numpy()
    affine = np.diag([*(np.array([0.8, 1.1, 2.5]) * flips), 1.0])[[1, 0, 2, 3]]
    path = tmp_path / "image.nii.gz"
    write_nifti_image(Volume(2 * array, affine), path)
    preprocessing = Compose(
        [
            LoadImaged("image", reader=ImageReader()),
            Orientationd("image", axcodes="RAS"),
            Resampled("image", (1.0, 1.0, 2.0), {"image": 1}, {"image": 0}),
        ]
    )
    loader = DataLoader(Dataset([{"image": str(path)}], preprocessing), batch_size=1)
    inferer = SlidingWindowInferer((16, 16, 8), overlap=0.5, mode="gaussian")
    batch = next(iter(loader))
    mask = MaskInferer(inferer, values=(0, 4, 9))(batch["image"], _network)
    batch["pred"] = inferer(batch["image"], _network)
    (item,) = decollate_batch(batch)
    inverse = Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False)
    item = AsDiscreted("pred", argmax=True)(inverse(item))
    (own,) = decollate_batch({"pred": mask})
    expected = np.array([0, 4, 9])[item["pred"].numpy().astype(int)]
    assert own["pred"].shape == expected.shape == (1, 31, 44, 19)
    assert (own["pred"].numpy() == expected).mean() > 0.999  # ties within rounding
    np.testing.assert_allclose(own["pred"].affine, affine, atol=1e-6)


@torch.inference_mode()
def test_what_cannot_be_streamed_is_left_to_monai() -> None:
    inputs = torch.randn(1, 1, 20, 16, 12)

    def two_outputs(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _network(x), x

    found = StreamingInferer((8, 8, 8), overlap=0.5)(inputs, two_outputs)
    expected = SlidingWindowInferer((8, 8, 8), overlap=0.5)(inputs, two_outputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)

    def places(x: torch.Tensor, where: object) -> torch.Tensor:
        return x + float(np.sum([span.start for one in where for span in one[2:]]))

    options = {"roi_size": (8, 8, 8), "overlap": 0.5, "with_coord": True}
    found = StreamingInferer(**options)(inputs, places)
    torch.testing.assert_close(found, SlidingWindowInferer(**options)(inputs, places))


@pytest.mark.parametrize(
    ("network", "error"),
    [
        (lambda x: _network(x)[:, :2], BundleError),
        (lambda x: torch.cat([_network(x)] * 2, 1), BundleError),
        (lambda x: _network(x) / 0, InputError),
    ],
)
def test_maps_that_cannot_be_decided_are_refused(network, error) -> None:
    meta = {"original_affine": np.eye(4), "spatial_shape": [16] * 3}
    inputs = MetaTensor(torch.zeros(1, 1, 16, 16, 16), affine=torch.eye(4)[None], meta=meta)
    with pytest.raises(error):
        MaskInferer(SlidingWindowInferer((8, 8, 8)), values=(0, 1, 2))(inputs, network)


def test_an_image_without_metadata_has_no_source() -> None:
    inferer = MaskInferer(SlidingWindowInferer((8, 8, 8)), values=(0, 1, 2))
    for inputs in (torch.zeros(1, 1, 8, 8, 8), MetaTensor(torch.zeros(2, 1, 8, 8, 8))):
        with pytest.raises(ValueError, match="knows where it came from"):
            inferer(inputs, _network)
