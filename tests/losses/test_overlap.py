"""Dice, Jaccard and their sum with cross-entropy against MONAI and numpy."""

import numpy as np
import pytest
import torch
from monai import losses as monai_losses

from medseg.losses import DiceCELoss, DiceLoss, JaccardLoss


def _pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    logits = 2 * torch.randn(2, 4, *shape, generator=generator)
    return logits, torch.randint(0, 4, (2, 1, *shape), generator=generator)


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5)])
@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("jaccard", [True, False])
def test_dice_and_jaccard_equal_monai(shape, background, batch, jaccard) -> None:
    logits, label = _pair(*shape)
    weight = [0.5, 1.0, 2.0, 4.0]
    reference = monai_losses.DiceLoss(
        include_background=background, to_onehot_y=True, softmax=True, jaccard=jaccard,
        batch=batch, weight=weight if background else weight[1:],
    )  # fmt: skip
    make = JaccardLoss if jaccard else DiceLoss
    got = make(background, batch, weight)(logits, label)
    assert got.item() == pytest.approx(reference(logits, label).item(), rel=1e-6)


@pytest.mark.parametrize("make", [DiceLoss, JaccardLoss])
def test_without_smoothing_it_is_the_formula(make) -> None:
    logits, label = _pair(6, 5)
    label[..., :2] = 255
    p = np.exp(logits.numpy().astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    values = []
    for b in range(2):
        keep = label[b, 0].numpy() != 255
        for c in range(4):
            truth = (label[b, 0].numpy() == c)[keep]
            both = (p[b, c][keep] * truth).sum()
            either = p[b, c][keep].sum() + truth.sum()
            values.append(2 * both / either if make is DiceLoss else both / (either - both))
    got = make(smooth=1e-12, ignore_index=255)(logits, label)
    assert got.item() == pytest.approx(1 - np.mean(values), rel=1e-5)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("weight", [None, [0.5, 1.0, 2.0, 4.0]])
def test_dice_ce_equals_monai(background, weight) -> None:
    logits, label = _pair(4, 3, 5)
    reference = monai_losses.DiceCELoss(
        include_background=background, to_onehot_y=True, softmax=True, batch=True,
        weight=None if weight is None else torch.tensor(weight),
        lambda_dice=0.7, lambda_ce=1.3, label_smoothing=0.1,
    )  # fmt: skip
    loss = DiceCELoss(background, True, weight, lambda_dice=0.7, lambda_ce=1.3, label_smoothing=0.1)
    assert loss(logits, label).item() == pytest.approx(reference(logits, label).item(), rel=1e-6)


def test_a_negative_factor_is_refused() -> None:
    with pytest.raises(ValueError, match="lambda_dice and lambda_ce"):
        DiceCELoss(lambda_ce=-1.0)
