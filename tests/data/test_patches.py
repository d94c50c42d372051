"""A sample depends on the seed and its number, on nothing else."""

import random
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.data import DataLoader, get_track_meta
from monai.transforms import (
    Compose,
    MapTransform,
    RandAdjustContrastd,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandSimulateLowResolutiond,
)

from medseg.data import CachedDataset, PatchDataset, patches
from medseg.errors import SampleError, UsageError
from medseg.transforms import RandPatchd, RandSmoothd, rand_patch
from tests.data.training_cases import KEYS, loading, write_case

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # optional, MONAI's


class FromGlobals(MapTransform):
    """Draw from the generators that belong to the process."""

    def __call__(self, data):
        drawn = torch.rand(1) + np.random.random() + random.random()  # noqa: NPY002
        return {**data, "image": data["image"] + drawn}


class Failing(MapTransform):
    def __call__(self, data):
        if data["case"] == "case_2":
            msg = "no such thing"
            raise ZeroDivisionError(msg)
        return data


class Kept(MapTransform):
    """Keep what a transform is given."""

    def __call__(self, data):
        return {**data, "voxel": data.get("foreground_voxel", np.full(3, -1))}


def augmentation():
    return [
        RandPatchd(KEYS, (6, 6, 4), 30.0, 0.5, (0.7, 1.4), 0.5),
        RandGaussianNoised("image", prob=0.5, std=0.1),
        RandSmoothd("image", prob=0.5),
        Compose([RandScaleIntensityd("image", prob=0.5, factors=0.25)]),
        RandSimulateLowResolutiond("image", prob=0.5, zoom_range=(0.5, 1.0)),
        RandAdjustContrastd("image", prob=0.5, gamma=(0.7, 1.5), retain_stats=True),
        *[RandFlipd(KEYS, prob=0.5, spatial_axis=axis) for axis in range(3)],
        FromGlobals("image"),
    ]


class InMemory:
    """Cases of noise, with and without foreground."""

    def __init__(self, count=5, classes=(1, 2), shape=(12, 11, 10)) -> None:
        self.count, self.classes, self.shape = count, classes, shape

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        label = torch.zeros(1, *self.shape, dtype=torch.uint8)
        for value in self.classes:
            label[0, value * 3, 4, 5] = value
        return {
            "case": f"case_{index}",
            "image": torch.randn(1, *self.shape, generator=generator),
            "label": label,
            "foreground": {v: np.array([[v * 3, 4, 5]], np.int32) for v in self.classes},
        }


@pytest.fixture
def cached(tmp_path):
    cases = [write_case(tmp_path, f"case_{n}", seed=n) for n in range(3)]
    return CachedDataset(cases, loading(), tmp_path / "cache")


def same(one, two) -> bool:
    return one["case"] == two["case"] and all(torch.equal(one[key], two[key]) for key in KEYS)


