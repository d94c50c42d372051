"""Patches hold the voxels that an independent resampling finds at their places."""

import numpy as np
import psutil
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from medseg.transforms import RandPatchd
from medseg.transforms.rand_patch import FOREGROUND_VOXEL

KEYS = ["image", "label"]


def noise(shape=(30, 28, 26), channels=1, seed=0):
    random = np.random.default_rng(seed)
    image = random.normal(size=(channels, *shape)).astype(np.float32)
    label = random.integers(0, 4, (channels, *shape)).astype(np.uint8)
    return {"image": torch.from_numpy(image), "label": torch.from_numpy(label)}


def smooth_volume(shape=(30, 28, 26)):
    """Return values that rise along the axes: each voxel tells its own place."""
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).astype(np.float32)
    return torch.from_numpy(places)


def reference(array, transform, order):
    """Resample with scipy, 0 outside and towards it."""
    plan = transform._plan
    return np.stack(
        [
            ndimage.affine_transform(
                channel.astype(np.float64),
                plan.matrix,
                plan.offset,
                transform.patch_size,
                order=order,
                mode="grid-constant",
            )
            for channel in array.numpy()
        ]
    )


def clear_of_ties(transform):
    """Tell where a place is not so near the middle of two voxels that rounding decides."""
    plan = transform._plan
    patch = np.stack(np.meshgrid(*map(np.arange, transform.patch_size), indexing="ij"), -1)
    places = patch @ plan.matrix.T + plan.offset
    return (np.abs(places - np.floor(places) - 0.5) > 1e-3).all(axis=-1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("shape", "patch", "options"),
    [
        ((30, 28, 26), (12, 10, 8), {}),
        ((30, 28, 26), (12, 10, 8), {"rotate_degrees": (10, 90, 180), "scale_range": (0.3, 3)}),
        ((9, 28, 4), (12, 10, 8), {}),
        ((1, 3, 2), (5, 5, 5), {}),
        ((40, 50), (16, 12), {"rotate_degrees": 180.0}),
        ((7, 50), (16, 12), {}),
    ],
)
def test_a_turned_and_scaled_patch_is_what_scipy_finds(shape, patch, options, seed) -> None:
    given = {"rotate_degrees": 30.0, "scale_range": (0.7, 1.4)} | options
    transform = RandPatchd(KEYS, patch, rotate_prob=1.0, scale_prob=1.0, **given)
    transform.set_random_state(seed)
    data = noise(shape, channels=2)
    taken = transform(data)
    expected = reference(data["image"], transform, order=1)
    assert np.abs(taken["image"].numpy() - expected).max() < 1e-3  # float32 places
    clear = clear_of_ties(transform)
    assert clear.mean() > 0.9
    nearest = reference(data["label"], transform, order=0)
    assert np.array_equal(taken["label"].numpy()[:, clear], nearest[:, clear])


@pytest.mark.parametrize("shape", [(20, 18, 16), (7, 18, 5), (3, 4, 5), (20, 18)])
def test_an_unturned_patch_is_a_crop_with_zeros_outside(shape) -> None:
    patch = (8, 9, 10)[: len(shape)]
    transform = RandPatchd(KEYS, patch)
    data = noise(shape)
    wide = {key: np.pad(data[key][0].numpy(), 20) for key in KEYS}
    starts = set()
    for seed in range(60):
        taken = transform.set_random_state(seed)(data)
        start = transform._plan.start
        starts.add(tuple(start.tolist()))
        box = tuple(slice(20 + s, 20 + s + n) for s, n in zip(start, patch, strict=True))
        assert all(np.array_equal(taken[key][0].numpy(), wide[key][box]) for key in KEYS)
        for first, size, whole in zip(start, patch, shape, strict=True):
            if whole >= size:
                assert 0 <= first <= whole - size
            else:  # the whole volume, in the middle
                assert abs((first + (size - 1) / 2) - (whole - 1) / 2) <= 0.5
    reached = {s[0] for s in starts}
    assert reached == set(range(shape[0] - 8 + 1)) if shape[0] > 8 else len(reached) == 1


def test_a_patch_without_a_turn_does_not_depend_on_the_way() -> None:
    crop = RandPatchd(KEYS, (8, 8, 8)).set_random_state(5)
    resampled = RandPatchd(KEYS, (8, 8, 8), 0.0, 1.0).set_random_state(5)
    one, two = crop(noise()), resampled(noise())
    assert torch.equal(one["label"], two["label"])
    assert (one["image"] - two["image"]).abs().max() < 1e-4


