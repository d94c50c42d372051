"""Cross-entropy against torch's own modules."""

import pytest
import torch
from torch import nn

from medseg.losses import BinaryCrossEntropyLoss, CrossEntropyLoss


def _pair(classes: int, *shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, classes, *shape, generator=generator)
    return logits, torch.randint(0, classes, (2, 1, *shape), generator=generator)


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
@pytest.mark.parametrize("weight", [None, [0.3, 0.0, 2.5, 1.0]])
@pytest.mark.parametrize("smoothing", [0.0, 0.15])
@pytest.mark.parametrize("ignore_index", [None, 255, 2])
def test_cross_entropy_equals_torch(shape, weight, smoothing, ignore_index) -> None:
    logits, label = _pair(4, *shape)
    if ignore_index is not None:
        label[..., 1:3] = ignore_index
    reference = nn.CrossEntropyLoss(
        weight=None if weight is None else torch.tensor(weight),
        ignore_index=-100 if ignore_index is None else ignore_index,
        label_smoothing=smoothing,
    )
    values, gradients = [], []
    for loss, target in (
        (CrossEntropyLoss(weight, smoothing, ignore_index), label),
        (reference, label[:, 0]),
    ):
        point = logits.clone().requires_grad_()
        value = loss(point, target)
        value.backward()
        values.append(value.item())
        gradients.append(point.grad)
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    torch.testing.assert_close(*gradients)


def test_voxels_of_weight_zero_alone_give_zero_and_finite_gradients() -> None:
    logits = torch.randn(1, 2, 4, 4).requires_grad_()
    value = CrossEntropyLoss([0.0, 1.0])(logits, torch.zeros(1, 1, 4, 4))
    value.backward()
    assert value.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("pos_weight", [None, [4.0]])
def test_binary_cross_entropy_of_one_channel_equals_torch(pos_weight) -> None:
    logits, label = _pair(2, 4, 3, 5)
    weight = None if pos_weight is None else torch.tensor(pos_weight)
    expected = nn.BCEWithLogitsLoss(pos_weight=weight)(logits[:, :1], label.float())
    got = BinaryCrossEntropyLoss(pos_weight)(logits[:, :1], label)
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)


def test_binary_cross_entropy_of_several_channels_is_one_against_the_rest() -> None:
    logits, label = _pair(3, 6, 5)
    expected = sum(
        nn.BCEWithLogitsLoss()(logits[:, index], (label[:, 0] == index).float()) / 3
        for index in range(3)
    )
    assert BinaryCrossEntropyLoss()(logits, label).item() == pytest.approx(expected.item())
    weights = torch.tensor([1.0, 2.0, 5.0])
    expected = sum(
        nn.BCEWithLogitsLoss(pos_weight=w)(logits[:, index], (label[:, 0] == index).float()) / 3
        for index, w in enumerate(weights)
    )
    got = BinaryCrossEntropyLoss(weights)(logits, label)
    assert got.item() == pytest.approx(expected.item())


def test_a_smoothing_outside_0_to_1_is_refused() -> None:
    with pytest.raises(ValueError, match="label_smoothing must be 0 to 1"):
        CrossEntropyLoss(label_smoothing=1.5)
