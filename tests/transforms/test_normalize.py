from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import NormalizeIntensity, ScaleIntensity

from medseg.errors import UsageError
from medseg.transforms import NormalizeChannelsd


def _run(image: torch.Tensor, *schemes: dict[str, Any]) -> torch.Tensor:
    result: torch.Tensor = NormalizeChannelsd("image", schemes)({"image": image})["image"]
    return result


@pytest.fixture
def image() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 300 * torch.randn(2, 9, 8, 7, generator=generator) + 50


def test_zscore_is_monais(image: torch.Tensor) -> None:
    expected = NormalizeIntensity(channel_wise=True)(image)
    assert torch.allclose(_run(image, {"scheme": "zscore"}), expected, atol=1e-5)


def test_zscore_over_what_is_not_zero_is_monais_and_leaves_zeros(image: torch.Tensor) -> None:
    image[:, :3] = 0
    expected = NormalizeIntensity(nonzero=True, channel_wise=True)(image)
    result = _run(image, {"scheme": "zscore", "nonzero": True})
    assert torch.allclose(result, expected, atol=1e-5)
    assert (result[:, :3] == 0).all()


def test_zeros_within_a_head_or_of_one_channel_alone_are_values(image: torch.Tensor) -> None:
    image[:, :2] = 0
    image[0, 5, 4, 4] = 0  # another channel has a value here
    image[:, 6, 4, 4] = 0  # a hole
    result = _run(image, {"scheme": "zscore", "nonzero": True})
    inside = image[:, 2:]
    expected = (inside - inside.mean((1, 2, 3), keepdim=True)) / inside.std(
        (1, 2, 3), correction=0, keepdim=True
    )
    assert torch.allclose(result[:, 2:], expected, atol=1e-4)
    assert (result[:, :2] == 0).all()


def test_zscore_looks_at_the_box_around_what_is_not_zero(image: torch.Tensor) -> None:
    padded = torch.zeros(2, 19, 18, 17)
    padded[:, 5:14, 6:14, 4:11] = image
    result = _run(padded, {"scheme": "zscore"})
    assert torch.allclose(result[:, 5:14, 6:14, 4:11], _run(image, {"scheme": "zscore"}), atol=1e-5)


def test_ct_is_clipped_then_shifted_and_divided(image: torch.Tensor) -> None:
    result = _run(image, {"scheme": "ct", "low": -100, "high": 200, "mean": 40.0, "std": 80.0})
    expected = (np.clip(image.numpy(), -100, 200) - 40) / 80
    assert np.allclose(result.numpy(), expected, atol=1e-5)


def test_rescale_is_monais(image: torch.Tensor) -> None:
    expected = ScaleIntensity(channel_wise=True)(image)
    assert torch.allclose(_run(image, {"scheme": "rescale"}), expected, atol=1e-5)


def test_each_channel_has_its_own_scheme(image: torch.Tensor) -> None:
    result = _run(image, {"scheme": "none"}, {"scheme": "zscore"})
    assert torch.equal(result[0], image[0])
    assert result[1].mean().item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("nonzero", [True, False])
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_stays_finite(nonzero: bool, value: float) -> None:
    image = torch.full((1, 4, 4), value)
    result = _run(image, {"scheme": "zscore", "nonzero": nonzero})
    assert (result == 0).all()
    assert torch.isfinite(_run(image, {"scheme": "rescale"})).all()


def test_the_input_stays_and_metadata_goes_along(image: torch.Tensor) -> None:
    affine = torch.diag(torch.tensor([2.0, 2, 2, 1], dtype=torch.float64))
    tensor = MetaTensor(image.clone().to(torch.int16), affine=affine)
    result = _run(tensor, {"scheme": "zscore"})
    assert torch.equal(tensor.as_tensor(), image.to(torch.int16))
    assert result.dtype == torch.float32
    assert torch.equal(result.affine, affine)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("schemes", "match"),
    [
        ([], "at least one"),
        ([{"scheme": "percentile"}], "must be among"),
        ([{"scheme": "ct", "low": 0, "high": 1, "mean": 0}], "got no std"),
    ],
)
def test_schemes_that_cannot_be_used_are_refused(schemes: list[Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        NormalizeChannelsd("image", schemes)


def test_schemes_must_fit_the_channels(image: torch.Tensor) -> None:
    with pytest.raises(UsageError, match="got 3 for 2 channels"):
        _run(image, *[{"scheme": "none"}] * 3)


def test_fixed_numbers_are_the_same_for_every_image() -> None:
    scheme = {"scheme": "fixed", "mean": 100.0, "std": 50.0}
    for image in (torch.full((1, 4, 4), 150.0), torch.zeros(1, 4, 4)):
        out = NormalizeChannelsd("image", [scheme])({"image": image})["image"]
        assert torch.allclose(out, (image - 100) / 50)
    with pytest.raises(UsageError, match="fixed must give mean, std"):
        NormalizeChannelsd("image", [{"scheme": "fixed", "mean": 1.0}])