def test_corners_of_a_turned_patch_hold_real_data() -> None:
    volume = smooth_volume((60, 60, 60)) + 1.0  # 0 only outside
    transform = RandPatchd("image", (20, 20, 20), 45.0, 1.0).set_random_state(1)
    for _ in range(10):
        taken = transform({"image": volume, FOREGROUND_VOXEL: np.array([30, 30, 30])})["image"]
        assert taken.min() > 1.0
        patch = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"), -1)
        places = patch @ transform._plan.matrix.T + transform._plan.offset + 1.0
        assert np.abs(taken.numpy() - np.moveaxis(places, -1, 0)).max() < 1e-3


@pytest.mark.parametrize("axes", [2, 3])
def test_turns_are_rotations_within_their_range(axes) -> None:
    degrees = 25.0 if axes == 2 else (0.0, 0.0, 25.0)
    transform = RandPatchd("image", (8,) * axes, degrees, 1.0).set_random_state(0)
    angles = []
    for _ in range(50):
        transform.randomize((20,) * axes)
        matrix = transform._plan.matrix
        assert np.allclose(matrix @ matrix.T, np.eye(axes))
        assert np.linalg.det(matrix) > 0
        angles.append(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))
    assert 15 < np.max(np.abs(angles)) <= 25.0
    assert np.min(angles) < 0 < np.max(angles)


def test_a_magnification_of_two_shows_structures_twice_as_large() -> None:
    volume = torch.zeros(1, 40, 40, 40, dtype=torch.uint8)
    volume[:, 16:24, 16:24, 16:24] = 1
    transform = RandPatchd("label", (30, 30, 30), 0.0, 0.0, (2.0, 2.0), 1.0)
    taken = transform({"label": volume, FOREGROUND_VOXEL: np.array([20, 20, 20])})["label"]
    assert int(taken.sum()) == 16**3


def test_the_probabilities_are_kept() -> None:
    transform = RandPatchd("image", (4, 4, 4), 30.0, 0.2, (0.7, 1.4), 0.2).set_random_state(0)
    turned = []
    for _ in range(1000):
        transform.randomize((9, 9, 9))
        turned.append(transform._plan.matrix is not None)
    assert abs(np.mean(turned) - 0.36) < 0.06  # four standard deviations; 1 - 0.8 x 0.8


@pytest.mark.parametrize("seed", range(20))
def test_a_patch_contains_the_voxel_that_it_has_to(seed) -> None:
    label = torch.zeros(1, 20, 20, 20, dtype=torch.uint8)
    voxel = np.random.default_rng(seed).integers(0, 20, 3)
    voxel[seed % 3] = (0, 19)[seed % 2]  # at a face of the volume
    label[(0, *voxel)] = 1
    options = {"rotate_degrees": 180.0, "rotate_prob": 0.7, "scale_prob": 0.7}
    transform = RandPatchd("label", (6, 5, 4), scale_range=(0.7, 1.4), **options)
    taken = transform.set_random_state(seed)({"label": label, FOREGROUND_VOXEL: voxel})["label"]
    assert int(taken.max()) == 1


@pytest.mark.parametrize("coarse", [0, 1, 2])
def test_a_coarse_axis_is_turned_about_and_not_interpolated_along(coarse) -> None:
    volume = smooth_volume()
    options = {"rotate_degrees": 180.0, "rotate_prob": 1.0, "scale_prob": 1.0}
    transform = RandPatchd(
        "image", (9, 8, 7), scale_range=(0.7, 1.4), coarse_axis=coarse, **options
    )
    for seed in range(5):
        taken = transform.set_random_state(seed)({"image": volume})["image"]
        matrix = transform._plan.matrix
        assert matrix[coarse].tolist() == matrix[:, coarse].tolist() == np.eye(3)[coarse].tolist()
        inside = reference(torch.ones(1, *volume.shape[1:]), transform, 1)[0] > 1 - 1e-6
        slices = taken[coarse].numpy()[inside]
        assert np.abs(slices - np.round(slices)).max() < 1e-4
        expected = reference(volume, transform, 1)
        assert np.abs(taken.numpy() - expected).max() < 1e-3


def test_a_coarse_axis_shorter_than_the_patch_is_padded() -> None:
    data = noise((20, 20, 3))
    options = {"rotate_degrees": 180.0, "rotate_prob": 1.0, "coarse_axis": 2}
    transform = RandPatchd(KEYS, (8, 8, 6), **options).set_random_state(0)
    taken = transform(data)
    clear = clear_of_ties(transform)
    expected = reference(data["label"], transform, 0)
    assert np.array_equal(taken["label"].numpy()[:, clear], expected[:, clear])
    assert [bool(taken["image"][..., k].any()) for k in range(6)] == [
        False,
        False,
        True,
        True,
        True,
        False,
    ]


