"""What every network that a bundle may name has to do."""

from collections.abc import Callable

import pytest
import torch
from monai.networks.nets import DynUNet as MonaiDynUNet
from monai.networks.nets import SegResNet, UNet
from torch import nn

from medseg.networks import DynUNet

BASE = {
    "out_channels": 3,
    "kernel_size": [3, 3, 3, 3],
    "strides": [1, 2, 2, 2],
    "upsample_kernel_size": [2, 2, 2],
    "filters": [4, 8, 8, 8],
    "norm_name": ("INSTANCE", {"affine": True}),
}


def _dynunet(dims: int, channels: int, *, deep: bool = False) -> DynUNet:
    return DynUNet(dims, channels, deep_supervision=deep, deep_supr_num=2, **BASE)


def _anisotropic(dims: int, channels: int) -> DynUNet:
    flat, cube = [1] + [3] * (dims - 1), [3] * dims
    strides = [[1] * dims, [1] + [2] * (dims - 1), [2] * dims]
    return DynUNet(
        dims,
        channels,
        3,
        [flat, cube, cube],
        strides,
        strides[1:],
        filters=[4, 8, 8],
        deep_supervision=False,
    )


def _unet(dims: int, channels: int) -> UNet:
    return UNet(dims, channels, 3, [4, 8, 8], [2, 2], num_res_units=2)


def _segresnet(dims: int, channels: int) -> SegResNet:
    return SegResNet(dims, 8, channels, 3, blocks_down=(1, 1, 1), blocks_up=(1, 1))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("make", [_dynunet, _anisotropic, _unet, _segresnet])
@pytest.mark.parametrize(("dims", "channels"), [(2, 3), (3, 1), (3, 2)])
class TestEveryNetwork:
    def test_logits_have_the_size_of_the_image(
        self, make: Callable[..., nn.Module], dims: int, channels: int
    ) -> None:
        network = make(dims, channels).eval()
        with torch.no_grad():
            assert network(torch.zeros(2, channels, *[16] * dims)).shape == (2, 3, *[16] * dims)

    def test_a_gradient_reaches_every_parameter(
        self, make: Callable[..., nn.Module], dims: int, channels: int
    ) -> None:
        network = make(dims, channels).train()
        out = network(torch.randn(2, channels, *[16] * dims))
        (out * torch.randn_like(out)).sum().backward()
        without = [
            name
            for name, parameter in network.named_parameters()
            if parameter.grad is None or not torch.isfinite(parameter.grad).all()
        ]
        assert not without

    @pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")
    @pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")  # MONAI's heads
    def test_it_becomes_torchscript(
        self, make: Callable[..., nn.Module], dims: int, channels: int
    ) -> None:
        network = make(dims, channels).eval()
        image = torch.randn(1, channels, *[16] * dims)
        scripted = torch.jit.script(network)
        with torch.no_grad():
            assert torch.allclose(scripted(image), network(image), atol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_levels_come_at_their_own_resolution_finest_first(dims: int) -> None:
    levels = _dynunet(dims, 1, deep=True).train()(torch.zeros(2, 1, *[32] * dims))
    assert [tuple(level.shape) for level in levels] == [
        (2, 3, *[size] * dims) for size in (32, 16, 8)
    ]


def test_every_level_trains_the_network_below_it() -> None:
    network = _dynunet(3, 1, deep=True).train()
    for number, level in enumerate(network(torch.randn(1, 1, 32, 32, 32))):
        network.zero_grad()
        level.square().sum().backward(retain_graph=True)
        assert network.bottleneck.conv1.conv.weight.grad.abs().sum() > 0
        reached = network.output_block.conv.conv.weight.grad is not None
        assert reached == (number == 0)


def test_levels_are_those_of_monai_before_it_enlarges_them() -> None:
    ours = _dynunet(3, 1, deep=True).train()
    theirs = MonaiDynUNet(3, 1, deep_supervision=True, deep_supr_num=2, **BASE).train()
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        stacked, levels = theirs(image), ours(image)
    for number, level in enumerate(levels):
        enlarged = nn.functional.interpolate(level, stacked.shape[3:])
        assert torch.allclose(stacked[:, number], enlarged, atol=1e-6)


def test_weights_without_heads_fit_monais_network() -> None:
    ours = _dynunet(3, 1).eval()
    theirs = MonaiDynUNet(3, 1, **BASE).eval()
    theirs.load_state_dict(ours.state_dict())
    image = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


def test_evaluation_returns_one_tensor_though_trained_with_levels() -> None:
    with torch.no_grad():
        assert _dynunet(3, 1, deep=True).eval()(torch.zeros(1, 1, 16, 16, 16)).shape == (
            1,
            3,
            16,
            16,
            16,
        )