@pytest.mark.parametrize(("workers", "prefetch"), [(0, None), (1, 2), (2, 4)])
def test_workers_and_prefetching_change_no_sample(cached, workers, prefetch) -> None:
    dataset = PatchDataset(cached, augmentation(), batch_size=2, seed=3)
    expected = [dataset[number] for number in range(8)]
    loader = DataLoader(
        PatchDataset(cached, augmentation(), batch_size=2, seed=3),
        batch_sampler=[[0, 1], [2, 3], [4, 5], [6, 7]],
        num_workers=workers,
        prefetch_factor=prefetch,
    )
    batches = list(loader)
    for number, sample in enumerate(expected):
        batch = {key: batches[number // 2][key][number % 2] for key in ("case", *KEYS)}
        assert same(batch, sample)


def test_a_resumed_training_sees_what_it_would_have_seen(cached) -> None:
    straight = PatchDataset(cached, augmentation(), batch_size=2, seed=3)
    expected = [straight[number] for number in range(12)][7:]
    resumed = PatchDataset(cached, augmentation(), batch_size=2, seed=3)
    assert all(same(resumed[n], sample) for n, sample in enumerate(expected, start=7))
    assert same(resumed[2], straight[2])


def test_the_seed_and_the_number_change_the_sample(cached) -> None:
    one, two = (PatchDataset(cached, augmentation(), batch_size=2, seed=s) for s in (3, 4))
    assert not same(one[0], two[0])
    assert not torch.equal(one[0]["image"], one[3]["image"])


def test_samples_are_plain_contiguous_tensors(cached) -> None:
    sample = PatchDataset(cached, augmentation(), batch_size=2, seed=3)[1]
    assert sorted(sample) == ["case", "image", "label"]
    assert all(type(sample[key]) is torch.Tensor and sample[key].is_contiguous() for key in KEYS)
    assert (sample["image"].dtype, sample["label"].dtype) == (torch.float32, torch.uint8)
    assert sample["image"].shape == sample["label"].shape == (1, 6, 6, 4)


def test_global_generators_and_the_tracking_of_metadata_are_left_alone(cached) -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    expected = random.random(), np.random.random(), torch.rand(1)  # noqa: NPY002
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    PatchDataset(cached, augmentation(), batch_size=2, seed=3)[0]
    assert (random.random(), np.random.random(), torch.rand(1)) == expected  # noqa: NPY002
    assert get_track_meta()


def test_the_number_of_threads_changes_no_bit() -> None:
    steps = [
        RandPatchd(KEYS, (64, 64, 64), 30.0, 1.0),
        RandAdjustContrastd("image", prob=1.0, gamma=(0.7, 1.5), retain_stats=True),
        RandSmoothd("image", prob=1.0),
    ]
    dataset = PatchDataset(InMemory(1, shape=(70, 70, 70)), steps, 1, 0)
    before = torch.get_num_threads()
    samples = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            samples.append(dataset[0])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert same(samples[0], samples[1])
    assert same(samples[0], samples[2])


def test_every_epoch_has_each_case_once_in_its_own_order() -> None:
    dataset = PatchDataset(InMemory(7), [], batch_size=2, seed=0)
    orders = [[dataset.case_index(e * 7 + p) for p in range(7)] for e in range(20)]
    assert all(sorted(order) == list(range(7)) for order in orders)
    assert len({tuple(order) for order in orders}) > 15


@pytest.mark.parametrize(
    ("batch_size", "fraction", "forced"),
    [(9, 0.33, 3), (2, 0.33, 1), (1, 0.33, 1), (4, 0.0, 0), (2, 1.0, 2), (12, 0.5, 6)],
)
def test_the_last_samples_of_each_batch_are_forced(batch_size, fraction, forced) -> None:
    dataset = PatchDataset(InMemory(), [Kept(KEYS)], batch_size, 0, fraction)
    for batch in range(3):
        numbers = range(batch * batch_size, (batch + 1) * batch_size)
        found = [bool((dataset[number]["voxel"] >= 0).all()) for number in numbers]
        assert found == [False] * (batch_size - forced) + [True] * forced


def test_classes_have_equal_chance_and_the_patch_shows_them() -> None:
    steps = [RandPatchd(KEYS, (3, 3, 3), 30.0, 0.5, (0.7, 1.4), 0.5)]
    dataset = PatchDataset(InMemory(), steps, 1, 0)
    shown = Counter(int(dataset[number]["label"].max()) for number in range(400))
    assert shown[0] == 0
    assert abs(shown[1] - shown[2]) < 80  # four standard deviations of an even draw


def test_a_case_without_foreground_gives_any_patch() -> None:
    dataset = PatchDataset(InMemory(classes=()), [RandPatchd(KEYS, (3, 3, 3))], 1, 0)
    assert dataset[0]["label"].shape == (1, 3, 3, 3)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_transform_is_named_with_its_case(workers) -> None:
    dataset = PatchDataset(InMemory(), [Kept(KEYS), Failing(KEYS)], 1, 0)
    number = next(n for n in range(5) if dataset.case_index(n) == 2)
    loader = DataLoader(dataset, batch_sampler=[[number]], num_workers=workers)
    with pytest.raises(
        SampleError, match=r"case case_2, sample .*: Failing .*no such thing"
    ) as error:
        list(loader)
    assert error.value.code == "training-sample"


def test_a_transform_that_returns_several_samples_is_refused() -> None:
    dataset = PatchDataset(InMemory(), [Compose([Kept(KEYS)]), lambda data: [data]], 1, 0)
    with pytest.raises(SampleError, match="must return one sample, got list"):
        dataset[0]


def test_the_two_sides_agree_on_the_key_of_the_voxel() -> None:
    assert patches.FOREGROUND_VOXEL == rand_patch.FOREGROUND_VOXEL


def test_a_batch_sampler_finds_the_dataset_long_enough() -> None:
    dataset = PatchDataset(InMemory(), [], 2, 0)
    assert len(dataset) > 10**12
    with pytest.raises(IndexError, match="number must be at least 0"):
        dataset[-1]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"source": InMemory(0)}, "source must hold"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"foreground_fraction": 1.5}, "foreground_fraction must be from 0 to 1, got 1.5"),
        ({"transforms": Kept(KEYS)}, "transforms must be a list"),
    ],
)
def test_wrong_arguments_are_refused(arguments, found) -> None:
    given = {"source": InMemory(), "transforms": [], "batch_size": 2, "seed": 0} | arguments
    with pytest.raises(UsageError, match=found):
        PatchDataset(**given)


CONFIG = """
keys: [image, label]
preprocessing_transforms:
- {_target_: LoadImaged, keys: '@keys', reader: {_target_: medseg.transforms.ImageReader}}
- {_target_: EnsureChannelFirstd, keys: '@keys'}
- {_target_: Orientationd, keys: '@keys', axcodes: RAS, labels: null}
- {_target_: EnsureTyped, keys: '@keys', dtype: ['$torch.float32', '$torch.uint8']}
source: {_target_: medseg.data.CachedDataset, data: '@cases', folder: '@cache_dir',
         transforms: '@preprocessing_transforms'}
augmentation:
- {_target_: medseg.transforms.RandPatchd, keys: '@keys', patch_size: [6, 6, 4],
   rotate_degrees: [30, 30, 30], rotate_prob: 0.2, scale_range: [0.7, 1.4], scale_prob: 0.2,
   coarse_axis: null}
- {_target_: medseg.transforms.RandSmoothd, keys: image, prob: 0.2}
- {_target_: RandFlipd, keys: '@keys', prob: 0.5, spatial_axis: 0}
dataset: {_target_: medseg.data.PatchDataset, source: '@source', transforms: '@augmentation',
          batch_size: 2, seed: 0, foreground_fraction: 0.33}
prepare: $@source.prepare()
"""


def test_a_config_of_a_bundle_builds_the_data_path(tmp_path) -> None:
    config = ConfigParser(yaml.safe_load(CONFIG))
    config["cases"] = [write_case(tmp_path, f"case_{n}", seed=n) for n in range(2)]
    config["cache_dir"] = str(tmp_path / "cache")
    config.get_parsed_content("prepare")
    assert len(list((tmp_path / "cache").glob("case_*"))) == 2
    assert config.get_parsed_content("dataset")[0]["image"].shape == (1, 6, 6, 4)
