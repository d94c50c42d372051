"""Cases are preprocessed once, never taken for others, and complete or absent."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import DataLoader
from monai.transforms import Lambdad, NormalizeIntensityd, ScaleIntensityd

from medseg.data import CachedDataset, remove_unused, unused_entries
from medseg.data import entry as entries
from medseg.data.entry import (
    Prepared,
    foreground_voxels,
    open_entry,
    prepared_case,
    write_entry,
)
from medseg.errors import InputError, OutputError, UsageError
from medseg.objects import PLACES, ObjectInstances
from tests.data.training_cases import KEYS, loading, write_case
from tests.phantoms import numbered, write_series

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # optional, MONAI's

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cases(tmp_path):
    return [write_case(tmp_path, f"case_{n}", seed=n) for n in range(4)]


def entry_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name != "hashes"}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for path in folder.iterdir()
        if path.name != "hashes"
        for file in sorted(path.iterdir())
    }


def failing(data):
    """Stand in for a transform with a defect."""
    if float(data["label"].max()) > 2:
        msg = "no such thing"
        raise RuntimeError(msg)
    return data


def slow(data):
    """Stand in for a transform that takes its time."""
    time.sleep(0.2)
    return data


def dying(data):
    """Stand in for a library that crashes."""
    if float(data["label"].max()) > 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return data


def with_many_regions(data):
    return {**data, "label": torch.cat([data["label"] >= 1, data["label"] == 2]).byte()}


def with_nan(data):
    return {**data, "image": data["image"] / 0.0}


def with_fractions(data):
    return {**data, "label": data["label"].float() * 0.5}


def with_another_grid(data):
    return {**data, "label": data["label"][..., 1:]}


def as_list(data):
    return [data, data]


def test_an_item_is_what_the_transforms_make_of_the_case(cases, tmp_path) -> None:
    dataset = CachedDataset(cases, loading(), tmp_path / "cache")
    dataset.prepare()
    for item, case in zip((dataset[i] for i in range(4)), cases, strict=True):
        expected = {key: case[key] for key in KEYS}
        for step in loading():
            expected = step(expected)
        assert item["case"] == case["case"]
        assert (item["image"].dtype, item["label"].dtype) == (torch.float32, torch.uint8)
        assert torch.equal(item["image"], expected["image"].as_tensor())
        assert torch.equal(item["label"], expected["label"].as_tensor())


def test_the_entry_says_where_its_voxels_lie(cases, tmp_path) -> None:
    dataset = CachedDataset(cases[:1], loading(), tmp_path / "cache")
    meta = dataset.prepare_case(0).meta
    assert meta["case"] == "case_0"
    assert np.allclose(meta["spacing_mm"], [1.0, 1.5, 2.0])
    assert np.allclose(np.diag(meta["affine"])[:3], [1.0, 1.5, 2.0])
    assert meta["original_shape"] == meta["shape"] == [12, 10, 8]
    arrays = {name: np.load(dataset.entry_folder(0) / name) for name in ("image.npy", "label.npy")}
    assert {name: array.shape for name, array in arrays.items()} == dict.fromkeys(
        arrays, (1, 12, 10, 8)
    )


def test_writing_into_an_item_changes_nothing(cases, tmp_path) -> None:
    dataset = CachedDataset(cases[:1], loading(), tmp_path / "cache")
    before = dataset[0]["image"].clone()
    dataset[0]["image"].fill_(7.0)
    dataset[0]["foreground"][1].fill(7)
    assert torch.equal(dataset[0]["image"], before)
    assert not (dataset[0]["foreground"][1] == 7).all()


def test_nothing_is_computed_twice(cases, tmp_path, monkeypatch) -> None:
    CachedDataset(cases, loading(), tmp_path / "cache").prepare()
    again = CachedDataset(cases, loading(), tmp_path / "cache")
    monkeypatch.setattr(again, "prepare_case", lambda index: pytest.fail(f"case {index} again"))
    seen = []
    again.prepare(lambda *done: seen.append(done))
    assert seen == [(0, 0)]
    assert again[3]["case"] == "case_3"


def test_a_changed_file_makes_a_new_entry(cases, tmp_path) -> None:
    first = CachedDataset(cases, loading(), tmp_path / "cache")
    first.prepare()
    write_case(tmp_path, "case_2", seed=99)
    second = CachedDataset(cases, loading(), tmp_path / "cache")
    changed = [first.entry_folder(i) != second.entry_folder(i) for i in range(4)]
    assert changed == [False, False, True, False]
    assert not torch.equal(first[2]["image"], second[2]["image"])


def test_a_changed_parameter_makes_new_entries(cases, tmp_path) -> None:
    one, two = (CachedDataset(cases, loading(s), tmp_path / "cache") for s in (1.0, 2.0))
    assert one[0]["image"].max() == 1.0
    assert two[0]["image"].max() == 2.0
    assert one[0]["image"].max() == 1.0


def test_unused_entries_are_those_that_no_dataset_names(cases, tmp_path) -> None:
    one, two = (CachedDataset(cases, loading(s), tmp_path / "cache") for s in (1.0, 2.0))
    one.prepare()
    two.prepare()
    (tmp_path / "cache" / "notes").mkdir()
    assert unused_entries([one, two]) == ()
    assert set(unused_entries([one])) == {two.entry_folder(i) for i in range(4)}
    part = CachedDataset(cases[:3], loading(), tmp_path / "cache")
    assert set(unused_entries([part, two])) == {one.entry_folder(3)}
    assert remove_unused([part, two]) == (one.entry_folder(3),)
    assert [one.entry(i) is not None for i in range(4)] == [True, True, True, False]
    assert all(two.entry(i) is not None for i in range(4))
    assert (tmp_path / "cache" / "notes").is_dir()


def test_a_dicom_folder_and_several_channels_are_files_of_a_case(tmp_path) -> None:
    volume = numbered()
    series = write_series(volume, tmp_path / "series")
    item = {"case": "d", "image": [str(series), str(series)], "label": str(series)}
    steps = [
        *loading()[:2],
        ScaleIntensityd(KEYS, minv=0.0, maxv=1.0),
        Lambdad("label", func=torch.round),
    ]
    dataset = CachedDataset([item], steps, tmp_path / "cache")
    assert dataset[0]["image"].shape == (2, *volume.shape)
    before = dataset.entry_folder(0)
    next(series.iterdir()).unlink()
    assert CachedDataset([item], steps, tmp_path / "cache").entry_folder(0) != before


def test_foreground_is_a_choice_of_voxels_of_each_class() -> None:
    label = np.zeros((1, 60, 50, 40), np.uint8)
    label[0, :50] = 1
    label[0, 55, 3, 7] = 200
    chosen = foreground_voxels(label, "a")
    assert list(chosen) == [1, 200]
    assert chosen[1].shape == (10_000, 3)
    assert len(np.unique(chosen[1], axis=0)) == 10_000
    assert (label[0][tuple(chosen[1].T)] == 1).all()
    assert chosen[200].tolist() == [[55, 3, 7]]
    assert np.array_equal(foreground_voxels(label, "a")[1], chosen[1])
    assert not np.array_equal(foreground_voxels(label, "b")[1], chosen[1])


def test_pixels_that_are_left_out_are_no_foreground() -> None:
    label = np.zeros((1, 8, 9), np.uint8)
    label[0, 2:4], label[0, 4:6] = 3, 255
    chosen = foreground_voxels(label, "a")
    assert list(chosen) == [3]
    assert len(chosen[3]) == 18


def test_regions_have_foreground_by_channel_and_an_empty_case_has_none(cases, tmp_path) -> None:
    dataset = CachedDataset(cases, [*loading(), with_many_regions], tmp_path / "cache")
    item = dataset[0]
    assert item["label"].shape[0] == 2
    assert sorted(item["foreground"]) == [1, 2]
    for channel, voxels in item["foreground"].items():
        assert (item["label"][channel - 1].numpy()[tuple(voxels.T)] == 1).all()
    empty = [*loading(), Lambdad("label", func=torch.zeros_like)]
    assert CachedDataset(cases, empty, tmp_path / "cache")[0]["foreground"] == {}


def test_large_class_numbers_are_kept(tmp_path) -> None:
    label = np.zeros((1, 5, 5), np.uint16)
    label[0, 2, 3] = 40_000
    write_entry(
        tmp_path / "e", Prepared("a", np.ones((1, 5, 5), np.float32), label, np.eye(3), (5, 5))
    )
    entry = open_entry(tmp_path / "e")
    assert entry.label()[0, 2, 3].item() == 40_000
    assert entry.foreground()[40_000].tolist() == [[2, 3]]


def test_whole_cases_come_out_of_a_data_loader(cases, tmp_path) -> None:
    dataset = CachedDataset(cases, loading(), tmp_path / "cache")
    dataset.prepare()
    for workers in (0, 1):
        batches = list(DataLoader(dataset, batch_size=1, num_workers=workers))
        assert [batch["case"] for batch in batches] == [[case["case"]] for case in cases]
        assert all(torch.equal(b["image"][0], dataset[i]["image"]) for i, b in enumerate(batches))


def test_a_pickled_dataset_finds_the_same_entries(cases, tmp_path) -> None:
    dataset = CachedDataset(cases, loading(), tmp_path / "cache")
    dataset.prepare()
    copy = pickle.loads(pickle.dumps(dataset))
    assert [copy.entry_folder(i) for i in range(4)] == [dataset.entry_folder(i) for i in range(4)]


@pytest.mark.parametrize(
    ("step", "found", "code"),
    [
        (with_nan, "image must be finite", "non-finite"),
        (with_fractions, "label must hold whole numbers", "not-a-mask"),
        (with_another_grid, "label must have the grid of its image", "shape-mismatch"),
        (as_list, "as_list|function must return one case", "unreadable"),
    ],
)
def test_what_is_no_image_and_mask_is_refused_by_name(cases, tmp_path, step, found, code) -> None:
    dataset = CachedDataset(cases, [*loading(), step], tmp_path / "cache")
    with pytest.raises(InputError, match=rf"case case_1: .*({found})") as raised:
        dataset[1]
    assert raised.value.code == code
    assert not any("case_1" in str(path) for path in (tmp_path / "cache").rglob("*"))


@pytest.mark.parametrize("workers", [None, 2])
@pytest.mark.slow
def test_all_failing_cases_are_listed_and_the_others_done(cases, tmp_path, workers) -> None:
    Path(cases[1]["image"]).write_bytes(b"no image")
    Path(cases[3]["label"]).unlink()
    dataset = CachedDataset(cases, loading(), tmp_path / "cache", workers)
    with pytest.raises(InputError, match="2 of 4 cases") as raised:
        dataset.prepare()
    assert "case case_1: " in str(raised.value)
    assert "case case_3: " in str(raised.value)
    assert {name.split("-")[0] for name in entry_names(tmp_path / "cache")} == {"case_0", "case_2"}


def test_the_rest_can_be_left(cases, tmp_path) -> None:
    dataset = CachedDataset(cases, loading(), tmp_path / "cache", workers=1)
    dataset.prepare(stop=lambda: True)
    assert sum(dataset.entry(index) is not None for index in range(len(dataset))) == 1


@pytest.mark.parametrize(("step", "code"), [(failing, "preprocessing"), (dying, "worker-died")])
@pytest.mark.slow
def test_a_case_that_fails_in_another_process_is_named(cases, tmp_path, step, code) -> None:
    import nibabel as nib  # noqa: PLC0415

    image = nib.load(cases[2]["label"])
    nib.save(nib.Nifti1Image(np.full((12, 10, 8), 3, np.uint8), image.affine), cases[2]["label"])
    dataset = CachedDataset(cases, [*loading(), step], tmp_path / "cache", workers=2)
    with pytest.raises(InputError, match="case case_2: ") as raised:
        dataset.prepare()
    assert raised.value.code == code
    assert len(entry_names(tmp_path / "cache")) == 3


def test_an_entry_that_a_power_cut_left_short_is_made_again(cases, tmp_path) -> None:
    dataset = CachedDataset(cases, loading(), tmp_path / "cache")
    expected = dataset[0]["image"].clone()
    file = dataset.entry_folder(0) / "image.npy"
    file.write_bytes(file.read_bytes()[:-100])
    assert dataset.entry(0) is None
    assert torch.equal(dataset[0]["image"], expected)


def test_a_file_changed_while_it_is_read_is_refused(cases, tmp_path) -> None:
    dataset = CachedDataset(cases, loading(), tmp_path / "cache")
    dataset.entry_folder(0)
    write_case(tmp_path, "case_0", seed=50)
    with pytest.raises(InputError, match="case case_0 must stay as it is"):
        dataset[0]


def test_a_folder_that_cannot_be_written_is_an_output_error(cases, tmp_path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(OutputError, match="cache"):
        CachedDataset(cases, loading(), tmp_path / "cache").prepare()


def test_a_full_disk_is_an_output_error_and_leaves_nothing(cases, tmp_path, monkeypatch) -> None:
    def full(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(entries, "_write_array", full)
    with pytest.raises(OutputError) as raised:
        CachedDataset(cases, loading(), tmp_path / "cache").prepare()
    assert raised.value.code == "disk-full"
    assert entry_names(tmp_path / "cache") == set()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ([{"case": "a", "image": "i"}], "case, image and label"),
        ([{"case": "a", "image": [], "label": "l"}], r"data\[0\]\['image'\] must be a path"),
        ([{"case": "a", "image": "i", "label": "l"}] * 2, "each case once, got a "),
    ],
)
def test_data_that_is_no_list_of_cases_is_refused(tmp_path, data, found) -> None:
    with pytest.raises(UsageError, match=found):
        CachedDataset(data, loading(), tmp_path)


def test_a_single_transform_and_no_workers_are_refused(tmp_path) -> None:
    with pytest.raises(UsageError, match="transforms must be a list"):
        CachedDataset([], NormalizeIntensityd("image"), tmp_path)
    with pytest.raises(UsageError, match="workers must be at least 1"):
        CachedDataset([], loading(), tmp_path, workers=0)


SCRIPT = """
import json, sys
from tests.data.test_cache import slow
from tests.data.training_cases import loading
from medseg.data import CachedDataset
cases = json.load(open(sys.argv[1]))
workers = int(sys.argv[3])
dataset = CachedDataset(cases, [*loading(), slow], sys.argv[2], workers)
print("started", flush=True)
dataset.prepare()
print("done", flush=True)
"""


def start(tmp_path, cases, folder, workers: int) -> subprocess.Popen:
    """Run a script without a main guard that prepares the cases."""
    script = tmp_path / "prepare.py"
    script.write_text(textwrap.dedent(SCRIPT))
    listed = tmp_path / "cases.json"
    listed.write_text(json.dumps(cases))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(script), str(listed), str(folder), str(workers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def finished(process: subprocess.Popen) -> None:
    out, _ = process.communicate(timeout=120)
    assert out.splitlines() == ["started", "done"]
    assert process.returncode == 0


@pytest.mark.slow
def test_two_processes_at_once_and_one_alone_make_the_same(tmp_path) -> None:
    cases = [write_case(tmp_path, f"case_{n}", seed=n) for n in range(6)]
    together = [start(tmp_path, cases, tmp_path / "together", workers) for workers in (1, 2)]
    for process in together:
        finished(process)
    CachedDataset(cases, [*loading(), slow], tmp_path / "alone").prepare()
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")
    assert len(entry_names(tmp_path / "alone")) == 6


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_process_leaves_whole_entries_and_is_continued(tmp_path, workers) -> None:
    cases = [write_case(tmp_path, f"case_{n}", seed=n) for n in range(8)]
    folder = tmp_path / "cache"
    process = start(tmp_path, cases, folder, workers)
    while len([n for n in (entry_names(folder) if folder.exists() else ()) if n[0] != "."]) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.communicate()
    dataset = CachedDataset(cases, [*loading(), slow], folder)
    there = [dataset.entry(i) for i in range(8)]
    assert all(
        e is not None
        for e, i in zip(there, range(8), strict=True)
        if dataset.entry_folder(i).exists()
    )
    assert any(e is None for e in there)
    dataset.prepare()
    CachedDataset(cases, [*loading(), slow], tmp_path / "alone").prepare()
    whole = {n: c for n, c in contents(folder).items() if not n.startswith(".part-")}
    assert whole == contents(tmp_path / "alone")


RANKS = """
import json, sys
import torch.distributed as dist
from tests.data.training_cases import loading
from medseg.data import CachedDataset
from medseg.errors import InputError
from medseg.training import end_process

