"""Masks of an earlier network as channels of the next one's image."""

from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.transforms import AddMaskChannelsd


def _tensor(array: Any, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> MetaTensor:
    return MetaTensor(torch.as_tensor(array), affine=np.diag([*spacing, 1.0]))


def _added(mask: np.ndarray, shape: tuple[int, ...], **options: Any) -> np.ndarray:
    """Return the channels along K of a mask that has one voxel along I and J."""
    spacing = (1.0, 1.0, mask.size / shape[2])
    image = _tensor(np.zeros((1, *shape), np.float32), spacing)
    step = AddMaskChannelsd("image", "mask", [1, 2], **options)
    data = step({"image": image, "mask": _tensor(mask[None])})
    assert sorted(data) == ["image"]
    assert data["image"].dtype == torch.float32
    return np.asarray(data["image"])[1:, 0, 0]


def test_each_label_gets_a_channel() -> None:
    mask = np.array([0, 1, 1, 2, -1, 2]).reshape(1, 1, 6)
    found = _added(mask, (1, 1, 6))
    assert np.array_equal(found, [[0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 1]])


def test_the_largest_share_wins_and_of_equal_ones_the_nearest() -> None:
    mask = np.array([1, 1, 2, 2, 0, 0]).reshape(1, 1, 6)
    assert np.array_equal(_added(mask, (1, 1, 3)), [[1, 0, 0], [0, 1, 0]])
    # two voxels share each of these: at half way scipy's nearest is one of the two
    mask = np.array([1, 2, 2, 0]).reshape(1, 1, 4)
    found = _added(mask, (1, 1, 2))
    assert found.sum(axis=0).max() <= 1
    assert found[:, 0].sum() == 1


@pytest.mark.parametrize("axes", [(2, 1, 0), (0, 1, 2), (1, 2, 0)])
def test_the_order_of_axes_is_undone(axes: tuple[int, ...]) -> None:
    mask = np.zeros((6, 8, 10), int)
    mask[1:4, 2:7, 3:9] = 2
    image = _tensor(np.zeros((1, 12, 16, 20), np.float32), (0.5, 0.5, 0.5))
    step = AddMaskChannelsd("image", "mask", [2], axes=axes)
    found = np.asarray(step({"image": image, "mask": _tensor(mask[None])})["image"])[1]
    wanted = mask.repeat(2, 0).repeat(2, 1).repeat(2, 2) == 2
    assert np.count_nonzero(found) > 0.9 * np.count_nonzero(wanted)
    assert not np.count_nonzero((found > 0) & ~wanted)


def test_a_coarse_axis_is_taken_slice_by_slice() -> None:
    mask = np.array([[1, 2], [1, 1]])[None].repeat(2, 0)  # J, K; slices along I
    mask[1] = 2
    image = _tensor(np.zeros((1, 4, 2, 4), np.float32), (2.5, 1.0, 0.5))
    step = AddMaskChannelsd("image", "mask", [1, 2])
    found = step({"image": image, "mask": _tensor(mask[None], (5.0, 1.0, 1.0))})["image"]
    wanted = [[1, 1, 2, 2], [1, 1, 1, 1]]
    assert np.array_equal(found[1], [np.equal(wanted, 1)] * 2 + [np.zeros((2, 4))] * 2)
    assert np.array_equal(found[2], [np.equal(wanted, 2)] * 2 + [np.ones((2, 4))] * 2)
