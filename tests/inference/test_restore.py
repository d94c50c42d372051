"""Class maps go back to the source grid where they belong."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, CropForegroundd, Invertd, Orientationd, Spacingd

from medseg.errors import GeometryError
from medseg.inference.maps import StreamedMaps, WholeMaps
from medseg.inference.restore import Meaning, mask_from_class_maps, restore_mask
from medseg.inference.windows import windows_of

CPU = torch.device("cpu")


def _rotation(angles: tuple[float, float, float]) -> np.ndarray:
    result = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = result @ turn
    return result


def _affine(spacing, origin, rotation=None, flips=(1, 1, 1), order=(0, 1, 2)) -> np.ndarray:
    matrix = (np.eye(3) if rotation is None else rotation)[:, list(order)] * np.asarray(flips)
    affine = np.eye(4)
    affine[:3, :3] = matrix * np.asarray(spacing)
    affine[:3, 3] = origin
    return affine


def _sitk(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    return image


def _reference(maps: np.ndarray, network_affine, shape, affine) -> tuple[np.ndarray, np.ndarray]:
    """Resample every class with SimpleITK, then take the largest."""
    grid = _sitk(np.zeros(shape, np.float32), affine)
    full = []
    for values in maps:
        source = _sitk(values.astype(np.float32), network_affine)
        resampler = sitk.ResampleImageFilter()
        resampler.SetReferenceImage(grid)
        resampler.SetInterpolator(sitk.sitkLinear)
        resampler.SetUseNearestNeighborExtrapolator(True)
        full.append(sitk.GetArrayFromImage(resampler.Execute(source)).T)
    ranked = np.sort(np.stack(full), axis=0)
    return np.stack(full).argmax(0), ranked[-1] - ranked[-2]


def _smooth_maps(classes: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    noise = torch.from_numpy(np.random.default_rng(seed).normal(size=(1, classes, 5, 6, 4)))
    return torch.nn.functional.interpolate(noise, shape, mode="trilinear")[0].float().numpy()


@pytest.mark.parametrize(
    ("flips", "order"),
    list(
        itertools.product([(1, 1, 1), (-1, -1, 1), (1, -1, -1)], itertools.permutations(range(3)))
    ),
)
def test_labels_equal_an_independent_resampling(flips, order) -> None:
    rotation = _rotation((0.2, -0.4, 0.1))
    affine = _affine((0.7, 0.9, 2.3), (-12, 30, 5), rotation, flips, order)
    shape = (41, 23, 17)
    network = _affine((1.1, 1.1, 1.1), (0, 0, 0), rotation)
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in shape])))
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    local = world @ rotation
    network[:3, 3] = rotation @ local.min(0)
    extent = tuple(int(n) for n in np.ceil(np.ptp(local, axis=0) / 1.1) + 1)
    maps = _smooth_maps(5, extent, seed=3)

    mask = mask_from_class_maps(torch.from_numpy(maps), network, shape, affine)

    expected, margin = _reference(maps, network, shape, affine)
    assert mask.dtype == np.uint8
    different = mask != expected
    assert different.mean() < 1e-4
    assert (margin[different] < 1e-4).all()  # only ties within rounding


@pytest.mark.filterwarnings("ignore:.*Orientationd.*labels:FutureWarning")  # MONAI's default
def test_labels_equal_monai_inverting_the_preprocessing() -> None:
    rng = np.random.default_rng(0)
    affine = _affine((1.5, 0.8, 3.0), (10, -20, 30), flips=(-1, 1, -1), order=(2, 0, 1))
    array = torch.from_numpy(rng.normal(size=(1, 30, 44, 21)).astype(np.float32))
    steps = Compose(
        [
            Orientationd("image", axcodes="RAS"),
            Spacingd("image", pixdim=(1.0, 1.0, 2.0), mode="bilinear"),
        ]
    )
    data = steps({"image": MetaTensor(array, affine=torch.from_numpy(affine))})
    grid = data["image"]
    maps = torch.from_numpy(_smooth_maps(3, tuple(grid.shape[1:]), seed=1))
    inverse = Invertd("pred", transform=steps, orig_keys="image", nearest_interp=False)
    data["pred"] = MetaTensor(
        maps, meta=dict(grid.meta), applied_operations=grid.applied_operations
    )
    expected = inverse(data)["pred"].argmax(0).numpy()

    mask = mask_from_class_maps(maps, np.asarray(grid.affine), (30, 44, 21), affine)

    assert (mask == expected).mean() > 0.999


def test_what_was_cropped_away_is_background() -> None:
    affine = np.eye(4)
    array = torch.zeros(1, 20, 20, 20)
    array[0, 8:14, 5:15, 6:12] = 1
    data = CropForegroundd("image", source_key="image", allow_smaller=False)(
        {"image": MetaTensor(array, affine=torch.eye(4, dtype=torch.float64))}
    )
    maps = torch.stack([torch.zeros(data["image"].shape[1:]), torch.ones(data["image"].shape[1:])])
    mask = mask_from_class_maps(maps, np.asarray(data["image"].affine), (20, 20, 20), affine)
    # linear interpolation reaches one voxel past the cropped box, never further
    assert mask[8:14, 5:15, 6:12].all()
    assert not mask[:7].any()
    assert not mask[15:].any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_neighbours_of_a_cropped_box_are_background_whatever_the_affine(axis) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        affine = np.diag([*rng.uniform(0.3, 3, 3), 1.0])
        affine[:3, 3] = rng.uniform(-200, 200, 3)
        cropped = affine.copy()
        start = np.zeros(3)
        start[axis] = 3
        cropped[:3, 3] += affine[:3, :3] @ start
        shape = [5, 6, 7]
        shape[axis] = 4
        maps = torch.zeros((2, *shape))
        maps[1] = 1
        source = [5, 6, 7]
        source[axis] = 12
        mask = mask_from_class_maps(maps, cropped, tuple(source), affine)
        found = np.flatnonzero(np.moveaxis(mask, axis, 0).reshape(12, -1).any(1))
        assert found.tolist() == [3, 4, 5, 6]


@pytest.mark.parametrize("strips", [2, 7])
def test_a_crop_is_cut_into_strips_as_well(strips) -> None:
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 40, 44, 36))).float()
    windows = windows_of(SlidingWindowInferer((12, 12, 12), overlap=0.5), (40, 44, 36), CPU)
    inner = np.diag([-1.2, 0.9, 1.1, 1.0])
    inner[:3, 3] = (30, -14, 8)  # the network's grid is neither all of the source nor inside it
    maps = StreamedMaps(image, [lambda x: torch.cat([0 * x, x.abs() - 0.5], 1)], windows, inner)
    masks = [
        restore_mask([maps], (60, 50, 30), np.eye(4), Meaning((0, 3)), strips=n)
        for n in (1, strips)
    ]
    assert 0.1 < (masks[0] == 3).mean() < 0.9
    assert (masks[0] != masks[1]).mean() < 1e-4
    assert masks[1].flags.f_contiguous


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("regions", [False, True])
def test_a_network_decides_nothing_outside_its_own_grid(axis, regions) -> None:
    shape = [8, 10, 12]
    half = list(shape)
    half[axis] //= 2
    everywhere, some = torch.zeros((2, *shape)), torch.zeros((2, *half))
    everywhere[0], some[1] = 0.6, 1.0
    everywhere[1] = 0.4
    members = [WholeMaps(everywhere, np.eye(4)), WholeMaps(some, np.eye(4))]
    meaning = Meaning((1, 2) if regions else (0, 2), regions, 0.5 if regions else 0.0)
    mask = restore_mask(members, tuple(shape), np.eye(4), meaning)
    planes = np.moveaxis(mask, axis, 0)
    assert (planes[: half[axis]] == 2).all()
    assert (planes[half[axis] :] == (1 if regions else 0)).all()


def test_more_than_256_classes_give_uint16() -> None:
    maps = torch.zeros(300, 2, 2, 2)
    maps[299] = 1
    mask = mask_from_class_maps(maps, np.eye(4), (2, 2, 2), np.eye(4))
    assert mask.dtype == np.uint16
    assert (mask == 299).all()


def test_one_voxel_thick_network_grids_work() -> None:
    maps = torch.tensor([[[[0.0]]], [[[1.0]]]])
    mask = mask_from_class_maps(maps, np.diag([4.0, 4, 4, 1]), (2, 2, 1), np.eye(4))
    assert mask.tolist() == [[[1], [1]], [[1], [1]]]


def test_a_rotated_network_grid_is_refused() -> None:
    turned = _affine((1, 1, 1), (0, 0, 0), _rotation((0.3, 0, 0)))
    with pytest.raises(GeometryError, match="parallel"):
        mask_from_class_maps(torch.zeros(2, 9, 9, 9), turned, (9, 9, 9), np.eye(4))