dist.init_process_group("gloo")
dataset = CachedDataset(json.load(open(sys.argv[1])), loading(), sys.argv[2])
done = []
original = dataset.prepare_case
dataset.prepare_case = lambda index: done.append(index) or original(index)
try:
    dataset.prepare()
    failed = ""
except InputError as error:
    failed = str(error)
print(json.dumps([dist.get_rank(), done, failed]) + "\\n", end="", flush=True)
dist.destroy_process_group()
end_process()
"""


@pytest.mark.slow
def test_ranks_share_the_work_and_all_hear_of_a_failure(tmp_path) -> None:
    cases = [write_case(tmp_path, f"case_{n}", seed=n) for n in range(5)]
    Path(cases[1]["image"]).write_bytes(b"no image")
    (tmp_path / "ranks.py").write_text(textwrap.dedent(RANKS))
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            "ranks.py",
            "cases.json",
            "cache",
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert sorted(index for _, indices, _ in lines for index in indices) == [0, 1, 2, 3, 4]
    assert sorted(len(indices) for _, indices, _ in lines) == [2, 3]
    assert all(failed.startswith("case case_1: ") for _, _, failed in lines)
    assert len(entry_names(tmp_path / "cache")) == 4


def test_layers_of_objects_are_kept_and_give_each_object_as_many_voxels() -> None:
    masks = np.zeros((4, 40, 50), bool)
    masks[0, :30, :30] = masks[1, 20:24, 25:30] = masks[2, 35:, 45:] = masks[3, 39, :2] = True
    layers = ObjectInstances.of(masks, [1, 1, 2, 2], size=(40, 50)).layers()
    assert len(layers) == 2
    case = prepared_case("a", {"image": np.zeros((3, 40, 50), np.float32), "label": layers})
    assert case.label.dtype == np.int32
    assert np.array_equal(case.label, layers)
    found = foreground_voxels(case.label, "a")
    assert {number: len(voxels) for number, voxels in found.items()} == {1: 32, 2: 18}
    for number, voxels in found.items():
        for row, column in voxels:
            assert number in layers[:, row, column] // PLACES
    for mask, number in zip(masks[1:], (1, 2, 2), strict=True):
        inside = [bool(mask[tuple(voxel)]) for voxel in found[number]]
        assert sum(inside) >= min(16, mask.sum())
    again = foreground_voxels(case.label, "a")
    assert all(np.array_equal(found[number], again[number]) for number in found)
