"""Windows streamed to a mask against whole class maps: the same labels but for ties."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from scipy import ndimage

from medseg.geometry import Affine
from medseg.inference.maps import StreamedMaps, first_of
from medseg.inference.restore import Meaning, restore_mask
from medseg.inference.stream import Network, Streaming
from medseg.inference.tta import mirrored
from medseg.inference.windows import windows_of
from medseg.io.probabilities import LARGEST, ProbabilityStore
from medseg.transforms import Resample, metatensor
from medseg.volume import Volume, reoriented

CPU = torch.device("cpu")
TIE = 1e-4

Maps = npt.NDArray[np.float64]


class Contextual(torch.nn.Module):
    """Its logits depend on the neighbourhood and, by its padding, on where the window lies."""

    def __init__(self, seed: int, dims: int, classes: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        kind = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dims]
        self.first = kind(1, 6, 5, padding=2)
        self.last = kind(6, classes, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * self.last(torch.nn.functional.leaky_relu(self.first(x)))


def _volume(shape: Sequence[int], affine: Affine, seed: int = 0) -> Volume:
    """Return blobs and noise."""
    rng = np.random.default_rng(seed)
    array = ndimage.gaussian_filter(rng.normal(size=shape), 1.5) * 8 + 0.3 * rng.normal(size=shape)
    return Volume(array[None].astype(np.float32), affine)


def _dense(
    image: MetaTensor,
    inferer: SlidingWindowInferer,
    networks: Sequence[Network],
    volume: Volume,
    joined: Callable[[list[torch.Tensor]], torch.Tensor],
) -> Maps:
    """Return class maps of MONAI's inferer, interpolated with scipy to the source at full size."""
    maps = joined([inferer(image.as_tensor()[None], network)[0] for network in networks])
    matrix = np.linalg.inv(np.asarray(image.affine)) @ volume.affine
    index = np.indices(volume.shape).reshape(len(volume.shape), -1)
    positions = matrix[:-1, :-1] @ index + matrix[:-1, -1:]
    full = [
        ndimage.map_coordinates(one.double().numpy(), positions, order=1, mode="nearest")
        for one in maps
    ]
    return np.stack(full).reshape(len(full), *volume.shape)


def _require_equal(mask: npt.NDArray[np.uint8], maps: Maps, regions: bool, level: float) -> None:
    if regions:
        expected = np.zeros(mask.shape, np.uint8)
        for number, one in enumerate(maps, start=1):
            expected[one > level] = number
        gap = np.abs(maps - level).min(axis=0)
    else:
        expected = maps.argmax(axis=0)
        ranked = np.sort(maps, axis=0)
        gap = ranked[-1] - ranked[-2]
    differ = mask != expected
    assert differ.sum() <= max(1, 1e-4 * differ.size)
    assert not differ.any() or gap[differ].max() < TIE
    assert len(np.unique(expected)) > 1


def _probabilities(regions: bool) -> Callable[[Sequence[torch.Tensor]], torch.Tensor]:
    def mean(several: Sequence[torch.Tensor]) -> torch.Tensor:
        each = [one.sigmoid() if regions else one.softmax(0) for one in several]
        return torch.stack(each).mean(0)

    return mean


