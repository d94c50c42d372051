"""Errors of probabilities against torch's functions."""

import pytest
import torch
from torch.nn import functional

from medseg.losses import ProbabilityMAELoss, ProbabilityMSELoss

PAIRS = [(ProbabilityMSELoss, functional.mse_loss), (ProbabilityMAELoss, functional.l1_loss)]


@pytest.mark.parametrize(("make", "reference"), PAIRS)
@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
def test_softmax_against_the_one_hot_label(make, reference, shape) -> None:
    logits = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(1))
    label = torch.randint(0, 3, (2, 1, *shape), generator=torch.Generator().manual_seed(2))
    one_hot = functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    expected = reference(logits.softmax(1), one_hot)
    assert make()(logits, label).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize(("make", "reference"), PAIRS)
def test_sigmoid_against_0_and_1(make, reference) -> None:
    logits = torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(1))
    label = (logits.sin() > 0).to(torch.uint8)
    expected = reference(logits[..., :3].sigmoid(), label[..., :3].float())
    label[..., 3:] = 255
    assert make(ignore_index=255)(logits, label).item() == pytest.approx(expected.item(), rel=1e-6)
