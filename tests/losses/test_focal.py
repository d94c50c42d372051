"""Focal loss against MONAI, cross-entropy and its formula in numpy."""

import numpy as np
import pytest
import torch
from monai.losses import FocalLoss as MonaiFocalLoss

from medseg.losses import CrossEntropyLoss, FocalLoss


def _pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    logits = 2 * torch.randn(2, 4, *shape, generator=generator)
    return logits, torch.randint(0, 4, (2, 1, *shape), generator=generator)


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
@pytest.mark.parametrize("alpha", [None, [0.1, 0.2, 0.3, 0.4]])
def test_it_is_monai_times_the_number_of_classes(shape, alpha) -> None:
    logits, label = _pair(*shape)
    reference = MonaiFocalLoss(to_onehot_y=True, use_softmax=True, gamma=1.5, alpha=alpha)
    got = FocalLoss(1.5, alpha)(logits, label)
    assert got.item() == pytest.approx(4 * reference(logits, label).item(), rel=1e-6)


def test_with_gamma_0_it_is_cross_entropy() -> None:
    logits, label = _pair(6, 5)
    label[..., 3:] = 255
    got = FocalLoss(0.0, ignore_index=255)(logits, label)
    expected = CrossEntropyLoss(ignore_index=255)(logits, label)
    assert got.item() == pytest.approx(expected.item(), rel=1e-6)


def test_it_is_the_formula_over_the_voxels_that_count() -> None:
    logits, label = _pair(6, 5)
    label[0, ..., 3:] = 255
    p = np.exp(logits.numpy().astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    alpha = [1.0, 2.0, 3.0, 4.0]
    values = [
        -alpha[c] * (1 - p[b, c, i, j]) ** 3 * np.log(p[b, c, i, j])
        for (b, i, j), c in np.ndenumerate(label[:, 0].numpy())
        if c != 255
    ]
    got = FocalLoss(3.0, alpha, ignore_index=255)(logits, label)
    assert got.item() == pytest.approx(np.mean(values), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0])
def test_gradients_stay_finite_where_the_network_is_wholly_sure(gamma) -> None:
    logits = torch.tensor([[[[200.0, -200.0]], [[-200.0, 200.0]]]]).requires_grad_()
    value = FocalLoss(gamma)(logits, torch.zeros(1, 1, 1, 2))
    value.backward()
    assert torch.isfinite(logits.grad).all()
    assert value.item() == pytest.approx(200.0)


@pytest.mark.parametrize("gamma", [-1.0, 0.5, float("nan")])
def test_a_gamma_without_finite_gradients_is_refused(gamma) -> None:
    with pytest.raises(ValueError, match="gamma must be"):
        FocalLoss(gamma)