def test_large_class_numbers_survive_a_turn() -> None:
    label = torch.from_numpy(np.full((1, 20, 20, 20), 40_001, np.uint16))
    transform = RandPatchd("label", (6, 6, 6), 30.0, 1.0).set_random_state(0)
    taken = transform({"label": label, FOREGROUND_VOXEL: np.array([10, 10, 10])})["label"]
    assert taken.dtype == torch.uint16
    assert np.unique(taken.numpy()).tolist() == [40_001]


def test_outputs_are_plain_contiguous_and_apart_from_the_input() -> None:
    data = noise()
    data["image"] = MetaTensor(data["image"])
    before = {key: value.clone() for key, value in data.items()}
    for prob in (0.0, 1.0):
        taken = RandPatchd(KEYS, (30, 28, 26), 10.0, prob, coarse_axis=0)(data)
        for key in KEYS:
            assert type(taken[key]) is torch.Tensor
            assert taken[key].is_contiguous()
            taken[key].zero_()
    assert all(torch.equal(data[key], before[key]) for key in KEYS)


def test_only_the_box_is_read_of_a_mapped_volume(tmp_path) -> None:
    side = 1100  # 1.3 GB, without a block on the disk
    file = tmp_path / "volume"
    with file.open("wb") as stream:
        stream.truncate(side**3)
    mapped = np.memmap(file, np.uint8, "c", shape=(1, side, side, side))
    data = {"label": torch.from_numpy(mapped)}
    transform = RandPatchd("label", (32, 32, 32), 30.0, 0.5).set_random_state(0)
    before = psutil.Process().memory_info().rss
    for _ in range(4):
        transform(data)
    assert psutil.Process().memory_info().rss - before < 200e6


def test_tensors_of_different_grids_are_refused() -> None:
    data = noise()
    data["label"] = data["label"][..., 1:]
    with pytest.raises(ValueError, match="data must have one spatial shape of 3 axes"):
        RandPatchd(KEYS, (4, 4, 4))(data)
    with pytest.raises(ValueError, match="data must have one spatial shape of 2 axes"):
        RandPatchd(KEYS, (4, 4))(noise())


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"patch_size": (4,)}, "patch_size must be 2 or 3 sizes"),
        ({"patch_size": (4, 0, 4)}, "patch_size must be at least 1"),
        ({"rotate_degrees": (1.0, 2.0)}, "rotate_degrees must be one number or 3"),
        ({"rotate_prob": 1.2}, "rotate_prob must be from 0 to 1, got 1.2"),
        ({"scale_range": (1.4, 0.7)}, "scale_range must be two rising numbers above 0"),
        ({"scale_range": (0.0, 1.0)}, "scale_range must be two rising numbers above 0"),
        ({"coarse_axis": 3}, "coarse_axis must be an axis of a 3D patch"),
        ({"patch_size": (4, 4), "coarse_axis": 0}, "coarse_axis must be an axis of a 3D patch"),
    ],
)
def test_wrong_arguments_are_refused(arguments, found) -> None:
    with pytest.raises(ValueError, match=found):
        RandPatchd(**({"keys": KEYS, "patch_size": (4, 4, 4)} | arguments))


def test_turns_about_all_axes_are_rotations_too() -> None:
    transform = RandPatchd("image", (8, 8, 8), (10.0, 20.0, 30.0), 1.0).set_random_state(0)
    transform.randomize((20, 20, 20))
    matrix = transform._plan.matrix
    assert np.allclose(matrix @ matrix.T, np.eye(3))
    assert np.linalg.det(matrix) > 0
    assert np.abs(matrix - np.eye(3)).max(axis=0).min() > 0.01


@pytest.mark.parametrize("prob", [0.0, 1.0])
def test_labels_outside_get_the_value_asked_for(prob) -> None:
    label = torch.zeros(1, 10, 12, dtype=torch.uint8)
    label[0, 3:6, 4:9] = 7
    data = {"image": torch.ones(1, 10, 12), "label": label}
    options = {"rotate_degrees": 30.0, "rotate_prob": prob}
    patches = {}
    for outside in (0, 255):
        transform = RandPatchd(["image", "label"], (24, 24), label_outside=outside, **options)
        transform.set_random_state(1)
        patches[outside] = transform(data)
    plain, marked = patches[0]["label"], patches[255]["label"]
    assert torch.equal(patches[0]["image"], patches[255]["image"])
    assert set(marked.unique().tolist()) == {0, 7, 255}
    assert torch.equal(plain, marked * (marked != 255))
    inside = patches[0]["image"] > 0.75
    assert (marked[inside] != 255).all()
    assert (marked[patches[0]["image"] == 0] == 255).all()
