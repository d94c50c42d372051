"""Runs against numpy and scipy on the plain label map."""

import numpy as np
import pytest
from scipy import ndimage

from medseg.report import runs as runs_module
from medseg.report.runs import connected, find_runs, label_profiles


def _label_map(seed: int, shape: tuple[int, ...], order: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 4, shape) * (ndimage.gaussian_filter(rng.normal(size=shape), 1) > 0)
    return np.asarray(array.astype(np.uint8), order=order)


SHAPES = [(13, 11, 9), (1, 12, 10), (12, 1, 10), (10, 12, 1), (1, 1, 20), (2, 2, 2), (17, 19)]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_components_equal_those_of_scipy(seed: int, shape: tuple[int, ...], order: str) -> None:
    array = _label_map(seed, shape, order)
    runs = find_runs(array)
    component = connected(runs)
    for label in (1, 2, 3):
        _, count = ndimage.label(array == label, structure=np.ones((3,) * len(shape)))
        assert len(np.unique(component[runs.label == label])) == count


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", SHAPES)
def test_profiles_equal_sums_over_planes(shape: tuple[int, ...], order: str) -> None:
    array = _label_map(7, shape, order)
    profiles = label_profiles(find_runs(array), 3)
    for axis, profile in enumerate(profiles):
        others = tuple(a for a in range(len(shape)) if a != axis)
        for label in (1, 2, 3):
            assert profile[label].tolist() == (array == label).sum(axis=others).tolist()


def test_chunks_give_the_same_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    array = _label_map(9, (14, 6, 8), "C")
    whole = find_runs(array)
    monkeypatch.setattr(runs_module, "_CHUNK_LINES_VOXELS", 100)
    chunked = find_runs(array)
    for field in ("line", "start", "stop", "label"):
        assert np.array_equal(getattr(whole, field), getattr(chunked, field))


def test_views_with_negative_strides_are_read_as_they_look() -> None:
    array = _label_map(3, (9, 8, 7), "C")[::-1, :, ::-1].transpose(1, 2, 0)
    profiles = label_profiles(find_runs(array), 3)
    assert profiles[2][1].tolist() == (array == 1).sum(axis=(0, 1)).tolist()
