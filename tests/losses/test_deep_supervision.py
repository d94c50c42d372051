"""Deep supervision weighs the levels of stacked network outputs."""

import pytest
import torch
from monai.losses import DeepSupervisionLoss as MonaiDeepSupervisionLoss
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet

from medseg.losses import DeepSupervisionLoss


@pytest.fixture
def dice_ce() -> DiceCELoss:
    return DiceCELoss(to_onehot_y=True, softmax=True, batch=True)


def test_stacked_levels_equal_monai_on_a_list_up_to_the_sum_of_weights(dice_ce) -> None:
    torch.manual_seed(0)
    stacked = torch.randn(2, 3, 4, 8, 8, 8)
    label = torch.randint(0, 4, (2, 1, 8, 8, 8)).float()
    expected = MonaiDeepSupervisionLoss(dice_ce)(list(torch.unbind(stacked, 1)), label) / 1.75
    assert DeepSupervisionLoss(dice_ce)(stacked, label).item() == pytest.approx(expected.item())


def test_a_plain_tensor_is_one_level(dice_ce) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8)).float()
    assert DeepSupervisionLoss(dice_ce)(logits, label) == dice_ce(logits, label)


def test_gradients_reach_every_head_of_a_dynunet(dice_ce) -> None:
    network = DynUNet(
        3, 1, 2, [3] * 4, [1, 2, 2, 2], [2] * 3, filters=[4, 8, 8, 8],
        deep_supervision=True, deep_supr_num=2,
    )  # fmt: skip
    logits = network(torch.randn(1, 1, 16, 16, 16))
    DeepSupervisionLoss(dice_ce)(logits, torch.ones(1, 1, 16, 16, 16)).backward()
    grads = [p.grad for name, p in network.named_parameters() if "deep_supervision" in name]
    assert len(grads) == 4
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)


def test_a_wrong_number_of_axes_is_refused(dice_ce) -> None:
    with pytest.raises(ValueError, match="levels"):
        DeepSupervisionLoss(dice_ce)(torch.zeros(1, 2, 8, 8), torch.zeros(1, 1, 8, 8, 8))


def test_a_coarser_level_is_compared_with_the_nearest_voxels_of_the_label() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, 3, (2, 1, 8, 12, 6), generator=generator, dtype=torch.uint8)
    levels = [torch.randn(2, 3, *size, generator=generator) for size in ((8, 12, 6), (4, 6, 3))]
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    small = torch.nn.functional.interpolate(label.float(), (4, 6, 3), mode="nearest-exact")
    expected = (loss(levels[0], label) + 0.5 * loss(levels[1], small)) / 1.5
    assert DeepSupervisionLoss(loss)(levels, label) == pytest.approx(expected.item())


def test_regions_keep_their_channels() -> None:
    label = (torch.rand(1, 2, 8, 8) > 0.5).to(torch.uint8)
    levels = [torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4)]
    loss = DeepSupervisionLoss(DiceCELoss(sigmoid=True))
    assert torch.isfinite(loss(levels, label))
