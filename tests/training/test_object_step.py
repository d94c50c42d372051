"""Targets from layers of objects, and a detector under the trainer's own step."""

import numpy as np
import pytest
import torch

from medseg.errors import UsageError
from medseg.networks.mask_rcnn import MaskRcnn
from medseg.objects import ObjectInstances
from medseg.training.objects import SumOfLosses, stack_layers, targets_of


def overlapping(size: tuple[int, int] = (24, 30)) -> ObjectInstances:
    masks = np.zeros((5, *size), bool)
    masks[0, 2:10, 3:9] = True
    masks[1, 5:14, 6:20] = True
    masks[2, 20:23, 25:30] = True
    masks[3, 0, 0:3] = True  # three pixels
    masks[4, 15:19, 0:9] = True  # a crowd
    crowd = [False, False, False, False, True]
    return ObjectInstances.of(masks, [1, 2, 1, 2, 1], size=size, crowd=crowd)


def test_targets_are_the_objects_that_are_large_enough() -> None:
    objects = overlapping()
    layers = torch.tensor(objects.layers())
    assert len(layers) == 2
    [target] = targets_of(layers[None])
    order = target["boxes"][:, 0].argsort()
    assert target["boxes"][order].tolist() == objects.boxes[[0, 1, 2]].tolist()
    assert target["labels"][order].tolist() == [1, 2, 1]
    masks = target["masks"][order].bool().numpy()
    assert np.array_equal(masks, [objects.mask(place) for place in range(3)])


def test_an_image_without_objects_has_a_target_too() -> None:
    [target] = targets_of(torch.zeros(1, 1, 8, 9, dtype=torch.int32))
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["masks"].shape == (0, 8, 9)


def test_samples_of_different_layers_are_one_batch() -> None:
    two = torch.tensor(overlapping().layers())
    one = torch.zeros(1, 24, 30, dtype=torch.int32)
    samples = [
        {"image": torch.rand(3, 24, 30), "label": label, "case": name}
        for label, name in ((two, "a"), (one, "b"))
    ]
    batch = stack_layers(samples)
    assert batch["image"].shape == (2, 3, 24, 30)
    assert batch["label"].shape == (2, 2, 24, 30)
    assert batch["case"] == ["a", "b"]
    assert torch.equal(batch["label"][0], two)
    assert not batch["label"][1].any()


def test_targets_are_what_the_network_takes() -> None:
    network = MaskRcnn(
        3, 3, levels=1, channels=8, box_features=8, mask_layers=1, anchor_sizes=[[8], [16]]
    )
    labels = torch.tensor(overlapping().layers())[None]
    losses = network(torch.rand(1, 3, 24, 30), targets_of(labels))
    total = SumOfLosses()(losses, labels)
    assert torch.isclose(total, sum(losses.values()))
    total.backward()
    doubled = SumOfLosses({"loss_mask": 2.0})(losses, labels)
    assert torch.isclose(doubled, total + losses["loss_mask"])
    with pytest.raises(UsageError, match=r"weights must be of .*loss_mask.*got mask"):
        SumOfLosses({"mask": 2.0})(losses, labels)
