"""Lovasz-softmax against the Lovasz extension evaluated from its definitions."""

import itertools

import numpy as np
import pytest
import torch

from medseg.losses import LovaszSoftmaxLoss
from medseg.losses.lovasz import lovasz_jaccard


def _jaccard_loss(mistakes: set[int], truth: set[int]) -> float:
    return len(mistakes) / len(mistakes | truth) if mistakes else 0.0


def _by_thresholds(errors: list[float], truth: set[int]) -> float:
    """Integrate the loss of the voxels whose error reaches t over t from 0 to 1 (Choquet)."""
    total, below = 0.0, 0.0
    for level in sorted(set(errors)):
        reached = {i for i, error in enumerate(errors) if error >= level}
        total += (level - below) * _jaccard_loss(reached, truth)
        below = level
    return total


def _by_orders(errors: list[float], truth: set[int]) -> float:
    """Take the greatest value over all orders of adding voxels: the loss is submodular."""
    values = []
    for order in itertools.permutations(range(len(errors))):
        steps = [_jaccard_loss(set(order[:n]), truth) for n in range(len(order) + 1)]
        values.append(sum(errors[i] * (steps[n + 1] - steps[n]) for n, i in enumerate(order)))
    return max(values)


@pytest.mark.parametrize("truth", [set(), {0}, {1, 4}, {0, 2, 3}, {0, 1, 2, 3, 4}])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_lovasz_extension(truth: set[int], seed: int) -> None:
    errors = np.random.default_rng(seed).random(5).round(1 if seed == 3 else 6).tolist()
    mask = torch.tensor([i in truth for i in range(5)])
    got = lovasz_jaccard(torch.tensor(errors), mask).item()
    assert got == pytest.approx(_by_thresholds(errors, truth), abs=1e-6)
    assert got == pytest.approx(_by_orders(errors, truth), abs=1e-6)


@pytest.mark.parametrize("truth", [set(), {0}, {1, 3}, {0, 1, 2, 3}])
def test_at_mistakes_of_0_and_1_it_is_the_jaccard_loss(truth: set[int]) -> None:
    mask = torch.tensor([i in truth for i in range(4)])
    for bits in itertools.product([0.0, 1.0], repeat=4):
        mistakes = {i for i, bit in enumerate(bits) if bit}
        got = lovasz_jaccard(torch.tensor(bits), mask).item()
        assert got == pytest.approx(_jaccard_loss(mistakes, truth), abs=1e-6)


@pytest.mark.parametrize("classes", ["present", "all"])
@pytest.mark.parametrize("per_image", [False, True])
def test_classes_and_images_are_averaged_as_asked(classes: str, per_image: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(2, 4, 3, 3, generator=generator)
    label = torch.randint(0, 3, (2, 1, 3, 3), generator=generator)
    label[0][label[0] == 2] = 0  # class 2 in the second image alone, class 3 in none
    label[1, 0, 0] = 255
    p = logits.softmax(1).numpy()
    groups = [[0], [1]] if per_image else [[0, 1]]
    of_groups = []
    for group in groups:
        truth = np.concatenate([label[b, 0].numpy().ravel() for b in group])
        rows = np.concatenate([p[b].reshape(4, -1).T for b in group])[truth != 255]
        truth = truth[truth != 255]
        used = range(4) if classes == "all" else np.unique(truth).tolist()
        of_groups.append(
            np.mean([
                _by_thresholds(
                    np.abs((truth == c) - rows[:, c]).tolist(), set(np.flatnonzero(truth == c))
                )
                for c in used
            ])
        )  # fmt: skip
    got = LovaszSoftmaxLoss(classes, per_image, ignore_index=255)(logits, label)
    assert got.item() == pytest.approx(np.mean(of_groups), rel=1e-5)


def test_it_equals_another_implementation() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(2, 5, 12, 9, generator=generator)
    label = torch.randint(0, 4, (2, 1, 12, 9), generator=generator)
    label[:, :, 3:5] = 255
    expected = smp.losses.LovaszLoss("multiclass", ignore_index=255)(logits, label[:, 0])
    got = LovaszSoftmaxLoss(ignore_index=255)(logits, label)
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradients_are_those_of_finite_differences() -> None:
    logits = torch.randn(1, 3, 3, 3, generator=torch.Generator().manual_seed(8))
    label = torch.randint(0, 3, (1, 1, 3, 3), generator=torch.Generator().manual_seed(9))
    loss = LovaszSoftmaxLoss()
    logits.requires_grad_()
    loss(logits, label).backward()
    with torch.no_grad():
        for at in [(0, 0, 0, 0), (0, 1, 1, 2), (0, 2, 2, 1)]:
            step = torch.zeros_like(logits)
            step[at] = 1e-2
            slope = (loss(logits + step, label) - loss(logits - step, label)) / 2e-2
            assert logits.grad[at].item() == pytest.approx(slope.item(), abs=2e-4)


def test_weights_of_a_million_voxels_add_up_to_the_loss_of_missing_all() -> None:
    truth = torch.zeros(2_000_000, dtype=torch.bool)
    truth[::7] = True
    assert lovasz_jaccard(torch.ones(2_000_000), truth).item() == pytest.approx(1.0, abs=1e-5)


def test_an_unknown_choice_of_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="'present' or 'all', got 'some'"):
        LovaszSoftmaxLoss("some")
