"""Blurring gives MONAI's numbers."""

import numpy as np
import pytest
import torch
from monai.transforms import GaussianSmooth

from medseg.transforms import RandSmoothd
from medseg.transforms.rand_smooth import smooth


@pytest.mark.parametrize("shape", [(1, 20, 18, 16), (3, 5, 3, 2), (2, 20, 31), (1, 1, 1, 7)])
def test_the_numbers_are_those_of_monai(shape) -> None:
    image = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    sigma = [0.5, 0.83, 1.7][: len(shape) - 1]
    before = image.clone()
    expected = GaussianSmooth(sigma=sigma)(image).as_tensor()
    assert (smooth(image, sigma) - expected).abs().max() < 1e-6
    assert torch.equal(image, before)


def test_it_is_drawn_for_each_axis_and_as_often_as_asked() -> None:
    transform = RandSmoothd("image", sigma=(0.5, 1.0), prob=0.2).set_random_state(0)
    image = torch.randn(1, 6, 6, 6)
    changed, drawn = 0, []
    for _ in range(500):
        result = transform({"image": image, "other": 1})
        changed += not torch.equal(result["image"], image)
        drawn.append(transform.drawn)
    assert abs(changed / 500 - 0.2) < 0.072  # four standard deviations
    assert np.min(drawn) >= 0.5
    assert np.max(drawn) <= 1.0
    assert np.ptp(drawn, axis=1).min() > 0


def test_keys_share_one_draw() -> None:
    transform = RandSmoothd(["a", "b"], prob=1.0).set_random_state(0)
    image = torch.randn(1, 6, 6)
    result = transform({"a": image, "b": image})
    assert torch.equal(result["a"], result["b"])


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="sigma must be two rising numbers above 0"):
        RandSmoothd("image", sigma=(1.0, 0.5))
    with pytest.raises(ValueError, match="sigma must have 3 values"):
        smooth(torch.zeros(1, 2, 2, 2), [1.0])
