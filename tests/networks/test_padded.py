"""Images of any size reach a network as multiples of its stride."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from medseg.bundle.export_network import Source, open_network, write_network
from medseg.networks import PaddedNetwork
from medseg.networks.padded import mirrored
from medseg.networks.pyramid import PyramidLevel


class Picky(nn.Module):
    """Gives its image back, and remembers the shapes that it was given."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[2] % self.stride == 0
        assert x.shape[3] % self.stride == 0
        self.seen.append(tuple(x.shape))
        return x


@pytest.mark.parametrize("size", [(32, 64), (31, 33), (1, 1), (1, 500), (15, 200), (63, 2)])
def test_every_pixel_comes_back_to_its_place(size: tuple[int, int]) -> None:
    network = PaddedNetwork(Picky(32), 32)
    image = torch.arange(2 * size[0] * size[1]).reshape(1, 2, *size).float()
    assert torch.equal(network(image), image)


def test_a_fitting_image_reaches_the_network_untouched() -> None:
    given = []
    network = nn.Identity()
    network.register_forward_hook(lambda _, images, __: given.append(images[0]))
    image = torch.randn(1, 1, 32, 64)
    PaddedNetwork(network, 32)(image)
    assert given[0] is image


def test_no_more_is_added_than_the_stride_asks_for() -> None:
    picky = Picky(16)
    PaddedNetwork(picky, 16)(torch.zeros(1, 1, 17, 16))
    assert picky.seen == [(1, 1, 32, 16)]


def test_a_network_gets_the_fewest_cells_that_it_computes_with() -> None:
    picky = Picky(16)
    PaddedNetwork(picky, 16, least_cells=2)(torch.zeros(1, 1, 5, 40))
    assert picky.seen == [(1, 1, 32, 48)]


@pytest.mark.parametrize(("size", "before", "after"), [(1, 3, 4), (2, 5, 4), (7, 6, 6), (5, 23, 1)])
def test_mirroring_is_that_of_numpy_however_large_the_margin(
    size: int, before: int, after: int
) -> None:
    image = torch.randn(2, size, 3)
    expected = np.pad(image.numpy(), ((0, 0), (before, after), (0, 0)), mode="reflect")
    assert np.array_equal(mirrored(image, 1, before, after).numpy(), expected)


def test_a_constant_image_stays_constant() -> None:
    means = nn.AdaptiveAvgPool2d(1)  # as in pyramids over the whole image

    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return means(x).expand_as(x)

    image = torch.full((1, 1, 37, 53), 7.0)
    assert torch.allclose(PaddedNetwork(Mean(), 32)(image), image)


def test_a_gradient_reaches_every_pixel() -> None:
    image = torch.randn(1, 1, 5, 7, requires_grad=True)
    weights = torch.randn(1, 1, 5, 7)
    (PaddedNetwork(Picky(4), 4)(image) * weights).sum().backward()
    assert torch.equal(image.grad, weights)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 3, 8, 8, 8), (1, 3, 0, 8), (1, 3, 8, 0)])
def test_what_is_no_batch_of_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image must be \(B, C, H, W\) with pixels, got a shape"):
        PaddedNetwork(nn.Identity(), 8)(torch.zeros(shape))


def test_a_batch_too_small_to_train_on_is_refused_in_training_alone() -> None:
    network = PaddedNetwork(nn.Identity(), 8, least_batch=2)
    image = torch.zeros(1, 1, 8, 8)
    assert network.eval()(image).shape == image.shape
    with pytest.raises(ValueError, match=r"batch must hold at least 2 images .*, got 1"):
        network.train()(image)


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # sizes as Python numbers
@pytest.mark.parametrize("size", [(16, 16), (1, 1), (37, 20)])
def test_a_trace_of_a_fitting_image_is_right_for_others(size: tuple[int, int]) -> None:
    class Blocks(nn.Module):
        """Depends on the margins, and goes wrong without them."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            means = nn.functional.avg_pool2d(x, 8)
            shares = torch.softmax(means.flatten(2), 2).reshape(means.shape)
            return nn.functional.interpolate(shares, size=x.shape[2:])

    network = PaddedNetwork(Blocks(), 8, least_cells=2)
    traced = torch.jit.trace(network, torch.zeros(1, 1, 16, 16), check_trace=False)
    image = torch.randn(1, 1, *size)
    assert torch.allclose(traced(image), network(image))


def test_a_file_of_onnx_takes_any_size(tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="the onnx extra is not installed")
    network = PaddedNetwork(PyramidLevel(3, nn.Identity()), 8, least_cells=2).eval()
    source = Source(network, channels=1, shape=(16, 24), dynamic=True)
    write_network("onnx", source, tmp_path / "model.onnx")
    answer = open_network("onnx", tmp_path / "model.onnx")
    for size in ((16, 24), (1, 1), (37, 20), (64, 64)):
        image = torch.randn(2, 1, *size)
        assert torch.allclose(answer(image), network(image), atol=1e-5)
