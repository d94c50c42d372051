"""Slabs of a sliding window against MONAI's, which holds all of it."""

import itertools

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer

from medseg.errors import BundleError
from medseg.inference.maps import SlabReader
from medseg.inference.stream import Slab, Streaming, Work, stream_class_maps
from medseg.inference.windows import windows_of

CPU = torch.device("cpu")


class Blurred(torch.nn.Module):
    """Its class maps depend on where in the window a voxel lies."""

    def __init__(self, dims: int, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        kind = torch.nn.Conv3d if dims == 3 else torch.nn.Conv2d
        self.first = kind(2, 4, 3, padding=1)
        self.last = kind(4, classes, 3, padding=1)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += len(x)
        return self.last(torch.relu(self.first(x)))


def _image(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).normal(size=(2, *shape))).float()


def _whole(slabs: list[Slab], axis: int) -> torch.Tensor:
    return torch.cat([s.maps for s in sorted(slabs, key=lambda s: s.first)], axis + 1)


def _copies(stream) -> list[Slab]:
    return [Slab(slab.first, slab.maps.clone()) for slab in stream]


SHAPES = [
    ((20, 17, 31), (8, 8, 8), 0.5),
    ((20, 17, 31), (8, 9, 16), 0.25),
    ((16, 16, 16), (8, 8, 8), 0.0),
    ((5, 30, 6), (8, 8, 16), 0.5),  # smaller than the window along two axes
    ((4, 4, 4), (8, 8, 8), 0.5),
    ((33, 9, 10), (10, 9, 6), (0.7, 0.5, 0.9)),
    ((40, 23), (16, 12), 0.5),
    ((9, 50), (16, 12), 0.6),
]


@pytest.mark.parametrize(("shape", "size", "overlap"), SHAPES)
@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@torch.inference_mode()
def test_class_maps_equal_those_of_monai(shape, size, overlap, descending, mode) -> None:
    network, image = Blurred(len(shape)), _image(shape)
    inferer = SlidingWindowInferer(size, sw_batch_size=3, overlap=overlap, mode=mode)
    expected = inferer(image[None], network)[0]
    windows = windows_of(inferer, shape, CPU)
    for axis in range(len(shape)):
        work = Work()
        slabs = _copies(
            stream_class_maps(
                image,
                network,
                windows,
                axis=axis,
                descending=descending,
                how=Streaming(batch_size=2),
                work=work,
            )
        )
        firsts = [slab.first for slab in slabs]
        assert firsts == sorted(firsts, reverse=descending)
        torch.testing.assert_close(_whole(slabs, axis), expected, rtol=1e-5, atol=1e-5)
        assert work.windows == windows.count
        assert work.repeated == 0


def test_only_a_row_of_windows_is_held() -> None:
    image = _image((200, 12, 12))
    inferer = SlidingWindowInferer((8, 8, 8), overlap=0.5)
    windows = windows_of(inferer, image.shape[1:], CPU)
    with torch.inference_mode():
        slabs = list(stream_class_maps(image, Blurred(3), windows, axis=0))
    storages = {slab.maps.untyped_storage().data_ptr() for slab in slabs}
    assert len(storages) == 1
    assert slabs[0].maps.untyped_storage().nbytes() == 3 * 8 * 12 * 12 * 4


@torch.inference_mode()
def test_windows_of_one_value_are_run_once_and_change_nothing() -> None:
    image = torch.full((2, 48, 16, 16), -1.5)
    image[1] = 0.25
    image[:, 20:26, 4:9, 4:9] = _image((6, 5, 5))
    inferer = SlidingWindowInferer((8, 8, 8), overlap=0.5, mode="gaussian")
    windows = windows_of(inferer, image.shape[1:], CPU)
    results, calls, work = [], [], Work()
    for skip in (False, True):
        network = Blurred(3)
        slabs = stream_class_maps(
            image,
            network,
            windows,
            axis=0,
            how=Streaming(skip_empty=skip),
            work=work if skip else None,
        )
        results.append(_whole(_copies(slabs), 0))
        calls.append(network.calls)
    assert torch.equal(*results)
    assert calls[0] == work.windows == windows.count
    assert calls[1] == work.windows - work.repeated < calls[0] / 2


@pytest.mark.parametrize("regions", [False, True])
@torch.inference_mode()
def test_half_of_the_memory_gives_the_same_labels_but_for_ties(regions) -> None:
    image, inferer = _image((24, 40, 24)), SlidingWindowInferer((16, 16, 16), overlap=0.5)
    windows = windows_of(inferer, image.shape[1:], CPU)
    network = Blurred(3, classes=7)
    exact, half = (
        _whole(
            _copies(
                stream_class_maps(
                    image, network, windows, axis=1, how=Streaming(half=half, regions=regions)
                )
            ),
            1,
        ).float()
        for half in (False, True)
    )
    if regions:
        differ = (exact > 0) != (half > 0)
        assert exact[differ].abs().max() < 1e-3 if differ.any() else True
    else:
        labels = exact.argmax(0), half.argmax(0)
        differ = labels[0] != labels[1]
        gap = exact.gather(0, labels[0][None]) - exact.gather(0, labels[1][None])
        assert gap.max() < 1e-3
    assert differ.float().mean() < 1e-3
    assert half.abs().max() > 0


@torch.inference_mode()
def test_an_image_that_is_not_a_number_is_no_window_of_one_value() -> None:
    image = torch.full((2, 16, 8, 8), float("nan"))
    windows = windows_of(SlidingWindowInferer((8, 8, 8), overlap=0), image.shape[1:], CPU)
    work = Work()
    list(stream_class_maps(image, Blurred(3), windows, axis=0, work=work))
    assert work.repeated == 0


def test_a_network_of_another_size_is_refused() -> None:
    windows = windows_of(SlidingWindowInferer((8, 8, 8)), (16, 16, 16), CPU)
    image = _image((16, 16, 16))
    with pytest.raises(BundleError, match=r"windows of \[8, 8, 8\] voxels, got \(1, 2, 4, 4, 4\)"):
        list(stream_class_maps(image, lambda x: x[..., ::2, ::2, ::2], windows, axis=0))


class TestReader:
    @pytest.mark.parametrize("descending", [False, True])
    @pytest.mark.parametrize("sizes", [(5, 1, 1, 3), (10,), (2, 2, 2, 2, 2)])
    def test_planes_come_back_across_slabs(self, sizes, descending) -> None:
        whole = torch.arange(10.0).view(1, 10, 1)
        wanted = [(0, 1), (1, 1), (1, 4), (2, 5), (5, 6), (6, 9), (9, 9)]
        if descending:
            wanted = [(9 - b, 9 - a) for a, b in wanted]
        reader = SlabReader(_shared_slabs(whole, sizes, descending), 0, descending=descending)
        for first, last in wanted:
            assert torch.equal(reader.planes(first, last), whole[:, first : last + 1])

    def test_planes_may_be_left_out(self) -> None:
        whole = torch.arange(10.0).view(1, 10, 1)
        reader = SlabReader(_shared_slabs(whole, (3, 3, 4), False), 0, descending=False)
        assert reader.planes(7, 8).flatten().tolist() == [7, 8]


def _shared_slabs(whole: torch.Tensor, sizes, descending):
    """Slabs that all use the same memory, as those of a stream do."""
    ends = list(itertools.accumulate(sizes))
    spans = [(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    memory = torch.empty(1, max(sizes), 1)
    for first, end in spans[::-1] if descending else spans:
        memory.fill_(-1)
        memory[:, : end - first] = whole[:, first:end]
        yield Slab(first, memory[:, : end - first])