GRIDS = {
    "as it is": ([1, 1, 1], (0, 1, 2), (1, 1, 1), (1.0, 1.0, 1.0)),
    "flipped": ([1, 1, 1], (0, 1, 2), (-1, -1, 1), (1.0, 1.0, 1.0)),
    "axes exchanged, upsampled": ([1.3, 0.9, 1.7], (2, 0, 1), (-1, 1, -1), (0.8, 0.8, 0.8)),
    "anisotropic, downsampled": ([0.7, 0.7, 2.5], (0, 1, 2), (-1, -1, 1), (1.4, 1.1, 2.5)),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shape", [(33, 29, 22), (12, 40, 9)])
@pytest.mark.parametrize("kind", ["classes", "regions", "several", "several regions", "mirrored"])
@torch.inference_mode()
def test_3d(grid: str, shape: tuple[int, ...], kind: str) -> None:
    spacing, order, flips, wanted = GRIDS[grid]
    affine = np.eye(4)
    affine[:3, :3] = np.diag(np.multiply(spacing, flips))[:, list(order)]
    affine[:3, 3] = (11, -7, 3)
    volume = _volume(shape, affine)
    image = metatensor(reoriented(volume, "RAS"))
    if any(abs(a / b - 1) > 1e-3 for a, b in zip(spacing, wanted, strict=True)):
        image = Resample(wanted, 1, 0)(image)
    _check(volume, image, kind, SlidingWindowInferer((16, 20, 12), overlap=0.5, mode="gaussian"))


@pytest.mark.parametrize("shape", [(50, 37), (14, 60)])
@pytest.mark.parametrize("kind", ["classes", "regions", "several", "mirrored"])
@torch.inference_mode()
def test_2d(shape: tuple[int, ...], kind: str) -> None:
    volume = _volume(shape, np.array([[0, -0.5, 3], [0.7, 0, 1], [0, 0, 1.0]]))
    array = volume.array.swapaxes(1, 2)[:, ::-1].copy()  # the network's grid: both axes rising
    affine = np.eye(4)
    affine[:2, :2] = np.diag([0.5, 0.7])
    affine[:2, 3] = (3 - 0.5 * (shape[1] - 1), 1)
    image = MetaTensor(torch.from_numpy(array), affine=affine)
    inferer = SlidingWindowInferer((24, 16), overlap=0.25, mode="constant")
    _check(volume, image, kind, inferer, affine[np.ix_([0, 1, 3], [0, 1, 3])])


def _check(
    volume: Volume,
    image: MetaTensor,
    kind: str,
    inferer: SlidingWindowInferer,
    affine: Affine | None = None,
) -> None:
    dims = len(volume.shape)
    own = np.asarray(image.affine, np.float64) if affine is None else affine
    count = 3 if "several" in kind else 1
    networks: list[Network] = [Contextual(n, dims, 4) for n in range(count)]
    if kind == "mirrored":
        networks = [mirrored(network) for network in networks]
    regions = "regions" in kind
    joined = _probabilities(regions) if count > 1 else first_of
    windows = windows_of(inferer, image.shape[1:], CPU)
    maps = StreamedMaps(
        image.as_tensor(), networks, windows, own, Streaming(regions=regions), joined
    )
    level = 0.5 if count > 1 else 0.0
    values = (1, 2, 3, 4) if regions else (0, 1, 2, 3)
    meaning = Meaning(values, regions, level)
    if affine is not None:
        image = MetaTensor(image.as_tensor(), affine=np.eye(4))
        image = _Flat(image, own)  # type: ignore[assignment]
    dense = _dense(image, inferer, networks, volume, joined)
    for strips in (1, 2, 5):
        mask = restore_mask([maps], volume.shape, volume.affine, meaning, strips=strips)
        _require_equal(mask, dense, regions, level)


class _Flat:
    """A 2D image with a (3, 3) affine, which MetaTensor has not."""

    def __init__(self, image: MetaTensor, affine: Affine) -> None:
        self._image = image
        self.affine = affine

    def as_tensor(self) -> torch.Tensor:
        return self._image.as_tensor()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("kind", ["classes", "regions", "several"])
@torch.inference_mode()
def test_probabilities_are_those_of_whole_class_maps(grid: str, kind: str, tmp_path: Path) -> None:
    spacing, order, flips, wanted = GRIDS[grid]
    affine = np.eye(4)
    affine[:3, :3] = np.diag(np.multiply(spacing, flips))[:, list(order)]
    volume = _volume((25, 22, 18), affine)
    image = metatensor(reoriented(volume, "RAS"))
    if any(abs(a / b - 1) > 1e-3 for a, b in zip(spacing, wanted, strict=True)):
        image = Resample(wanted, 1, 0)(image)
    inferer = SlidingWindowInferer((16, 20, 12), overlap=0.5, mode="gaussian")
    networks: list[Network] = [Contextual(n, 3, 4) for n in range(2 if kind == "several" else 1)]
    regions = kind == "regions"
    joined = _probabilities(regions) if kind == "several" else first_of
    dense = torch.from_numpy(_dense(image, inferer, networks, volume, joined))
    if kind != "several":
        dense = dense.sigmoid() if regions else dense.softmax(0)
    windows = windows_of(inferer, image.shape[1:], CPU)
    own = np.asarray(image.affine, np.float64)
    maps = StreamedMaps(image.as_tensor(), networks, windows, own, Streaming(), joined)
    values = (1, 2, 3, 4) if regions else (0, 1, 2, 3)
    meaning = Meaning(values, regions, 0.5 if kind == "several" else 0.0, kind != "several")
    for strips in (1, 3):
        channels = [(value, str(value)) for value in values]
        store = ProbabilityStore(volume.shape, channels, exclusive=not regions, folder=tmp_path)
        mask = restore_mask([maps], volume.shape, volume.affine, meaning, strips=strips, sink=store)
        found = np.stack([store.channel(number) for number in range(4)]) / LARGEST
        np.testing.assert_allclose(found, dense, atol=2e-5)
        plain = restore_mask([maps], volume.shape, volume.affine, meaning, strips=strips)
        assert (mask == plain).all()
        store.close()
    assert not list(tmp_path.iterdir())
