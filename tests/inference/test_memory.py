"""Memory is foreseen, and made to fit."""

import subprocess
import sys

import pytest
import torch
from monai.inferers import SlidingWindowInferer

from medseg.data import limits
from medseg.data.limits import reusable_bytes
from medseg.errors import InputError
from medseg.inference.memory import GIB, Load, activation_bytes, foresee, free_bytes
from medseg.inference.stream import Streaming
from medseg.inference.windows import whole_image, windows_of

CPU = torch.device("cpu")


def _load(shape=(341, 341, 400), size=(96, 96, 96), outputs=105, networks=1) -> Load:
    windows = windows_of(SlidingWindowInferer(size, overlap=0.5), shape, CPU)
    return Load(windows, 1, outputs, networks)


def test_few_classes_are_added_up_in_float32() -> None:
    foreseen = foresee([_load(outputs=3)], (512, 512, 600), Streaming(), budget_bytes=16 * GIB)
    assert not foreseen.how.half
    row = 96 * 341 * 400
    assert foreseen.needs.sums == row * (3 * 4 + 4)
    assert foreseen.as_json()["sums_dtype"] == "float32"


def test_many_classes_are_added_up_in_float16() -> None:
    foreseen = foresee([_load()], (512, 512, 600), Streaming(), budget_bytes=16 * GIB)
    assert foreseen.how.half
    assert foreseen.needs.total < 4 * GIB


def test_a_small_budget_has_the_same_effect() -> None:
    load = _load(outputs=20)
    needs = load.needs(Streaming()).total
    foreseen = foresee([load], (10, 10, 10), Streaming(), budget_bytes=needs - 1)
    assert foreseen.how.half


def test_a_smaller_budget_cuts_the_image_into_strips() -> None:
    load, source = _load(), (512, 512, 600)
    mask = 512 * 512 * 600
    budgets = {n: load.needs(Streaming(half=True, strips=n)).total + mask for n in (1, 2, 4)}
    assert budgets[1] > 1.2 * budgets[2] > 1.2 * 1.1 * budgets[4]
    for strips, budget in budgets.items():
        found = foresee([load], source, Streaming(), budget_bytes=budget).how.strips
        assert found == max(strips, 2)  # in one piece, the sums alone take over 2 GiB
    few = _load(outputs=60)
    assert foresee([few], source, Streaming(), budget_bytes=64 * GIB).how.strips == 1


def test_what_cannot_fit_is_said_before_it_is_tried() -> None:
    with pytest.raises(
        InputError, match=r"341 x 341 x 400 voxels must fit .* of 1024 MiB"
    ) as error:
        foresee([_load()], (341, 341, 400), Streaming(), budget_bytes=GIB)
    assert error.value.code == "too-large"


def test_maps_that_exist_as_a_whole_are_counted_as_such() -> None:
    load = Load(whole_image((100, 80, 60)), 1, 9, streamed=False)
    for half in (False, True):
        assert load.needs(Streaming(half=half)).sums == 100 * 80 * 60 * (9 * 4 + 4)


def test_memory_that_was_freed_counts_as_free(monkeypatch) -> None:
    monkeypatch.setattr(limits._Freed, "without_pages", 0)
    blocks = [bytearray(100_000) for _ in range(400)]  # small enough for the heap
    before, free = reusable_bytes(), free_bytes()
    del blocks[::2]  # between those that stay, so that nothing is given back
    if before == 0:
        pytest.skip("the C library does not say")
    assert reusable_bytes() > before + 15_000_000
    assert free_bytes() > 0.5 * free


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's own")
def test_freed_memory_is_given_back_on_demand_and_then_not_counted_as_kept():
    code = """
import psutil, torch
from medseg.data.limits import give_back_freed_memory, keep_freed_memory, reusable_bytes
resident = psutil.Process().memory_info
print(keep_freed_memory())
large = torch.ones(50_000_000)
behind = torch.ones(1_000_000)
del large
print(resident().rss, reusable_bytes())
give_back_freed_memory()
print(resident().rss, reusable_bytes())
del behind
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    kept, *rest = done.stdout.split()
    if kept != "True":
        pytest.skip("another C library")
    before, reusable, after, left = map(int, rest)
    assert reusable > 190_000_000
    assert after < before - 150_000_000
    assert left < 10_000_000


def test_sums_leave_a_gpu_that_is_too_small() -> None:
    ways = [
        foresee([_load()], (9, 9, 9), Streaming(), budget_bytes=64 * GIB, gpu_budget_bytes=n * GIB)
        for n in (24, 4, 1)
    ]
    assert [(way.how.half, way.how.device) for way in ways] == [
        (False, None),
        (True, None),
        (True, CPU),
    ]
    assert ways[0].gpu.sums > 4 * GIB
    assert ways[2].gpu.sums == 0
    assert ways[2].needs.sums > 2 * GIB


def test_activations_are_counted_without_running_the_network() -> None:
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 8, 3, padding=1), torch.nn.ReLU())
    assert activation_bytes(network, (1, 32, 32, 32)) == 5 * 8 * 32**3 * 4

    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * float(x.mean())

    assert activation_bytes(Odd(), (1, 8, 8, 8)) == 0
