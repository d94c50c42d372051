"""Windows, weights and rules of restoring as nnU-Net v2 has them."""

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from scipy import ndimage

from medseg.inference import EvenInferer, MaskInferer
from medseg.inference.inferers import centred_gaussian
from medseg.inference.maps import WholeMaps
from medseg.inference.restore import Meaning, Restoring, restore_mask
from medseg.inference.tta import mirrored
from medseg.inference.windows import even_starts, windows_of


@pytest.mark.parametrize("extent", range(64, 200, 7))
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_even_starts_cover_the_image_in_equal_steps(extent: int, overlap: float) -> None:
    starts = even_starts(extent, 64, overlap)
    steps = np.diff(starts)
    assert starts[0] == 0
    assert starts[-1] == extent - 64
    assert (steps <= round(64 * (1 - overlap))).all()
    assert np.ptp(steps) <= 1 if len(steps) else extent == 64


def test_windows_of_one_voxel_come_once() -> None:
    assert even_starts(5, 1, 0.5) == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("size", [(8, 9, 10), (40, 56, 40), (160, 4, 1)])
def test_weights_are_a_gaussian_around_a_voxel(size: tuple[int, ...]) -> None:
    impulse = np.zeros(size)
    impulse[tuple(n // 2 for n in size)] = 1
    bell = ndimage.gaussian_filter(impulse, [n / 8 for n in size], mode="constant")
    wanted = torch.from_numpy(bell / bell.max() * 10)
    found = centred_gaussian(size)
    assert torch.allclose(found.double(), wanted, rtol=1e-3, atol=1e-5)
    assert (found > 0).all()


def test_even_inferer_lays_its_own_windows() -> None:
    even = windows_of(EvenInferer([8, 8]), [18, 8], torch.device("cpu"))
    monai = windows_of(SlidingWindowInferer([8, 8], overlap=0.5), [18, 8], torch.device("cpu"))
    assert even.starts == ((0, 3, 7, 10), (0,))
    assert monai.starts == ((0, 4, 8, 10), (0,))
    assert torch.equal(even.importance, centred_gaussian([8, 8]))


def test_even_inferer_of_a_plain_network_gives_its_values_back() -> None:
    image = torch.randn(1, 1, 19, 23)
    found = EvenInferer([8, 12])(image, lambda x: torch.cat([x, -x], dim=1))
    assert torch.allclose(found, torch.cat([image, -image], dim=1), atol=1e-5)


def test_half_sums_are_rounded_after_each_window() -> None:
    image = torch.randn(1, 1, 12) * 30
    found = EvenInferer([8], half_sums=True)(image, lambda x: x)
    bell = centred_gaussian([8]).half()
    sums, weights = torch.zeros(12).half(), torch.zeros(12).half()
    for start in (0, 4):
        here = slice(start, start + 8)
        sums[here] = (sums[here].float() + image[0, 0, here] * bell.float()).half()
        weights[here] = (weights[here].float() + bell.float()).half()
    assert torch.equal(found[0, 0], (sums.float() / weights.float()).half().float())
    assert torch.allclose(found, image, rtol=5e-3, atol=0)
    assert not torch.equal(found, EvenInferer([8])(image, lambda x: x))


def test_half_sums_stay_finite() -> None:
    image = torch.full((1, 1, 12), 1e6)
    image[..., 0] = 0  # windows of one value are run once
    assert EvenInferer([8], half_sums=True)(image, lambda x: x).isfinite().all()


@pytest.mark.parametrize(("axes", "calls"), [((), 1), ((1,), 2), ((0, 2), 4), (None, 8)])
def test_only_the_axes_that_are_named_are_mirrored(
    axes: tuple[int, ...] | None, calls: int
) -> None:
    seen: list[torch.Tensor] = []

    def network(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x * 2

    x = torch.randn(1, 1, 2, 3, 4)
    assert torch.allclose(mirrored(network, axes)(x), x * 2)
    assert len(seen) == calls
    assert all(torch.equal(one[..., :], x) for one in seen) == (calls == 1)
    if axes == (1,):
        assert torch.equal(seen[1], x.flip(3))


def _line(values: list[float], scale: float, source: int, rules: Restoring | None) -> list[int]:
    """Decide along K, of which a network voxel is `scale` source voxels; ones are where above 0."""
    row = torch.tensor(values)
    maps = torch.stack([torch.zeros_like(row), row]).reshape(2, 1, 1, -1)
    affine = np.diag([1.0, 1.0, scale, 1.0])
    affine[2, 3] = (scale - 1) / 2  # both begin at the same face
    meaning = Meaning((0, 1), restoring=rules)
    mask = restore_mask([WholeMaps(maps, affine)], (1, 1, source), np.eye(4), meaning)
    return [int(value) for value in mask[0, 0]]


def test_a_coarse_axis_is_restored_by_the_nearest_slice() -> None:
    values = [1.0, -3.0, 1.0]
    linear = _line(values, 4.0, 12, None)
    nearest = _line(values, 4.0, 12, Restoring(coarse_order=0))
    assert nearest == [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    assert linear != nearest
    assert _line(values, 4.0, 12, Restoring(coarse_order=1)) == linear
    assert _line(values, 4.0, 12, Restoring(coarse_order=0, separate=False)) == linear


def test_an_axis_that_is_not_coarse_is_apart_only_where_told() -> None:
    values = [1.0, -3.0, 1.0]
    nearest = [1, 1, 0, 0, 1, 1]
    assert _line(values, 2.0, 6, Restoring(coarse_order=0, separate=True)) == nearest
    assert _line(values, 2.0, 6, Restoring(coarse_order=0)) == _line(values, 2.0, 6, None)


def test_source_voxels_outside_the_grid_are_background_however_near() -> None:
    # of eight source voxels six are covered; network voxels are four times as large
    assert _line([1.0, 1.0], 4.0, 9, None)[8] == 1
    assert _line([1.0, 1.0], 4.0, 9, Restoring())[8] == 0
    assert _line([1.0, 1.0], 4.0, 9, Restoring(coarse_order=0))[8] == 0


def test_of_logits_that_are_equal_in_half_precision_the_first_class_wins() -> None:
    maps = torch.tensor([8.0, 8.001]).reshape(2, 1, 1, 1)
    masks = [
        restore_mask(
            [WholeMaps(maps, np.eye(4))],
            (1, 1, 1),
            np.eye(4),
            Meaning((0, 1), restoring=Restoring(half=half)),
        )
        for half in (False, True)
    ]
    assert [int(mask.item()) for mask in masks] == [1, 0]


def test_mask_inferer_takes_the_rules() -> None:
    inferer = MaskInferer(EvenInferer([8, 8, 8]), [0, 1], restoring={"coarse_order": 0})
    assert inferer.restoring == Restoring(coarse_order=0)
