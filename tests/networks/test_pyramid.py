"""Averages over bins are those of torch and of the library that they stand in for."""

from importlib import import_module

import pytest
import torch

from medseg.networks import build_network
from medseg.networks.pyramid import BinAverage


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(1, 1), (2, 25), (6, 6), (7, 13), (60, 45)])
def test_averages_are_those_of_torch(bins: int, size: tuple[int, int]) -> None:
    image = torch.randn(2, 3, *size)
    expected = torch.nn.functional.adaptive_avg_pool2d(image, bins)
    assert torch.allclose(BinAverage(bins)(image), expected, atol=1e-6)


def test_the_gradient_is_that_of_torch() -> None:
    image = torch.randn(1, 2, 7, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(1, 2, 3, 3, dtype=torch.float64)
    (BinAverage(3)(image) * weights).sum().backward()
    found = image.grad.clone()
    image.grad = None
    (torch.nn.functional.adaptive_avg_pool2d(image, 3) * weights).sum().backward()
    assert torch.allclose(found, image.grad)


def test_pspnet_is_that_of_the_library() -> None:
    ours = build_network("pspnet", in_channels=3, out_channels=3, encoder="resnet18").eval()
    library = import_module("segmentation_models_pytorch")  # imported above, without its warnings
    theirs = library.PSPNet(
        "resnet18", encoder_weights=None, encoder_depth=5, output_stride=8, classes=3
    ).eval()
    ours.network.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 3, 64, 40)
    with torch.no_grad():
        expected = theirs(image)
        assert torch.allclose(ours(image), expected, atol=1e-5 * expected.abs().max().item())
