"""Changes of colour, against torchvision where it knows them."""

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from medseg.errors import UsageError
from medseg.transforms import RandColord
from medseg.transforms.rand_colour import LUMA, recolored


@pytest.fixture
def image() -> torch.Tensor:
    return 0.3 + 0.4 * torch.rand(3, 17, 23, generator=torch.Generator().manual_seed(0))


def luma(image: torch.Tensor) -> torch.Tensor:
    return torch.tensordot(torch.from_numpy(LUMA).float(), image, dims=1)


@pytest.mark.parametrize("factor", [0.7, 1.2])
def test_saturation_is_torchvisions(image, factor) -> None:
    expected = functional.adjust_saturation(image, factor)
    assert torch.allclose(recolored(image, 0, 0, factor - 1, 0), expected, atol=1e-3)


@pytest.mark.parametrize("factor", [0.7, 1.2])
def test_contrast_is_torchvisions(image, factor) -> None:
    expected = functional.adjust_contrast(image, factor)
    assert torch.allclose(recolored(image, 0, factor - 1, 0, 0), expected, atol=1e-3)


def test_brightness_shifts_every_channel(image) -> None:
    assert torch.allclose(recolored(image, 0.25, 0, 0, 0), image + 0.25, atol=1e-5)


def test_hue_turns_colours_and_neither_greys_nor_brightness(image) -> None:
    turned = recolored(image, 0, 0, 0, 40)
    assert (turned - image).abs().max() > 0.1
    assert torch.allclose(luma(turned), luma(image), atol=1e-3)
    grey = image[:1].repeat(3, 1, 1)
    assert torch.allclose(recolored(grey, 0, 0, 0, 40), grey, atol=1e-3)
    back = recolored(recolored(image, 0, 0, 0, 180), 0, 0, 0, 180)
    assert torch.allclose(back, image, atol=1e-4)


def test_one_channel_has_brightness_and_contrast_alone(image) -> None:
    grey = image[:1]
    changed = recolored(grey, 0.1, 0.5, 0.9, 70)
    assert torch.allclose(changed, 1.5 * grey - 0.5 * grey.mean() + 0.1, atol=1e-5)


def test_normalised_images_change_alike(image) -> None:
    numbers = (0.0, 0.2, 0.3, 20.0)
    changed = recolored((image - 0.5) / 0.2, *numbers)
    assert torch.allclose(changed, (recolored(image, *numbers) - 0.5) / 0.2, atol=1e-4)


def test_it_is_drawn_with_the_chance_asked_for_and_repeats_with_its_seed(image) -> None:
    transform = RandColord("image", prob=0.4)
    transform.set_random_state(3)
    first = [transform({"image": image})["image"] for _ in range(200)]
    changed = [not torch.equal(one, image) for one in first]
    assert 0.3 < np.mean(changed) < 0.5
    transform.set_random_state(3)
    again = [transform({"image": image})["image"] for _ in range(200)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_labels_stay(image) -> None:
    label = torch.ones(1, 17, 23, dtype=torch.uint8)
    out = RandColord("image", prob=1.0)({"image": image, "label": label})
    assert out["label"] is label
    assert out["image"].dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"contrast": 1.5}, {"brightness": -1}, {"hue_degrees": 190}])
def test_numbers_that_make_no_sense_are_refused(wrong) -> None:
    with pytest.raises(UsageError, match="must be from 0 to"):
        RandColord("image", **wrong)


def test_two_channels_are_refused(image) -> None:
    with pytest.raises(UsageError, match="1 or 3 channels"):
        recolored(image[:2], 0, 0, 0, 0)
