"""SegNet puts each maximum back where it was."""

import torch

from medseg.networks.segnet import SegNet, unpooled


def test_unpooling_is_that_of_torch() -> None:
    values, places = torch.nn.functional.max_pool2d_with_indices(torch.randn(2, 3, 8, 10), 2)
    expected = torch.nn.functional.max_unpool2d(values, places, 2)
    assert torch.equal(unpooled(values, places), expected)


def test_a_maximum_returns_to_its_pixel_and_the_rest_is_zero() -> None:
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 1, 0], image[0, 0, 2, 3] = 5, 7
    values, places = torch.nn.functional.max_pool2d_with_indices(image, 2)
    assert torch.equal(unpooled(values, places), image)


def test_unpooling_passes_the_gradient_of_the_maxima_alone() -> None:
    values = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    _, places = torch.nn.functional.max_pool2d_with_indices(torch.randn(1, 2, 6, 6), 2)
    assert torch.autograd.gradcheck(lambda x: unpooled(x, places), (values,))


def test_the_decoder_mirrors_the_encoder() -> None:
    network = SegNet(3, 2, base_channels=4)

    def channels(part: torch.nn.Module) -> list[int]:
        return [layer.out_channels for layer in part if isinstance(layer, torch.nn.Conv2d)]

    assert [channels(part) for part in network.decoder] == [
        [32, 32, 32], [32, 32, 16], [16, 16, 8], [8, 4], [4],
    ]  # fmt: skip


def test_the_network_is_that_of_torchs_pooling_layers() -> None:
    torch.manual_seed(0)
    network = SegNet(3, 2, base_channels=4).eval()
    pool, unpool = torch.nn.MaxPool2d(2, return_indices=True), torch.nn.MaxUnpool2d(2)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        x, places = image, []
        for part in network.encoder.stages:
            x, where = pool(part(x))
            places.append(where)
        for part in network.decoder:
            x = part(unpool(x, places.pop()))
        assert torch.allclose(network(image), network.score(x), atol=1e-6)
