import math

import pytest
import torch

from medseg.bundle.export_parity import (
    LEAST_AGREEMENT,
    Parity,
    compare,
    make_trials,
    other_shape,
    random_image,
)
from medseg.errors import BundleError


class Double(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, 2 * x], dim=1)


class Halving(torch.nn.Module):
    """Takes only multiples of 8."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.avg_pool3d(x, 8)
        return x + torch.nn.functional.interpolate(small, scale_factor=8)


TRIALS = make_trials(Double(), [(1, 1, 8, 8, 8), (2, 1, 8, 8, 8)])


def test_the_network_itself_agrees_with_itself() -> None:
    parity = compare(Double(), TRIALS)
    assert parity.holds
    assert (parity.max_abs_difference, parity.label_agreement) == (0.0, 1.0)
    assert parity.largest_output == max(float(t.expected.abs().max()) for t in TRIALS)
    assert parity.shapes == ((1, 1, 8, 8, 8), (2, 1, 8, 8, 8))


def test_the_largest_difference_of_all_inputs_counts() -> None:
    def answer(image: torch.Tensor) -> torch.Tensor:
        result = Double()(image)
        if len(image) == 2:
            result[1, 0, 3, 4, 5] += 7.0
        return result

    assert compare(answer, TRIALS).max_abs_difference == pytest.approx(7.0, rel=1e-6)
    assert not compare(answer, TRIALS).holds


@pytest.mark.parametrize(
    "wrong",
    [
        lambda image: torch.full_like(Double()(image), math.nan),
        lambda image: Double()(image)[:, :1],
        lambda image: Double()(image)[..., :-1],
    ],
)
def test_no_number_or_another_shape_never_holds(wrong) -> None:
    parity = compare(wrong, TRIALS)
    assert parity.max_abs_difference == math.inf
    assert not parity.holds


def test_labels_are_counted_by_class_or_by_region() -> None:
    trial = make_trials(Double(), [(1, 1, 8, 8, 8)])
    positive = float((trial[0].image > 0).double().mean())

    def swapped(image: torch.Tensor) -> torch.Tensor:
        return Double()(image).flip(1)

    assert compare(swapped, trial).label_agreement == 0.0, "each voxel has the other class"
    assert compare(swapped, trial, regions=True).label_agreement == 1.0, "both have one sign"

    def emptied(image: torch.Tensor) -> torch.Tensor:
        return -Double()(image).abs()

    found = compare(emptied, trial, regions=True).label_agreement
    assert found == pytest.approx(1 - positive, abs=1e-6)


def test_few_equal_labels_alone_are_enough_to_fail() -> None:
    assert not Parity(0.0, 1.0, LEAST_AGREEMENT - 1e-4, ()).holds
    assert Parity(0.0, 1.0, LEAST_AGREEMENT, ()).holds


def test_images_repeat_with_their_seed_and_fill_the_range() -> None:
    first, second = random_image((2, 20, 24), 3, (0, 1)), random_image((2, 20, 24), 3, (0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, random_image((2, 20, 24), 4, (0, 1)))
    assert first.shape == (1, 2, 20, 24)
    assert 0 <= first.min() < 0.3
    assert 0.7 < first.max() <= 1


def test_a_second_shape_is_one_that_the_network_takes() -> None:
    assert other_shape(Double(), 1, (8, 8, 8)) == (4, 4, 4)
    assert other_shape(Double(), 1, (8, 6, 1)) == (4, 3, 1)
    assert other_shape(Double(), 1, (1, 1, 1)) == (2, 1, 1)
    assert other_shape(Halving(), 1, (8, 8, 16)) == (8, 8, 8)
    assert other_shape(torch.nn.Flatten(), 1, (8, 8, 8)) is None


@pytest.mark.parametrize(
    ("network", "code"),
    [
        (torch.nn.Conv3d(2, 1, 1), "bad-config"),
        (torch.nn.MaxPool3d(2), "bad-output"),
        (torch.nn.Threshold(1e9, math.nan), "non-finite-output"),
    ],
)
def test_a_network_that_is_no_reference_is_refused(network, code) -> None:
    with pytest.raises(BundleError) as caught:
        make_trials(network, [(1, 1, 8, 8, 8)])
    assert caught.value.code == code
