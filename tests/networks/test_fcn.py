"""FCN against its paper and against torchvision's VGG16."""

import pytest
import torch
from torchvision.models.vgg import cfgs, make_layers

from medseg.networks.fcn import Fcn, Joint
from medseg.networks.vgg16 import Vgg16


def test_a_joint_starts_as_a_bilinear_enlargement() -> None:
    joint = Joint(width=5, classes=2)
    coarse = torch.randn(1, 2, 6, 7)
    with torch.no_grad():
        found = joint(coarse, torch.randn(1, 5, 12, 14))
    expected = torch.nn.functional.interpolate(
        coarse, scale_factor=2.0, mode="bilinear", align_corners=False
    )
    inner = (..., slice(1, -1), slice(1, -1))  # at the border it meets zeros
    assert torch.allclose(found[inner], expected[inner], atol=1e-6)


def test_a_joint_adds_the_scores_of_its_pooling() -> None:
    joint = Joint(width=5, classes=2)
    torch.nn.init.ones_(joint.score.weight)
    with torch.no_grad():
        found = joint(torch.zeros(1, 2, 3, 3), torch.ones(1, 5, 6, 6))
    assert torch.equal(found, torch.full((1, 2, 6, 6), 5.0))


@pytest.mark.parametrize(("stride", "joints"), [(32, []), (16, [32]), (8, [32, 16])])
def test_the_stride_says_which_poolings_join(stride: int, joints: list[int]) -> None:
    network = Fcn(3, 2, stride, base_channels=4, head_channels=8)
    assert [joint.score.in_channels for joint in network.joints] == joints


def test_each_pooling_joins_though_its_scores_start_at_zero() -> None:
    network = Fcn(3, 2, 8, base_channels=4, head_channels=8).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network(image)
        for joint in network.joints:
            assert not joint.score.weight.any()
            torch.nn.init.ones_(joint.score.weight)
            after = network(image)
            assert not torch.allclose(after, before)
            before = after


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_encoder_is_torchvisions_vgg16(batch_norm: bool) -> None:
    torch.manual_seed(0)
    theirs = make_layers(cfgs["D"], batch_norm=batch_norm).eval()
    ours = Vgg16(3, batch_norm=batch_norm).eval()
    state = {f"features.{key}": tensor for key, tensor in theirs.state_dict().items()}
    names = ours.names()
    assert sorted(names) == sorted(state)
    ours.load_state_dict({names[key]: tensor for key, tensor in state.items()})
    image = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        pooled = ours(image)
        assert torch.equal(pooled[-1], theirs(image))
    assert [tuple(part.shape[1:]) for part in pooled] == [
        (64, 32, 16), (128, 16, 8), (256, 8, 4), (512, 4, 2), (512, 2, 1),
    ]  # fmt: skip


def test_dropout_is_for_training_alone() -> None:
    network = Fcn(3, 2, 32, base_channels=4, head_channels=64)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        network.train()
        assert not torch.equal(network(image), network(image))
        network.eval()
        assert torch.equal(network(image), network(image))
